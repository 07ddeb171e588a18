"""What a codec is judged by."""
