"""Continues a run that was stopped, from its folder alone: `python -m experiments.resume DIR`.

Finds the experiment in the folder's config.yaml and calls it with `--resume --run_dir DIR`; further
flags are passed on (`--total_env_steps 500000` trains for longer). The run continues bit for bit
from its newest good checkpoint, as if it had never been stopped.
"""

import os
import re
import runpy
import sys
from pathlib import Path

from smz_jax.config.check import ConfigError, require
from smz_jax.config.process import command_names, run_main
from smz_jax.storage.run_dir import CONFIG_NAME, read_config

_COMMAND = re.compile(r"^# command: python -m experiments\.(\w+)", re.MULTILINE)


def find_experiment(run_dir: Path) -> str:
    """Name of the module below `experiments` that the run was started with.

    Raises:
        ConfigError: in one line, if the folder holds no run, or it was started by other means.
    """
    experiment = read_config(run_dir).experiment
    typed = _COMMAND.search((run_dir / CONFIG_NAME).read_text(encoding="utf-8"))
    name = typed[1] if typed else experiment
    known = command_names(Path(__file__).parent)
    require(name in known, "experiment", name, "one of experiments/: " + ", ".join(known))
    return name


def main() -> int:
    """Reads the folder and runs its experiment, which exits by itself."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: python -m experiments.resume RUN_DIR [flags]\n\n{__doc__}")
        return 0
    if words[0].startswith("-"):
        raise ConfigError(f"unexpected argument {words[0]!r}: the folder of a run comes first")
    name = find_experiment(Path(os.path.expanduser(words[0])))
    sys.argv = [f"experiments.{name}", "--resume", "--run_dir", words[0], *words[1:]]
    runpy.run_module(f"experiments.{name}", run_name="__main__")
    return 0


if __name__ == "__main__":
    run_main(main)
