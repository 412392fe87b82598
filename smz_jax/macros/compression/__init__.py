"""The library of the fewest bits."""
