"""usage: python -m experiments.benchmark [search | rollout | torsos | drawn | turns | soak] [flags]

  python -m experiments.benchmark [--preset NAME] [settings]
      each part of a run: the environment, the search, a rollout, the training step, the macro
      pass, the replay, and acting with the original notebook's setting, on Breakout
  python -m experiments.benchmark search [--full]
      the search engines against stock mctx and against the networks alone: under 4 minutes
  python -m experiments.benchmark rollout [--preset NAME] [settings]
      environment alone, search alone, both in turn, both overlapped (two pools of lanes)
  python -m experiments.benchmark torsos [--preset NAME] [settings]
      the training step of an LSTM over 8 frames and a transformer over 16, beside an MLP of one, on
      CartPole
  python -m experiments.benchmark drawn [--preset NAME] [settings]
      a search over 20 drawn actions of six numbers, beside one over 20 plain actions
  python -m experiments.benchmark turns [--preset NAME] [settings]
      boards of two players: a search beside one of the same sizes for one player; random games
      stepped from the host, and under one scan on the device
  python -m experiments.benchmark soak [--seconds N] [--preset NAME] [settings]
      trains on Breakout at the sizes of smoke for half an hour, or N seconds: whether memory, open
      files, compilations and speed stay as they were

Each prints tables. Flags:

  --preset NAME   tiny, smoke, laptop or gpu (unset: gpu with an accelerator, else laptop); search:
                  tiny alone, which only shows that every part runs, in seconds
  --seconds N     time for each part, above 0 (default: 3, at tiny 0.1); compilation comes on top.
                  search: for each number over all rounds (default 0.4, at tiny 0.05); a search that
                  takes longer runs once a round
  --full          search: all of 2 networks, batches 1, 8, 32, 128 and 25, 50, 100, 200 simulations:
                  about 20 minutes on 2 cores; else the sizes that matter, under 4 minutes
  --json PATH     also write the numbers there, with hardware, versions, commit and settings

Every setting of a run can be changed too, e.g. --search.num_simulations 8 or --config my.yaml:
python -m experiments.breakout --help explains them. Not those of search, whose networks and sizes
are fixed. Measure on an otherwise idle machine.

search times searches from ready embeddings (no representation, no environment) with random weights,
4 actions and 32 chance outcomes, every figure in turn with what it is compared to:

  stock     mctx.stochastic_muzero_policy, both functions for every row at each simulation
  batched   this project's engine, collapsing off unless it is named
  networks  the same number of decision and chance evaluations in a loop without a tree

and prints the searches per second, their ratios, the memory of a tree, the seconds to compile,
and each ratio beside the figure to reach. "Equal decision nodes" is half of the simulations,
collapsing, on a deterministic model.
"""  # noqa: D415

if not __package__:
    raise SystemExit(
        "error: type `python -m experiments.benchmark` in the folder above experiments"
    )

import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from smz_jax.config.check import Between, ConfigError, require
from smz_jax.config.cli import Invocation, RunRequest, choose_preset, parse
from smz_jax.config.experiment import Experiment
from smz_jax.config.process import run_main
from smz_jax.config.sources import require_known
from smz_jax.storage.files import write_json
from smz_jax.storage.run_dir import can_write

EXPERIMENT = Experiment("benchmark", base={"env.id": "Breakout"})
VECTORS = Experiment("benchmark", "vector", {"env.suite": "gym", "env.id": "CartPole-v1"})
"""Of torsos and drawn."""
BOARDS = Experiment("benchmark", "backgammon", {"env.suite": "pgx", "env.id": "backgammon"})
"""Of turns."""
COMMANDS = ("search", "rollout", "torsos", "drawn", "turns", "soak")
SECONDS = {
    **dict.fromkeys(("", "rollout", "torsos", "drawn", "turns"), (3.0, 0.1)),
    "search": (0.4, 0.05),
    "soak": (1800.0, 1800.0),
}
"""For each part, each search, or in all; and the same at tiny."""
Seconds = Annotated[float | None, Between(0, 3600, "(]", "a number above 0, at most 3600")]


@dataclass(frozen=True)
class BenchmarkRequest(RunRequest):
    """What a benchmark takes beside the settings of a run."""

    seconds: Seconds = None
    full: bool = False
    json: Path | None = None


def read_command(argv: list[str]) -> tuple[str, BenchmarkRequest, Invocation]:
    """The command, the first word (empty: the parts of a run), and the flags that go with it.

    Raises:
        ConfigError: in one line, before JAX loads and before minutes of measuring.
    """
    command = argv[0] if argv and not argv[0].startswith("-") else ""
    if command:
        require_known("command", command, COMMANDS)
        argv = argv[1:]
    if command == "soak" and not any(x.split("=")[0] == "--preset" for x in argv):
        argv = [*argv, "--preset", "smoke"]
    own = {"torsos": VECTORS, "drawn": VECTORS, "turns": BOARDS}
    experiment = own.get(command, EXPERIMENT)
    invocation = parse(argv, experiment, BenchmarkRequest)
    request = invocation.request
    assert isinstance(request, BenchmarkRequest)
    if command == "search":
        run_flags = (name for name in ("config", "run_dir", "resume") if getattr(request, name))
        for name in (*invocation.explicit, *run_flags):
            raise ConfigError(f"--{name} does not go with search: networks and sizes are its own")
        allowed = "left out with --full" if request.full else "tiny, or left out"
        fits = request.preset is None or (request.preset == "tiny" and not request.full)
        require(fits, "preset", request.preset, allowed)
    else:
        if request.full:
            raise ConfigError("--full goes with search: experiments.benchmark search --full")
        for name, value in (("run_dir", str(request.run_dir or "")), ("resume", request.resume)):
            require(not value, name, value, "left out: a benchmark has no run folder")
        from smz_jax.envs import check_env_id

        check_env_id(invocation.config.env)
    if (path := request.json) is not None:
        good = not path.is_dir() and can_write(path.parent)
        require(good, "json", str(path), "the path of a file that can be written")
    return command, request, invocation


def measure(command: str, request: BenchmarkRequest, invocation: Invocation) -> dict[str, Any]:
    """Measures, prints the tables and gives the document."""
    import jax
    from rich.console import Console

    from experiments.benchmark import drawn, parts, search, soak, tables, timing, torsos, turns

    if command != "search":
        invocation = choose_preset(invocation, has_accelerator=jax.default_backend() != "cpu")
    config, preset = invocation.config, invocation.preset
    is_tiny = preset == "tiny"
    each = request.seconds or SECONDS[command][is_tiny]
    result: dict[str, Any] = {"preset": preset, **timing.surroundings()}
    is_quick = is_tiny if command == "search" else each < timing.QUICK_SECONDS
    with timing.own_compile_cache(command != "soak" and not is_quick):
        if command == "search":
            plan = search.TINY if is_tiny else search.FULL if request.full else search.DEFAULT
            is_free = is_tiny or request.full or request.seconds is not None
            limit = math.inf if is_free else search.LIMIT_SECONDS
            result |= search.measure(plan, each, 3 if is_tiny else timing.ROUNDS, limit)
            result["full"] = request.full
            shown = [tables.search_table, tables.figures_table]
        elif command == "rollout":
            result |= parts.measure_acting(config, each, str(preset))
            shown = [tables.acting_table, tables.figures_table]
        elif command == "torsos":
            result |= torsos.measure(config, each)
            shown = [tables.torsos_table]
        elif command == "drawn":
            result |= drawn.measure(config, each)
            shown = [tables.drawn_table, tables.figures_table]
        elif command == "turns":
            result |= turns.measure(config, each)
            shown = [tables.turns_table]
        elif command == "soak":
            result |= soak.measure(config, each)
            shown = [tables.soak_table]
        else:
            result |= parts.measure(config, each)
            shown = [tables.parts_table]
    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in shown:
        console.print(table(result).to_rich())
    return result


def main() -> int:
    """Reads the command line, measures, prints and writes."""
    argv = sys.argv[1:]
    if "-h" in argv or "--help" in argv:
        print(__doc__, end="")
        return 0
    command, request, invocation = read_command(argv)
    print("benchmark: starting JAX", flush=True)
    from smz_jax.run.devices import prepare_jax

    prepare_jax(fast=invocation.preset == "tiny")
    result = measure(command, request, invocation)
    if (path := request.json) is not None:
        typed = shlex.join(["python", "-m", "experiments.benchmark", *argv])
        try:
            write_json(path, {"command": typed, **result})
        except OSError as error:
            raise ConfigError(f"json = {str(path)!r} cannot be written: {error}") from None
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    run_main(main)
