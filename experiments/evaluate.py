"""The score of a trained model over many games: `python -m experiments.evaluate FOLDER`.

examples:
  100 games of weights that come with the package:
    python -m experiments.evaluate cartpole
  a run's last model, greedily, under sticky actions, with every score in a file:
    python -m experiments.evaluate runs/breakout/a --checkpoint last --noise 0 --sticky_prob 0.25 \
        --json scores.json

Games are whole and rewards raw; lanes play side by side, each as many games as the others, so that
short games are not preferred. Seed and noise are those of the run's final evaluation, unless they
are given: the same games again give the same score. Intervals are of 95 % (bootstrap over games).
"""  # noqa: D405

from smz_jax.analysis.requests import EvaluateRequest, check_folder
from smz_jax.config.check import ConfigError, require
from smz_jax.config.cli import tool
from smz_jax.config.process import run_main


def evaluate(request: EvaluateRequest) -> int:
    """Plays, prints the score, and writes the numbers; raises ConfigError in one line."""
    suite = check_folder(request.folder, request.checkpoint).env.suite
    sticky, allowed = request.sticky_prob, f"left out in suite {suite}: only Atari has them"
    require(sticky is None or suite == "atari", "sticky_prob", sticky, allowed)
    import smz_jax
    from smz_jax.storage.estimate import Estimate
    from smz_jax.storage.files import write_json

    model = smz_jax.load(request.folder, request.checkpoint)
    options = {name: getattr(request, name) for name in ("seed", "noise", "sticky_prob")}
    found = model.evaluate(request.games, **options)
    score = Estimate(*(found[f"mean{end}"] for end in ("", "_low", "_high")))
    print(
        f"{model.config.experiment}, {found['games']} games, {found['distinct']} different: mean "
        f"{score.text('{:.2f}'.format)}, median {found['median']:g}, from {found['min']:g} to "
        f"{found['max']:g}; {found['length_mean']:.0f} steps long, {found['cut_share']:.0%} cut off"
    )
    if request.json is not None:
        try:
            write_json(request.json, found)
        except OSError as error:
            reason = f"cannot be written: {error.strerror}"
            raise ConfigError(f"json = {str(request.json)!r} {reason}") from None
        print(f"wrote {request.json}")
    return 0


main = tool(evaluate, EvaluateRequest, __doc__)

if __name__ == "__main__":
    run_main(main)
