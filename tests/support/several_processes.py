"""A run in several processes of this machine, compared with one; for a process of its own.

`python -m tests.support.several_processes PROCESSES FOLDER STEPS`: the grid world is trained in
one process and in several; what both saved is the same. Each then goes on as the other began.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

PLAIN = dict(os.environ)  # without the devices that `several_devices` asks for
from tests.support.several_devices import FLAGS, check_equal, difference  # noqa: E402 # isort: skip

import jax  # noqa: E402

from smz_jax.run.devices import prepare_jax  # noqa: E402
from smz_jax.run.parts import make_parts  # noqa: E402
from smz_jax.run.state import RunState, make_store, restore  # noqa: E402
from smz_jax.storage.metrics import PhaseTimers  # noqa: E402
from smz_jax.storage.run_dir import read_config  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MORE = ("--eval.no_baselines", "--eval.num_games", "2", "--eval.num_envs", "2")


def run(folder: Path, *flags: str) -> str:
    """A whole run of the grid world from its command line; what it printed."""
    words = [sys.executable, "-m", "experiments.gridworld", "--run_dir", str(folder), *flags]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=PLAIN, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout[-500:]}{done.stderr[-3000:]}"
    return done.stdout


def comparable(state: RunState) -> RunState:
    """A state without what is another one each time: seconds, and the order of games."""
    counters = state.counters
    games = sorted(counters.games)
    counters = counters._replace(seconds=None, cpu_seconds=None, games=games)
    return jax.device_get(state._replace(counters=counters))


def main(processes: str, folder: Path, steps: int) -> None:
    one, several = folder / "one", folder / "several"
    length = ("--total_env_steps", str(steps))
    printed = [
        run(place, *FLAGS, *MORE, *length, "--processes", count)
        for place, count in ((one, "1"), (several, processes))
    ]
    assert "dealt" not in "".join(printed)
    parts = make_parts(replace(read_config(one), processes=1), PhaseTimers())

    def state_of(place: Path) -> RunState:
        return comparable(restore(parts, make_store(parts.config, place))[0])

    check_equal(state_of(one), state_of(several))
    for place, count in ((one, 1), (several, int(processes))):
        store = make_store(parts.config, place)
        saved = store.newest_good("last")[1]["rows"]
        assert saved["parts"] == count and not len(saved["files"]) % count, saved
    apart = difference(*(state_of(place).train.params for place in (one, several)))
    print(f"{state_of(one).train.step} updates: parameters differ by {apart:.1e}")
    longer = ("--resume", "--total_env_steps", str(steps + 64))
    for place, begun, count in ((one, "1", processes), (several, processes, "1")):
        text = run(place, *longer, "--processes", count)
        line = f"lanes and rings of {begun} processes are dealt to {count}"
        assert line in text and f"resumed at {steps:,}" in text, text
    parts = make_parts(replace(read_config(several), processes=1), PhaseTimers())
    check_equal(state_of(one), state_of(several))
    print("the same")


if __name__ == "__main__":
    prepare_jax(fast=True)
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
