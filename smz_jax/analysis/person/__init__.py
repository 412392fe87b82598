"""Games that a person plays, in a window or in the terminal, as rows for a dataset."""
