"""Runs what the project's table of results names, and writes that table.

worlds.yaml says what is run and what is required of it, `plan` what is left to do, `runner` does it
and `advance` says how far it is; `finished` and `criteria` read what came of it, `twins` compares
models with chance codes with those without, `table` and `figure` show it. `worlds` and `plan`
import nothing heavy.
"""
