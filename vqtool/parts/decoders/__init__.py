"""Latents back to signals."""
