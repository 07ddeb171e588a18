"""Pictures with and without labels."""
