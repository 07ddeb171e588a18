"""How healthy codebooks are: measures, findings, and the reports that show them."""
