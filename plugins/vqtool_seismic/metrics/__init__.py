"""Metrics that hold codes against picked phases."""
