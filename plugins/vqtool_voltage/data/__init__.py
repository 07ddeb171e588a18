"""Data sets of measured currents and voltages."""
