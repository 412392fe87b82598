"""Rebuilds the report of one or several runs: `python -m experiments.report RUN_DIR...`.

examples:
  one run, also while it runs or after it was killed:
    python -m experiments.report runs/breakout/20260131-120000-seed0
  three seeds over each other, written to a folder of its own:
    python -m experiments.report runs/breakout/a runs/breakout/b runs/breakout/c --out compare

What is written: report.html (one file, opens anywhere) and figures/*.png. Runs whose settings
differ only in the seed are drawn as thin lines with their mean.
"""  # noqa: D405

from dataclasses import dataclass
from pathlib import Path

from smz_jax.config.check import Checked, ConfigError
from smz_jax.config.cli import tool
from smz_jax.config.process import run_main


@dataclass(frozen=True)
class ReportRequest(Checked):
    """Runs that are drawn together."""

    run_dirs: tuple[Path, ...]
    """folders of runs: runs/<experiment>/<name>, holding metrics.jsonl"""
    out: Path | None = None
    """folder for report.html and figures/ (default: the first run folder)"""


def report(request: ReportRequest) -> int:
    """Builds the report; raises ConfigError in one line if a folder cannot be used."""
    from smz_jax.report.build import build_report  # slow to import

    try:
        page = build_report(request.run_dirs, request.out)
    except OSError as error:
        raise ConfigError(str(error)) from None
    print(f"wrote {page} and {len(list((page.parent / 'figures').glob('*.png')))} figures")
    return 0


main = tool(report, ReportRequest, __doc__)

if __name__ == "__main__":
    run_main(main)
