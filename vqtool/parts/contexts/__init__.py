"""Networks that let every token see the others."""
