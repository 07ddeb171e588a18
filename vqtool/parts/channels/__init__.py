"""Channels between quantizer and decoder or classifier; plugins bring them."""
