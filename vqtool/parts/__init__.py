"""The general parts, one file each; the catalog finds them by file name and nothing imports them directly."""
