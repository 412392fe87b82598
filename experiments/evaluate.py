"""The score of a trained model over many games: `python -m experiments.evaluate FOLDER`.

examples:
  100 games of weights that come with the package:
    python -m experiments.evaluate cartpole
  a run's last model, greedily, under sticky actions, with every score in a file:
    python -m experiments.evaluate runs/breakout/a --checkpoint last --noise 0 --sticky_prob 0.25 \
        --json scores.json

  a run of backgammon against GNU Backgammon, and every two of its kept checkpoints:
    python -m experiments.evaluate runs/backgammon/a --opponent gnubg0 --games 1000
    python -m experiments.evaluate runs/backgammon/a --ladder --games 200
  the moves of a run of connect four in positions that are solved exactly:
    python -m experiments.evaluate runs/connect_four/a --positions

Games are whole and rewards raw; lanes play side by side, each as many games as the others, so that
short games are not preferred. Seed and noise are those of the run's final evaluation, unless they
are given: the same games again give the same score. Intervals are of 95 % (bootstrap over games;
of two players over pairs of games, from both sides with the same dice).
"""  # noqa: D405

from pathlib import Path
from typing import Any

from smz_jax.analysis.requests import EvaluateRequest, check_folder
from smz_jax.config.check import ConfigError, require
from smz_jax.config.cli import tool
from smz_jax.config.process import run_main


def evaluate(request: EvaluateRequest) -> int:
    """Plays, prints the score, and writes the numbers; raises ConfigError in one line."""
    env = check_folder(request.folder, request.checkpoint).env
    from smz_jax.envs import check_opponent, check_two_players

    if request.opponent is not None:
        check_two_players(env, "opponent", request.opponent)
        check_opponent(env, request.opponent)
    if request.ladder:
        return climb(request)
    if request.positions:
        require(env.id == "connect_four", "positions", env.id, "left out but for connect_four")
        require(env.frame_stack == 1, "env.frame_stack", env.frame_stack, "1 for --positions")
        return solve(request)
    sticky, allowed = request.sticky_prob, f"left out in suite {env.suite}: only Atari has them"
    require(sticky is None or env.suite == "atari", "sticky_prob", sticky, allowed)
    import smz_jax
    from smz_jax.storage.estimate import Estimate

    model = smz_jax.load(request.folder, request.checkpoint)
    options = {
        name: getattr(request, name) for name in ("seed", "noise", "sticky_prob", "opponent")
    }
    found = model.evaluate(request.games, **options)
    score = Estimate(*(found[f"mean{end}"] for end in ("", "_low", "_high")))
    print(
        f"{model.config.experiment}, {found['games']} games, {found['distinct']} different: mean "
        f"{score.text('{:.2f}'.format)}, median {found['median']:g}, from {found['min']:g} to "
        f"{found['max']:g}; {found['length_mean']:.0f} steps long, {found['cut_share']:.0%} cut off"
    )
    if request.json is not None:
        keep(request.json, found)
    return 0


def climb(request: EvaluateRequest) -> int:
    """Plays the ladder of a run, prints it, and writes it beside the run; as `evaluate`."""
    from smz_jax.run.devices import prepare_jax

    prepare_jax()
    from smz_jax.analysis.rules.ladder import play_ladder
    from smz_jax.report.build import build_report
    from smz_jax.report.matches import ladder_table
    from smz_jax.storage.documents.results_json import LADDER

    found = play_ladder(request.folder, games=request.games, seed=request.seed)
    print(ladder_table(found, "steps").to_text())
    keep(request.folder / LADDER.file, found)
    if request.json is not None:
        keep(request.json, found)
    print(f"report: {build_report([request.folder])}")
    return 0


def solve(request: EvaluateRequest) -> int:
    """Prints the share of a model's moves that keep the outcome in connect four; as `evaluate`."""
    import smz_jax
    from smz_jax.analysis.rules.positions import check_positions
    from smz_jax.storage.estimate import read_estimate

    model = smz_jax.load(request.folder, request.checkpoint)
    functions = model.functions
    found = check_positions(functions.networks, functions.params, model.act)
    print(f"moves that keep the outcome of best play, in {found['count']} positions:")
    for player, judged in found["moves"].items():
        share = read_estimate(judged)
        assert share is not None
        print(
            f"{player:>12}: {share.text('{:.3f}'.format)}, in won positions "
            f"{judged['wins_kept']:.3f}"
        )
    print(f"won positions with a value below 0: {found['wins_taken_for_losses']:.3f}")
    if request.json is not None:
        keep(request.json, found)
    return 0


def keep(path: Path, found: dict[str, Any]) -> None:
    """Writes the numbers; raises ConfigError in one line if they cannot be written."""
    from smz_jax.storage.files import write_json

    try:
        write_json(path, found)
    except OSError as error:
        reason = f"cannot be written: {error.strerror}"
        raise ConfigError(f"json = {str(path)!r} {reason}") from None
    print(f"wrote {path}")


main = tool(evaluate, EvaluateRequest, __doc__)

if __name__ == "__main__":
    run_main(main)
