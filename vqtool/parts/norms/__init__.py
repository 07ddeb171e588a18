"""Normalisation of signals and conditions."""
