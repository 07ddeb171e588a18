"""Signals straight from conditions."""
