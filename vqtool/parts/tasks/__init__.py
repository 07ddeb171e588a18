"""How parts are wired and what one training step does."""
