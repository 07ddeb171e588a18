"""Quantizers that choose how a window is sent."""
