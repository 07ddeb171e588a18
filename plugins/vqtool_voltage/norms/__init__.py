"""The frames in which voltages and currents are coded."""
