"""Stochastic MuZero on a grid world whose rules are known: `python -m experiments.gridworld`.

python -m experiments.gridworld show --env.kwargs '{"map": "corridors"}'
    the map, the best actions and values, the returns to compare scores with; with --run_dir DIR
    also drawn, as DIR/figures/grid.png
python -m experiments.gridworld report RUN_DIR
    what the model of a run holds to be random, against the truth: grid.json, figures/grid.png.
    A run does so by itself at its end, and logs `rules/...` at each check of its model
"""

import sys
from pathlib import Path
from typing import Any

from smz_jax.config.check import ConfigError, require
from smz_jax.config.cli import parse
from smz_jax.config.experiment import Experiment
from smz_jax.config.process import run_main
from smz_jax.config.settings import Config

EXPERIMENT = Experiment(
    name="gridworld",
    family="grid",
    base={"env.suite": "grid", "env.id": "GridWorld"},
    description="Stochastic MuZero on a grid world with known rules: slippery cells, pits, coins, "
    'a goal. --env.kwargs \'{"map": "slippery"}\' picks the map: slippery, deterministic, '
    "corridors, tiny, generated, or lines divided by /.",
    expects="a mean return of 0.87 (five seeds, 0.76 to 0.97; optimum 0.92, random -0.71), 4.2 "
    "minutes on one core",
)


def show(config: Config, run_dir: Path | None) -> int:
    """Prints the map, its best actions and values, and the returns to compare scores with.

    Args:
        config: its environment, gamma and evaluation's step limit count.
        run_dir: gets figures/grid.png; None: no figure.

    Raises:
        ConfigError: in one line, if the folder holds a run, or cannot be written.
    """
    free = run_dir is None or not (run_dir / "config.yaml").exists()
    require(free, "run_dir", str(run_dir), "a folder without a run: `report` draws that one's")
    from smz_jax.analysis.rules.figure import grid_figure, policy_text, values_text
    from smz_jax.envs.grid.map import read_options
    from smz_jax.envs.grid.rules import (
        evaluation_returns,
        is_random,
        make_rules,
        optimal_values,
        reachable,
    )

    rules = make_rules(read_options(config.env)[0])
    gamma, horizon = config.learner.gamma, config.eval.max_steps
    values, action_value = optimal_values(rules, gamma)
    maps = zip(rules.grid.rows, policy_text(rules, action_value).splitlines(), strict=True)
    print("\n".join(f"{row}   {best}" for row, best in maps))
    print(f"\noptimal values at gamma {gamma:g}:\n{values_text(rules, values)}\n")
    share = is_random(rules)[reachable(rules)].mean()
    print(f"{rules.num_states} states, {share:.0%} of state-action pairs are random")
    returns = evaluation_returns(rules, horizon, gamma)
    print(
        f"mean return of {horizon} steps at most: optimum {returns['optimum']:.4f}, best at gamma "
        f"{gamma:g} {returns['discounted']:.4f}, random {returns['random']:.4f}"
    )
    if run_dir is not None:
        from smz_jax.report.style import save_figure

        path = run_dir / "figures" / "grid.png"
        try:
            save_figure(grid_figure(rules, values, action_value), path)
        except OSError as error:
            raise ConfigError(f"run_dir = {str(run_dir)!r} cannot be written: {error}") from None
        print(f"wrote {path}")
    return 0


def grid_report(run_dir: Path) -> dict[str, Any]:
    """Checks the last model of a run against the rules; writes grid.json and figures/grid.png.

    Args:
        run_dir: folder of a run of suite grid with a checkpoint.

    Raises:
        ConfigError: in one line, if the folder holds no such run.
    """
    from smz_jax.config.sources import from_dict, read_file

    settings = read_file(run_dir / "config.yaml")
    settings.pop("preset", None)
    config = from_dict(settings, str(run_dir / "config.yaml"))
    require(config.env.suite == "grid", "env.suite", config.env.suite, "grid for this report")
    stack = config.env.frame_stack
    require(stack == 1, "env.frame_stack", stack, "1 for this report")
    from smz_jax.run.parts import make_parts
    from smz_jax.run.state import restore
    from smz_jax.storage.checkpoint import CheckpointStore
    from smz_jax.storage.metrics import PhaseTimers

    parts = make_parts(config, PhaseTimers())
    try:
        state, _ = restore(parts, CheckpointStore(run_dir))
    finally:
        parts.source.close()
    return _check_and_write(parts, state, run_dir)


def _check_and_write(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """The checks of a run, its JSON and its figure; gives the numbers, those of pairs apart."""
    from smz_jax.analysis.rules.figure import grid_figure
    from smz_jax.analysis.rules.grid import check_grid
    from smz_jax.envs.grid.rules import evaluation_returns, optimal_values, true_entropy
    from smz_jax.report.style import save_figure
    from smz_jax.storage.files import write_json

    config = parts.config
    result = check_grid(parts.networks, config, state.train.params, state.replay)
    gamma = config.learner.gamma
    values, action_value = optimal_values(result.rules, gamma)
    returns = evaluation_returns(result.rules, config.eval.max_steps, gamma)
    truth = true_entropy(result.rules)
    summary = {**result.numbers, "returns": returns}
    pairs = {
        "entropy": result.entropy,
        "true_entropy": truth,
        "entropy_errors": abs(result.entropy - truth),
        "visits": result.visits,
    }
    write_json(run_dir / "grid.json", {**summary, **pairs})
    figure = grid_figure(result.rules, values, action_value, result.entropy, result.visits)
    save_figure(figure, run_dir / "figures" / "grid.png")
    return summary


def _is_checkable(config: Config) -> bool:
    """Whether a run is of suite grid, with single frames that tell the state."""
    return config.env.suite == "grid" and config.env.frame_stack == 1


def rules_course(parts: Any, state: Any) -> dict[str, float]:
    """The transition entropies against the rules, for the metrics: at each check of the model."""
    from smz_jax.analysis.rules.grid import check_pairs

    if not _is_checkable(parts.config):
        return {}
    check, _ = check_pairs(parts.networks, parts.config, state.train.params, state.replay)
    return {f"rules/{name}": number for name, number in check.numbers.items()}


def rules_at_the_end(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """What the command `report` writes, at the end of a run; its numbers for the summary."""
    if not _is_checkable(parts.config):
        return {}
    return {"rules": _check_and_write(parts, state, run_dir)}


def _report(words: list[str]) -> int:
    """The command `report RUN_DIR`."""
    require(len(words) == 1, "report", " ".join(words), "followed by the folder of a run")
    run_dir = Path(words[0])
    summary = grid_report(run_dir)
    for name in ("roc_area", "entropy_error", "transition_entropy", "agreement", "code_perplexity"):
        print(f"{name}: {summary[name]:.4f}")
    print(f"wrote {run_dir / 'grid.json'} and {run_dir / 'figures' / 'grid.png'}")
    return 0


def main() -> int:
    """Shows the map or checks a run; all else is an experiment like the others."""
    words = sys.argv[1:]
    if words[:1] == ["report"]:
        return _report(words[1:])
    invocation = parse(words[1:], EXPERIMENT)
    return show(invocation.config, invocation.run_dir)


if __name__ == "__main__":
    if sys.argv[1:2] in (["show"], ["report"]):
        run_main(main)
    from smz_jax.run.launch import launch

    launch(EXPERIMENT, on_check=rules_course, on_finish=rules_at_the_end)
