"""The speech codec that vqtool carries along: weights, where they come from, and how to train them on."""
