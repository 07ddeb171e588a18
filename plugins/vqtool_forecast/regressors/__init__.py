"""Networks that turn what is known of a series and its steps ahead into numbers for each step."""
