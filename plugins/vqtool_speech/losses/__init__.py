"""Losses on spectra."""
