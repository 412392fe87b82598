"""Runs variants of experiments over seeds, and compares them with honest intervals.

`variants` reads what is run, `jobs` says what is left to do and how far each run is, `runner` does
it, on one of the `engines`; `slurm` hands all over instead. `aggregate` has the statistics,
`sweep_report` and `sweep_figures` show them.
`experiments.results` is one such sweep with a table of its own.
"""
