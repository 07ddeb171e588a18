"""How healthy codebooks are, measured and said in words."""
