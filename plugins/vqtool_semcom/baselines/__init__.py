"""Plain rivals of a learned transceiver."""
