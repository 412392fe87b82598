"""Runs what the project's table of results names, and writes that table.

worlds.yaml says what is run and what is required of it, `jobs` what is left to do and how far it
is, `runner` does it. `finished` reads what came of it, `twins` compares models with chance codes
with those without, `results_report` shows it.
"""
