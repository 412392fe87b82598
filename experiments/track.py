"""Sends runs to Weights & Biases that are over: `python -m experiments.track RUN_DIR...`.

examples:
  a run that was started without --track wandb, or whatever is missing of one:
    python -m experiments.track runs/breakout/20260131-120000-seed0
  all runs of a sweep, as a group; into a project of your own:
    WANDB_PROJECT=grids python -m experiments.track runs/sweeps/gridworld-gamma/*/seed*/
  without a network; `wandb sync` sends what that leaves:
    WANDB_MODE=offline python -m experiments.track runs/breakout/20260131-120000-seed0

Needs `pip install '.[wandb]'` and, but for offline, `wandb login`. The id at W&B is kept in the
run's folder (track.json): a second call sends only what is new. Exit code: 0; 1 if a run could not
be sent; 2 for a wrong argument.
"""  # noqa: D405

import sys
from dataclasses import dataclass
from pathlib import Path

from smz_jax.config.check import Checked, ConfigError
from smz_jax.config.cli import tool
from smz_jax.config.process import run_main
from smz_jax.storage.run_dir import read_config, run_lock


@dataclass(frozen=True)
class TrackRequest(Checked):
    """Runs that are sent."""

    run_dirs: tuple[Path, ...]
    """folders of runs: runs/<experiment>/<name>, holding metrics.jsonl"""
    again: bool = False
    """As new runs of W&B, from the first row on."""


def track(request: TrackRequest) -> int:
    """Sends each run; a fault of one holds up no other. Gives the exit code."""
    from smz_jax.storage.wandb_sink import require_wandb, send_again  # imports NumPy

    require_wandb("experiments.track")
    for run_dir in request.run_dirs:
        read_config(run_dir)
    failed = 0
    for run_dir in request.run_dirs:
        try:
            with run_lock(run_dir):
                print(send_again(run_dir.absolute(), anew=request.again), flush=True)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
        except Exception as error:  # anything of wandb's: no login, no network, no such project
            reason = " ".join(str(error).split())[:300]
            print(f"error: {run_dir}: {type(error).__name__}: {reason}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


main = tool(track, TrackRequest, __doc__)

if __name__ == "__main__":
    run_main(main)
