"""Network blocks that parts share: convolutions, attention, recurrence, lapped transforms."""
