"""Plain rivals of a forecaster."""
