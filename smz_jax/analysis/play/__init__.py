"""Trained models at play: their games, and pictures of them in the terminal, as gif and as mp4."""
