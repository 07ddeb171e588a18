"""What is real and what is decoded."""
