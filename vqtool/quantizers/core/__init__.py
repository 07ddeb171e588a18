"""What quantizers are made of: codebooks, search, the start, the gradient, the update."""
