"""Forecasting tasks of their own: of series that were never trained on."""
