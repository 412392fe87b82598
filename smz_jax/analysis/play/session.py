"""A trained model plays as a request says: scores, terminal, video."""

from collections.abc import Callable, Iterator

from smz_jax.analysis.play.games import Moment, end_line, mean_line, open_player, play
from smz_jax.analysis.play.panel import Panel
from smz_jax.analysis.play.scenes import make_scene
from smz_jax.analysis.play.terminal import shown
from smz_jax.analysis.play.video import write_video
from smz_jax.analysis.requests import PlayRequest
from smz_jax.config.check import require
from smz_jax.storage.export import Exported


def play_model(
    model: Exported, request: PlayRequest, should_stop: Callable[[], bool] = lambda: False
) -> list[float]:
    """Plays whole games, greedily and with search; prints what is played and each score.

    Args:
        model: to play with.
        request: see there; its folder is not read.
        should_stop: called before every action; a video then ends there.

    Returns:
        The scores of the games that ended.

    Raises:
        ConfigError: in one line, if the model does not fit the game, or the request.
        OSError: if the video cannot be written.
    """
    sticky, suite = request.sticky_prob, model.config.env.suite
    allowed = f"left out in suite {suite}: only Atari has sticky actions"
    require(sticky is None or suite == "atari", "sticky_prob", sticky, allowed)
    draws = request.terminal or request.out is not None
    sizes = {"seed": request.seed, "max_steps": request.max_steps, "sticky_prob": sticky}
    scores: list[float] = []
    with open_player(model, **sizes, screen=draws) as player:
        game, spec, name = player.game, player.game.env.spec, player.config.experiment
        about = f"{model.about['checkpoint']} model, {game.note}, seed {player.seed}"
        print(f"{name}, {about}", flush=True)
        moments = play(
            player, num_games=request.games, library=model.macros, should_stop=should_stop
        )
        scene = make_scene(player.settings, spec, game.screen) if draws else None
        rate = request.fps or game.steps_per_second
        if scene and request.terminal:
            moments = shown(moments, scene.text, spec.action_names, rate)
        moments = _with_ends(moments, scores)
        if scene and request.out is not None:
            panel = Panel(f"{name}: {spec.name}", spec.action_names)
            pictures = (panel.draw(x, scene.picture(x.timestep)) for x in moments)
            count = write_video(request.out, pictures, rate)
            print(f"wrote {request.out}, {count:,} pictures")
        else:
            for _ in moments:
                pass
    if len(scores) > 1:
        print(mean_line(scores))
    return scores


def _with_ends(moments: Iterator[Moment], scores: list[float]) -> Iterator[Moment]:
    """Hands moments on; prints each game's end and notes its score."""
    for moment in moments:
        if moment.action is None:
            scores.append(moment.score)
            print(end_line(moment), flush=True)
        yield moment
