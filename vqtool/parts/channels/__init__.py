"""What happens to codes on their way to a receiver."""
