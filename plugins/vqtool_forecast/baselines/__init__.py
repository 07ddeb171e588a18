"""Plain forecasts to compare a model with."""
