"""Damaged files: every reader of every command gets thousands of them, and must answer with one sentence or read on."""
