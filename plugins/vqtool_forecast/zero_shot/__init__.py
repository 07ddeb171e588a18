"""Forecasts of series that were never trained on: what a history alone says, in one frame for every frequency."""
