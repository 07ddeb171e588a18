"""Data sets that belong to no single field."""
