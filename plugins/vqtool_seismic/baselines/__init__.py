"""Baselines for learned codes: spectra, k-means on them, and STA/LTA."""
