"""Runs what the project's table of results names, and writes that table.

`worlds` says what is run, `plan` what is left to do, `runner` does it and `watch` tells of it;
`results` and `criteria` read what came of it, `twins` sets models with chance codes beside those
without, `table` and `figure` show it. The first two import nothing heavy.
"""
