"""Models that vqtool did not train: the tensors of their files, and the codebooks among them."""
