"""Codes read by labels: agreement, probes, and the page that shows what codes fire on."""
