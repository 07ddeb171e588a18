"""Losses of a link: alignment of soft and hard path, and symbols used."""
