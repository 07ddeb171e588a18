"""Tests of vqtool.catalog."""
