"""Speed of each part, of the search, of acting: `python -m experiments.benchmark --help`."""

import difflib
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from smz_jax.config.cli import Invocation, choose_preset, parse, run_main
from smz_jax.config.experiment import Experiment
from smz_jax.config.settings import ConfigError, require
from smz_jax.config.sources import SETTINGS, suggest

EXPERIMENT = Experiment("benchmark", base={"env.id": "Breakout"})
OWN_FLAGS = ("json", "seconds", "full")
COMMANDS = ("search", "rollout", "soak")
SOAK_SECONDS = 1800.0

HELP = """\
usage: python -m experiments.benchmark [search | rollout | soak] [flags]

  python -m experiments.benchmark [--preset NAME] [settings]
      each part of a run: the environment, the search, a rollout, the training step, the macro
      pass, the replay, and acting with the original notebook's setting, on Breakout
  python -m experiments.benchmark search [--full]
      the search engines against stock mctx and against the networks alone: under 4 minutes
  python -m experiments.benchmark rollout [--preset NAME] [settings]
      environment alone, search alone, both in turn, both overlapped (two pools of lanes)
  python -m experiments.benchmark soak [--seconds N] [--preset NAME] [settings]
      trains on Breakout at the sizes of smoke for half an hour, or N seconds: whether memory, open
      files, compilations and speed stay as they were

Each prints tables. Flags:

  --preset NAME   tiny, smoke, laptop or gpu (unset: gpu with an accelerator, else laptop)
  --seconds N     time for each part, above 0 (default: 3, at tiny 0.1); compilation comes on top
  --json PATH     also write the numbers there, with hardware, versions and settings

Every setting of a run can be changed too, e.g. --search.num_simulations 8 or --config my.yaml:
python -m experiments.breakout --help explains them. Measure on an otherwise idle machine; see
python -m experiments.benchmark search --help for the search.
"""

SEARCH_HELP = """\
usage: python -m experiments.benchmark search [--full] [--preset tiny] [--seconds N] [--json PATH]

Times searches from ready embeddings (no representation, no environment) with random weights, 4
actions and 32 chance outcomes, every figure in turn with what it is compared to:

  stock     mctx.stochastic_muzero_policy, both functions for every row at each simulation
  batched   this project's engine, collapsing off unless it is named
  networks  the same number of decision and chance evaluations in a loop without a tree

and prints the searches per second, their ratios, the memory of a tree, the seconds to compile,
and each ratio beside the figure to reach. "Equal decision nodes" is half of the simulations,
collapsing, on a deterministic model.

  --full          all of 2 networks, batches 1, 8, 32, 128 and 25, 50, 100, 200 simulations: about
                  20 minutes on 2 cores; else the sizes that matter, under 4 minutes
  --preset tiny   only shows that every part runs, in seconds
  --seconds N     time for each number over all rounds (default 0.4, at tiny 0.05); a search that
                  takes longer runs once a round
  --json PATH     also write the numbers there, with hardware, versions and commit

Settings of a run (--env.id, --search.engine, ...) are not taken: networks and sizes are fixed.
Measure on an otherwise idle machine.
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


def take_command(argv: list[str]) -> str | None:
    """Takes the command, the first word, out of `argv`; None where flags come first.

    Raises:
        ConfigError: if there is no such command.
    """
    if not argv or argv[0].startswith("-"):
        return None
    command = argv.pop(0)
    if command not in COMMANDS:
        hint = suggest(command, COMMANDS) or "; there are " + ", ".join(COMMANDS)
        raise ConfigError(f"unknown command {command!r}{hint}")
    return command


def check_spelling(argv: list[str]) -> None:
    """Raises ConfigError for a misspelt flag of this command, which `parse` would not know of."""
    for typed in (token.split("=")[0] for token in argv if token.startswith("--")):
        near = difflib.get_close_matches(typed[2:], [*OWN_FLAGS, *SETTINGS], n=1, cutoff=0.7)
        if near and near[0] in OWN_FLAGS:
            if typed == "--full":
                raise ConfigError("--full goes with search: experiments.benchmark search --full")
            raise ConfigError(f"unknown flag {typed}; did you mean --{near[0]}?")


def check_nothing_left(argv: list[str]) -> None:
    """Raises ConfigError in one line for what `benchmark search` does not take."""
    for typed in (token.split("=")[0] for token in argv):
        if not typed.startswith("--"):
            raise ConfigError(f"unexpected argument {typed!r}: search takes only flags")
        name = typed[2:].replace("-", "_")
        if name in SETTINGS or name in ("config", "run_dir", "resume"):
            raise ConfigError(f"{typed} does not go with search: networks and sizes are its own")
        require(name != "full", name, argv[0], "given without a value: --full")
        hint = suggest(name, [*OWN_FLAGS, "preset"], prefix="--") or "; search --help lists all"
        raise ConfigError(f"unknown flag {typed}{hint}")


def read_seconds(text: str | None, default: float) -> float:
    """Seconds for each part; raises ConfigError unless they are a number above 0."""
    if text is None:
        return default
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


def read_settings(argv: list[str], seconds: str | None) -> Invocation:
    """The run whose parts are measured; raises ConfigError, before JAX is loaded, in one line."""
    check_spelling(argv)
    invocation = parse(argv, EXPERIMENT)
    read_seconds(seconds, 1.0)
    run_dir = None if invocation.run_dir is None else str(invocation.run_dir)
    for name, value in (("run_dir", run_dir), ("resume", invocation.resume)):
        require(not value, name, value, "left out: a benchmark has no run folder")
    from smz_jax.envs import check_env_id

    check_env_id(invocation.config.env)
    return invocation


def measure_settings(
    command: str | None, invocation: Invocation, seconds: str | None
) -> tuple[dict[str, Any], list[Any]]:
    """Measures the parts of a run, acting, or a long run; gives the numbers and the tables."""
    import jax

    from experiments.benchmark import parts, rollout, soak, tables

    invocation = choose_preset(invocation, has_accelerator=jax.default_backend() != "cpu")
    preset = str(invocation.preset)
    if command == "soak":
        result = soak.measure(invocation.config, read_seconds(seconds, SOAK_SECONDS), preset)
        return result, [tables.soak_table(result)]
    each = read_seconds(seconds, 0.1 if preset == "tiny" else 3.0)
    if command == "rollout":
        result = {"preset": preset, **rollout.measure(invocation.config, each, preset)}
        return result, [tables.rollout_table(result), tables.figures_table(result)]
    result = {"preset": preset, **parts.measure(invocation.config, each)}
    return result, [tables.parts_table(result)]


def measure_search(
    is_full: bool, preset: str | None, seconds: str | None
) -> tuple[dict[str, Any], list[Any]]:
    """Measures the search; gives the numbers and the tables."""
    from experiments.benchmark import plan, search, tables

    if preset == "tiny":
        each = read_seconds(seconds, 0.05)
        result = search.measure(plan.TINY, seconds=each, rounds=3, own_cache=False)
    else:
        each = read_seconds(seconds, search.TASK_SECONDS)
        is_short = not is_full and seconds is None
        result = search.measure(
            plan.FULL if is_full else plan.DEFAULT,
            seconds=each,
            limit=search.LIMIT_SECONDS if is_short else math.inf,
        )
    result = {"preset": preset, "full": is_full, **result}
    return result, [tables.search_table(result), tables.figures_table(result)]


def main() -> int:
    """Reads the command line, measures, prints and writes."""
    argv = sys.argv[1:]
    typed = shlex.join(["python", "-m", "experiments.benchmark", *argv])
    command = take_command(argv)
    if "-h" in argv or "--help" in argv:
        print(SEARCH_HELP if command == "search" else HELP, end="")
        return 0
    json_path, seconds = take_flag(argv, "json"), take_flag(argv, "seconds")
    is_full, preset, invocation = False, None, None
    if command == "search":
        preset = take_flag(argv, "preset")
        is_full = "--full" in argv
        check_nothing_left([token for token in argv if token != "--full"])
        allowed = "left out with --full" if is_full else "tiny, or left out"
        require(preset is None or (preset == "tiny" and not is_full), "preset", preset, allowed)
        read_seconds(seconds, 1.0)
    else:
        if command == "soak" and not any(x.split("=")[0] == "--preset" for x in argv):
            argv += ["--preset", "smoke"]
        invocation = read_settings(argv, seconds)
    if json_path is not None:
        check_writable(Path(json_path))
    print("benchmark: starting JAX", flush=True)
    if "tiny" in (preset, invocation and invocation.preset):
        from smz_jax.run.devices import compile_fast

        compile_fast()
    from rich.console import Console

    from smz_jax.storage.files import write_json

    if invocation is None:
        result, tables = measure_search(is_full, preset, seconds)
    else:
        result, tables = measure_settings(command, invocation, seconds)
    for table in tables:
        Console(width=None if sys.stdout.isatty() else 140).print(table.to_rich())
    if json_path is not None:
        try:
            write_json(Path(json_path), {"command": typed, **result})
        except OSError as error:
            raise ConfigError(f"json = {json_path!r} cannot be written: {error}") from None
        print(f"wrote {json_path}")
    return 0


if __name__ == "__main__":
    run_main(main)
