"""Metrics from the physics of a winding."""
