"""Channels between transmitter and receiver."""
