"""Frames in which series are coded: their side information, and what the history predicts of its future."""
