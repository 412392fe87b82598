"""Speed of each part, of the search, of acting: `python -m experiments.benchmark --help`."""

import math
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from smz_jax.config.check import Between, Checked, ConfigError, require
from smz_jax.config.cli import Invocation, RunRequest, choose_preset, parse, read_request
from smz_jax.config.experiment import Experiment
from smz_jax.config.process import run_main
from smz_jax.config.sources import SETTINGS, suggest

EXPERIMENT = Experiment("benchmark", base={"env.id": "Breakout"})
COMMANDS = ("search", "rollout", "soak")
SOAK_SECONDS = 1800.0
Seconds = Annotated[float | None, Between(0, 3600, "(]", "a number above 0, at most 3600")]
"""For each part, for each search, or in all; None: as the command says."""

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


@dataclass(frozen=True)
class SearchRequest(Checked):
    """What `search` takes."""

    preset: str | None = None
    full: bool = False
    seconds: Seconds = None
    json: Path | None = None

    def __post_init__(self) -> None:
        """Checks what spans fields too; raises ConfigError in one line."""
        super().__post_init__()
        allowed = "left out with --full" if self.full else "tiny, or left out"
        fits = self.preset is None or (self.preset == "tiny" and not self.full)
        require(fits, "preset", self.preset, allowed)
        check_writable(self.json)


@dataclass(frozen=True)
class PartsRequest(RunRequest):
    """What the other commands take beside the settings of a run."""

    seconds: Seconds = None
    json: Path | None = None

    def __post_init__(self) -> None:
        """Checks what spans fields too; raises ConfigError in one line."""
        super().__post_init__()
        run_dir = None if self.run_dir is None else str(self.run_dir)
        for name, value in (("run_dir", run_dir), ("resume", self.resume)):
            require(not value, name, value, "left out: a benchmark has no run folder")
        check_writable(self.json)


def check_writable(path: Path | None) -> None:
    """Raises ConfigError if no file can be written at `path`: before minutes of measuring."""
    if path is None:
        return
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    good = not path.is_dir() and folder.is_dir() and os.access(folder, os.W_OK)
    require(good, "json", str(path), "the path of a file that can be written")


def take_command(argv: list[str]) -> str | None:
    """Takes the command, the first word, out of `argv`; None where flags come first.

    Raises:
        ConfigError: if there is no such command, or a flag does not go with it.
    """
    command = argv.pop(0) if argv and not argv[0].startswith("-") else None
    if command is not None and command not in COMMANDS:
        hint = suggest(command, COMMANDS) or "; there are " + ", ".join(COMMANDS)
        raise ConfigError(f"unknown command {command!r}{hint}")
    for typed in (token.split("=")[0] for token in argv if token.startswith("--")):
        name = typed[2:].replace("-", "_")
        if command == "search" and name in (*SETTINGS, "config", "run_dir", "resume"):
            raise ConfigError(f"{typed} does not go with search: networks and sizes are its own")
        if command != "search" and name == "full":
            raise ConfigError("--full goes with search: experiments.benchmark search --full")
    return command


def measure_settings(command: str | None, invocation: Invocation) -> tuple[dict[str, Any], list]:
    """Measures the parts of a run, acting, or a long run; gives the numbers and the tables."""
    import jax

    from experiments.benchmark import parts, rollout, soak, tables

    invocation = choose_preset(invocation, has_accelerator=jax.default_backend() != "cpu")
    preset, config = str(invocation.preset), invocation.config
    assert isinstance(invocation.request, PartsRequest)
    seconds = invocation.request.seconds
    if command == "soak":
        result = soak.measure(config, seconds or SOAK_SECONDS, preset)
        return result, [tables.soak_table(result)]
    each = seconds or (0.1 if preset == "tiny" else 3.0)
    if command == "rollout":
        result = {"preset": preset, **rollout.measure(config, each, preset)}
        return result, [tables.rollout_table(result), tables.figures_table(result)]
    result = {"preset": preset, **parts.measure(config, each)}
    return result, [tables.parts_table(result)]


def measure_search(request: SearchRequest) -> tuple[dict[str, Any], list]:
    """Measures the search; gives the numbers and the tables."""
    from experiments.benchmark import plan, search, tables

    seconds = request.seconds
    if request.preset == "tiny":
        result = search.measure(plan.TINY, seconds=seconds or 0.05, rounds=3, own_cache=False)
    else:
        is_short = not request.full and seconds is None
        result = search.measure(
            plan.FULL if request.full else plan.DEFAULT,
            seconds=seconds or search.TASK_SECONDS,
            limit=search.LIMIT_SECONDS if is_short else math.inf,
        )
    result = {"preset": request.preset, "full": request.full, **result}
    return result, [tables.search_table(result), tables.figures_table(result)]


def read_command(
    command: str | None, argv: list[str]
) -> tuple[SearchRequest | RunRequest, Invocation | None]:
    """The request, and the run whose parts are measured; raises ConfigError before JAX loads."""
    if command == "search":
        return read_request(SearchRequest, argv), None
    if command == "soak" and not any(x.split("=")[0] == "--preset" for x in argv):
        argv = [*argv, "--preset", "smoke"]
    invocation = parse(argv, EXPERIMENT, PartsRequest)
    from smz_jax.envs import check_env_id

    check_env_id(invocation.config.env)
    return invocation.request, invocation


def main() -> int:
    """Reads the command line, measures, prints and writes."""
    argv = sys.argv[1:]
    typed = shlex.join(["python", "-m", "experiments.benchmark", *argv])
    command = take_command(argv)
    if "-h" in argv or "--help" in argv:
        print(SEARCH_HELP if command == "search" else HELP, end="")
        return 0
    request, invocation = read_command(command, argv)
    assert isinstance(request, SearchRequest | PartsRequest)
    print("benchmark: starting JAX", flush=True)
    from smz_jax.run.devices import prepare_jax

    prepare_jax(fast="tiny" in (request.preset, invocation and invocation.preset))
    from rich.console import Console

    from smz_jax.storage.files import write_json

    if isinstance(request, SearchRequest):
        result, tables = measure_search(request)
    else:
        assert invocation is not None
        result, tables = measure_settings(command, invocation)
    for table in tables:
        Console(width=None if sys.stdout.isatty() else 140).print(table.to_rich())
    if request.json is not None:
        try:
            write_json(request.json, {"command": typed, **result})
        except OSError as error:
            raise ConfigError(f"json = {str(request.json)!r} cannot be written: {error}") from None
        print(f"wrote {request.json}")
    return 0


if __name__ == "__main__":
    run_main(main)
