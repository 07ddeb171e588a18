"""Tests of vqtool.recipe."""
