"""Figures and a self-contained HTML page about one or several runs, at any time of their life."""
