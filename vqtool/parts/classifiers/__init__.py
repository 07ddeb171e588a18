"""Class scores from latents."""
