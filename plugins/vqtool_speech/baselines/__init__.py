"""Plain codecs, measured beside the trained one."""
