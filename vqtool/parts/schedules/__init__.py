"""Numbers that change while a stage trains."""
