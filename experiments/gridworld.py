"""Stochastic MuZero on a grid world whose rules are known: `python -m experiments.gridworld`.

python -m experiments.gridworld show --env.kwargs '{"map": "corridors"}'
    the map, the best actions and values, the returns to compare scores with; with --run_dir DIR
    also drawn, as DIR/figures/grid.png
python -m experiments.gridworld report RUN_DIR
    what is random by the model of a run, against the truth: grid.json, figures/grid.png. A run does
    so by itself at its end, and logs `rules/...` at each check of its model
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smz_jax.config.check import Checked, ConfigError, require
from smz_jax.config.cli import parse, tool
from smz_jax.config.experiment import Experiment
from smz_jax.config.process import run_main
from smz_jax.config.settings import Config
from smz_jax.storage.run_dir import read_config


@dataclass(frozen=True)
class GridReportRequest(Checked):
    """Whose model is compared with the rules."""

    run_dir: Path
    """folder of a run of suite grid with a checkpoint"""


def show(argv: Sequence[str]) -> int:
    """Prints the map, its best actions and values, and the returns to compare scores with.

    Raises:
        ConfigError: in one line, if the folder for the figure holds a run, or cannot be written.
    """
    invocation = parse(argv, EXPERIMENT)
    config, run_dir = invocation.config, invocation.run_dir
    free = run_dir is None or not (run_dir / "config.yaml").exists()
    require(free, "run_dir", str(run_dir), "a folder without a run: `report` draws that one's")
    from smz_jax.analysis.rules.grid_figure import grid_figure, policy_text, values_text
    from smz_jax.envs.grid import rules as grid_rules
    from smz_jax.envs.grid.map import read_options

    rules = grid_rules.make_rules(read_options(config.env)[0])
    gamma, horizon = config.learner.gamma, config.eval.max_steps
    values, action_value = grid_rules.optimal_values(rules, gamma)
    maps = zip(rules.grid.rows, policy_text(rules, action_value).splitlines(), strict=True)
    print("\n".join(f"{row}   {best}" for row, best in maps))
    print(f"\noptimal values at gamma {gamma:g}:\n{values_text(rules, values)}\n")
    share = grid_rules.is_random(rules)[grid_rules.reachable(rules)].mean()
    print(f"{rules.num_states} states, {share:.0%} of state-action pairs are random")
    returns = grid_rules.evaluation_returns(rules, horizon, gamma)
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


def report(request: GridReportRequest) -> int:
    """Compares the last model of a run with the rules; raises ConfigError if there is none."""
    run_dir = request.run_dir
    config = replace(read_config(run_dir), devices=1, processes=1)
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
    summary = rules_at_the_end(parts, state, run_dir)["rules"]
    for name in ("roc_area", "entropy_error", "transition_entropy", "agreement", "code_perplexity"):
        print(f"{name}: {summary[name]:.4f}")
    print(f"wrote {run_dir / 'grid.json'} and {run_dir / 'figures' / 'grid.png'}")
    return 0


def _is_comparable(config: Config) -> bool:
    """Whether a run is of suite grid, with single frames that show the state."""
    return config.env.suite == "grid" and config.env.frame_stack == 1


def rules_course(parts: Any, state: Any) -> dict[str, float]:
    """The transition entropies against the rules, for the metrics: at each check of the model."""
    if not _is_comparable(parts.config):
        return {}
    from smz_jax.analysis.rules.grid_check import check_pairs

    check = check_pairs(parts.networks, parts.config, state.train.params, state.replay)
    return {f"rules/{name}": number for name, number in check.numbers.items()}


def rules_at_the_end(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """Writes grid.json and figures/grid.png of a run; its numbers, but those of each pair."""
    if not _is_comparable(parts.config):
        return {}
    from smz_jax.analysis.rules.grid_check import check_grid
    from smz_jax.analysis.rules.grid_figure import grid_figure
    from smz_jax.envs.grid.rules import evaluation_returns, optimal_values, true_entropy
    from smz_jax.report.style import save_figure
    from smz_jax.storage.files import write_json

    config, gamma = parts.config, parts.config.learner.gamma
    found = check_grid(parts.networks, config, state.train.params, state.replay)
    rules, entropy, truth = found.rules, found.entropy, true_entropy(found.rules)
    returns = evaluation_returns(rules, config.eval.max_steps, gamma)
    summary = {**found.numbers, "returns": returns}
    pairs = {
        "entropy": entropy,
        "true_entropy": truth,
        "entropy_errors": abs(entropy - truth),
        "visits": found.visits,
    }
    write_json(run_dir / "grid.json", {**summary, **pairs})
    figure = grid_figure(rules, *optimal_values(rules, gamma), entropy, found.visits)
    save_figure(figure, run_dir / "figures" / "grid.png")
    return {"rules": summary}


EXPERIMENT = Experiment(
    name="gridworld",
    family="grid",
    base={"env.suite": "grid", "env.id": "GridWorld"},
    description="Stochastic MuZero on a grid world with known rules: slippery cells, pits, coins, "
    'a goal. --env.kwargs \'{"map": "slippery"}\' picks the map: slippery, deterministic, '
    "corridors, tiny, generated, maze, or lines divided by /.",
    expects="a mean return of 0.87 (five seeds, 0.76 to 0.97; optimum 0.92, random -0.71), 4.2 "
    "minutes on one core",
    on_check=rules_course,
    on_finish=rules_at_the_end,
)


def main() -> int:
    """Shows the map, or compares a run with the rules."""
    command, *words = sys.argv[1:]
    return tool(report, GridReportRequest, __doc__)(words) if command == "report" else show(words)


if __name__ == "__main__":
    if sys.argv[1:2] in (["show"], ["report"]):
        run_main(main)
    from smz_jax.run.launch import launch

    launch(EXPERIMENT)
