"""Gradient estimators, one a file: how the gradient passes the choice of a code."""
