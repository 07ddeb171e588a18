"""Metrics of a link and of its router."""
