"""Conditions of a window to a vector and tokens."""
