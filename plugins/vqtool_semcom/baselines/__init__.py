"""Simple baselines of a learned transceiver."""
