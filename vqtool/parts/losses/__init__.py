"""What a stage may minimise."""
