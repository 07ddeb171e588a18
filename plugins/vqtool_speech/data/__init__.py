"""Audio files as data."""
