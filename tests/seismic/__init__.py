"""Tests of the seismic use case."""
