"""2048, MinAtar and boards through pgx."""
