"""Where macros hold: a head over embeddings."""
