"""Finds good settings of an experiment, and says how much better than the default they are.

`space` reads what may be tried, `study` asks Optuna what is tried next, and `trials` turns its
answers into jobs of the sweep's runner. `tune_report` and `tune_figures` show what came of it.
"""
