"""A trained model plays as it was asked to: scores, terminal, video."""

import dataclasses
from collections.abc import Callable, Iterator

from smz_jax.acting.agent import make_agent
from smz_jax.acting.decide import make_decide
from smz_jax.acting.evaluate import game_settings
from smz_jax.analysis.load import check_actions_of, fit_params
from smz_jax.analysis.play.games import Moment, end_line, mean_line, play
from smz_jax.analysis.play.panel import Panel
from smz_jax.analysis.play.scenes import make_scene
from smz_jax.analysis.play.terminal import shown
from smz_jax.analysis.play.video import write_video
from smz_jax.analysis.requests import PlayRequest
from smz_jax.config.seeds import FINAL_SEED
from smz_jax.config.settings import Config, require
from smz_jax.envs.screens import open_game
from smz_jax.model.networks import make_networks
from smz_jax.storage.export import Exported


def requested_config(config: Config, request: PlayRequest) -> Config:
    """The run's settings with those of a request.

    Raises:
        ConfigError: if the game knows no sticky actions.
    """
    sticky, suite = request.sticky_prob, config.env.suite
    allowed = f"left out in suite {suite}: only Atari has sticky actions"
    require(sticky is None or suite == "atari", "sticky_prob", sticky, allowed)
    if request.max_steps is None:
        return config
    evaluation = dataclasses.replace(config.eval, max_steps=request.max_steps)
    return dataclasses.replace(config, eval=evaluation)


def play_model(
    model: Exported, request: PlayRequest, should_stop: Callable[[], bool] = lambda: False
) -> list[float]:
    """Plays whole games, greedily and with search; prints what is played and each score.

    Args:
        model: to play with.
        request: see there; its folder is not read.
        should_stop: asked before every action; a video then ends there.

    Returns:
        The scores of the games that ended.

    Raises:
        ConfigError: in one line, if the model does not fit the game, or the request.
        OSError: if the video cannot be written.
    """
    config = requested_config(model.config, request)
    settings = game_settings(config, request.sticky_prob)
    seed = FINAL_SEED + config.seed if request.seed is None else request.seed
    draws = request.terminal or request.out is not None
    game = open_game(settings, seed=seed, screen=draws)
    try:
        spec = game.env.spec
        check_actions_of(model, spec)
        networks = make_networks(config.network, spec)
        params = fit_params(networks, model.weights)
        decide = make_decide(networks, config, spec, policy="search")
        agent = make_agent(decide)(params, config.seed)
        checkpoint = model.about["checkpoint"]
        print(f"{config.experiment}, {checkpoint} model, {game.note}, seed {seed}", flush=True)
        moments = play(
            agent,
            game.env,
            config,
            num_games=request.games,
            library=model.macros,
            should_stop=should_stop,
        )
        scene = make_scene(settings, spec, game.screen) if draws else None
        rate = request.fps or game.steps_per_second
        if scene and request.terminal:
            moments = shown(moments, scene.text, spec.action_names, rate)
        scores: list[float] = []
        moments = _told(moments, scores)
        if scene and request.out is not None:
            panel = Panel(f"{config.experiment}: {spec.name}", spec.action_names)
            pictures = (panel.draw(x, scene.picture(x.timestep)) for x in moments)
            count = write_video(request.out, pictures, rate)
            print(f"wrote {request.out}, {count:,} pictures")
        else:
            for _ in moments:
                pass
    finally:
        game.env.close()
    if len(scores) > 1:
        print(mean_line(scores))
    return scores


def _told(moments: Iterator[Moment], scores: list[float]) -> Iterator[Moment]:
    """Hands moments on; prints each game's end and notes its score."""
    for moment in moments:
        if moment.action is None:
            scores.append(moment.score)
            print(end_line(moment), flush=True)
        yield moment
