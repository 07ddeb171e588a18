"""Frames that the other parts work in."""
