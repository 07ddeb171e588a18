"""What is measured on held-out windows."""
