"""The model against known rules."""
