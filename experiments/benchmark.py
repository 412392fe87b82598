"""Speed of each part: `python -m experiments.benchmark [--preset laptop] [--json PATH]`."""

import difflib
import os
import sys
from pathlib import Path
from typing import Any

from smz_jax.cli import choose_preset, parse, run_main
from smz_jax.config import ConfigError, require
from smz_jax.settings import SETTINGS

OWN_FLAGS = ("json", "seconds")

HELP = """\
usage: python -m experiments.benchmark [--preset NAME] [--seconds N] [--json PATH] [settings]

Measures the environment, the search, a rollout, the training step, the macro pass, the replay and
acting with the original notebook's setting, on Breakout; prints a table.

  --preset NAME   tiny, smoke, laptop or gpu (unset: gpu with an accelerator, else laptop)
  --seconds N     time for each part, above 0 (default: 3, at tiny 0.3); compilation comes on top
  --json PATH     also write the numbers there, with hardware, versions and settings

Every setting of a run can be changed too, e.g. --search.num_simulations 8 or --config my.yaml:
python -m experiments.breakout --help explains them. Measure on an otherwise idle machine.
"""


def take_flag(argv: list[str], name: str) -> str | None:
    """Takes `--name VALUE` or `--name=VALUE` out of `argv`; the last one counts.

    Raises:
        ConfigError: if it has no value.
    """
    value = None
    while (at := next((i for i, x in enumerate(argv) if x.split("=")[0] == f"--{name}"), -1)) >= 0:
        _, equals, value = argv.pop(at).partition("=")
        if not equals:
            given = at < len(argv) and not argv[at].startswith("--")
            require(given, name, None, f"given a value: --{name} VALUE")
            value = argv.pop(at)
        require(value != "", name, value, f"given a value: --{name} VALUE")
    return value


def check_spelling(argv: list[str]) -> None:
    """Raises ConfigError for a misspelt flag of this command, which `parse` would not know of."""
    for typed in (token.split("=")[0] for token in argv if token.startswith("--")):
        near = difflib.get_close_matches(typed[2:], [*OWN_FLAGS, *SETTINGS], n=1, cutoff=0.7)
        if near and near[0] in OWN_FLAGS:
            raise ConfigError(f"unknown flag {typed}; did you mean --{near[0]}?")


def read_seconds(text: str | None, preset: str) -> float:
    """Seconds for each part; raises ConfigError unless they are a number above 0."""
    if text is None:
        return 0.3 if preset == "tiny" else 3.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    require(0 < seconds <= 3600, "seconds", text, "a number above 0, at most 3600")
    return seconds


def check_writable(path: Path) -> None:
    """Raises ConfigError if no file can be written at `path`: before minutes of measuring."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    good = not path.is_dir() and folder.is_dir() and os.access(folder, os.W_OK)
    require(good, "json", str(path), "the path of a file that can be written")


def main() -> int:
    """Reads the command line, measures, prints and writes."""
    argv = sys.argv[1:]
    if "-h" in argv or "--help" in argv:
        print(HELP, end="")
        return 0
    json_path, seconds = take_flag(argv, "json"), take_flag(argv, "seconds")
    check_spelling(argv)
    invocation = parse(argv, experiment="benchmark", base={"env.id": "Breakout"})
    read_seconds(seconds, invocation.preset or "laptop")
    run_dir = None if invocation.run_dir is None else str(invocation.run_dir)
    for name, value in (("run_dir", run_dir), ("resume", invocation.resume)):
        require(not value, name, value, "left out: a benchmark has no run folder")
    if json_path is not None:
        check_writable(Path(json_path))
    from smz_jax.envs import check_env_id

    check_env_id(invocation.config.env)
    print("benchmark: starting JAX", flush=True)
    import jax
    from rich.console import Console

    from smz_jax import benchmark
    from smz_jax.metrics import write_json

    invocation = choose_preset(invocation, has_accelerator=jax.default_backend() != "cpu")
    preset = str(invocation.preset)
    result: dict[str, Any] = {
        "preset": preset,
        "command": invocation.command,
        **benchmark.measure(invocation.config, read_seconds(seconds, preset)),
    }
    Console().print(benchmark.make_table(result))
    if json_path is not None:
        try:
            write_json(Path(json_path), result)
        except OSError as error:
            raise ConfigError(f"json = {json_path!r} cannot be written: {error}") from None
        print(f"wrote {json_path}")
    return 0


if __name__ == "__main__":
    run_main(main)
