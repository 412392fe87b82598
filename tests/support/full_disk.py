"""A tiny run whose disk is full for some iterations: a process of its own for `test_full_disk`.

python -m tests.support.full_disk FOLDER tmpfs|limit FIRST LAST [resume]

From iteration FIRST on the disk is full (`tmpfs`: FOLDER's file system is filled up; `limit`:
no file may grow beyond a size that the metrics keep below), before iteration LAST there is room.
`resume` says which checkpoint is whole, then makes room.
"""

import os
import resource
import sys
from pathlib import Path

from smz_jax.config.cli import parse
from smz_jax.config.experiment import Experiment
from smz_jax.config.process import run_main
from smz_jax.run import loop
from smz_jax.run.devices import prepare_jax
from smz_jax.storage.checkpoint import CheckpointStore

LIMIT = 60_000


def make_config():
    base = {"env.suite": "grid", "env.id": "GridWorld", "env.max_episode_steps": 27_000}
    argv = ["--preset", "tiny", "--total_env_steps", "320", "--checkpoint_every_env_steps", "32"]
    argv += ["--network.family", "mlp", "--network.hidden_size", "128", "--eval.no_check_model"]
    argv += ["--eval.no_baselines", "--eval.every_env_steps", "64"]
    return parse(argv, Experiment("gridworld", "grid", base)).config


def fill(folder):
    with open(folder / "balloon", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def limit(size):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def main():
    folder, how, first, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    prepare_jax(fast=True)  # programs are kept: the second process has those of the first
    iterate = loop.iterate

    def iterate_on_a_full_disk(parts, state):
        iteration = state.counters.iteration
        if first <= iteration < last and how == "tmpfs":
            fill(folder)  # again and again: a save that failed gives back what it had taken
        if iteration == first and how == "limit":
            limit(LIMIT)
        if iteration == last:
            (folder / "balloon").unlink() if how == "tmpfs" else limit(None)
        return iterate(parts, state)

    loop.iterate = iterate_on_a_full_disk
    resume = sys.argv[5:] == ["resume"]
    if resume:
        print("whole", CheckpointStore(folder).newest_good("last")[::2])
        (folder / "balloon").unlink()
    outcome = loop.train(make_config(), folder, resume=resume)
    print(f"finished {outcome.finished}, saved {outcome.saved}", flush=True)
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    run_main(main)
