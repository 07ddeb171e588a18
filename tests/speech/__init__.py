"""Tests of the speech codec."""
