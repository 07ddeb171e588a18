"""Pictures and sentences with labels."""
