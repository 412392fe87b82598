"""A grid world with known rules."""
