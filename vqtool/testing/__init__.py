"""The conformance kit: laws that every part must keep, for our tests and for plugins'."""
