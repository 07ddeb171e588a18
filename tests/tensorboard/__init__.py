"""TensorBoard as an observer."""
