"""Figures and a self-contained HTML page about one or several runs, at any time of their life."""

from smz_jax.report.build import build_report

__all__ = ["build_report"]
