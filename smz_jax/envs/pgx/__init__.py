"""2048 and MinAtar through pgx."""
