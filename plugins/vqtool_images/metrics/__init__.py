"""How close reconstructed pictures are."""
