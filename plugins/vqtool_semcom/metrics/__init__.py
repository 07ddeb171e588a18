"""What is measured of a link."""
