"""Signals to latents."""
