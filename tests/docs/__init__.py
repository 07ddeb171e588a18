"""The documentation is current, complete and runs."""
