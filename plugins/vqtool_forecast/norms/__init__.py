"""Frames in which series are coded: what is sent apart, and what the history foretells."""
