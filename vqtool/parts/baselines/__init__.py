"""Plain rivals that a model is measured beside."""
