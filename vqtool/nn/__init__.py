"""Blocks that parts share: nearest-code search, straight-through, moving average, k-means, revival, convolution."""
