"""Losses from the physics of a winding."""
