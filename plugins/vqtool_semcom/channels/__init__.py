"""Noise on the way from sender to receiver."""
