"""Plain models from current to voltage, measured beside the trained one."""
