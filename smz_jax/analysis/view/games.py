"""Games that a trained model plays for figures: what it did and thought, and its best tree."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from smz_jax.acting.evaluate import game_settings
from smz_jax.analysis.play.games import Moment, open_player, play
from smz_jax.analysis.play.scenes import make_scene
from smz_jax.analysis.requests import MacrosRequest
from smz_jax.analysis.view.chains import Chain, SmallTree, best_chain, to_host, worth
from smz_jax.config.check import require
from smz_jax.config.settings import Config
from smz_jax.envs import open_game
from smz_jax.storage.export import Exported


class Game(NamedTuple):
    """One game; n actions were played."""

    number: int  # from 1
    first: int  # steps of the environment before its first action
    actions: np.ndarray  # [n] int32
    score: np.ndarray  # [n + 1] float64, raw, before each action and at the end
    entropy: np.ndarray  # [n] float64, normalised H(sigma) of each action
    frames: np.ndarray  # [n + 1, *frame_shape] newest frame before each action and at the end
    ends: np.ndarray  # [n] bool, a life or the game ended with the action


class TreeDecision(NamedTuple):
    """A decision whose tree is worth drawing."""

    game: int
    step: int
    tree: SmallTree
    chain: Chain


class WatchedGames(NamedTuple):
    """What was watched."""

    games: list[Game]
    decided: TreeDecision | None  # None: no tree held a certain transition
    sent: np.ndarray  # [steps] int32, all actions given to the environment, ignored ones too
    seed: int
    config: Config  # that was played with


def watch(model: Exported, library: Mapping[str, Any], request: MacrosRequest) -> WatchedGames:
    """Plays games as in a run's evaluations; says so, since it may take a minute.

    Args:
        model: to play with.
        library: its macros; a tree that shows one of its sound ones is preferred.
        request: gives the number of games, their seed, and the actions after which one is cut.

    Raises:
        ConfigError: in one line, if the model does not fit the game.
    """
    number = "1 game" if request.games == 1 else f"{request.games} games"
    print(f"playing {number} of at most {request.max_steps:,} steps", flush=True)
    macros = library["macros"]
    known = {tuple(x["actions"]) for x in macros if x["status"] == "sound"}
    known = known or {tuple(x["actions"]) for x in macros}
    steps = min(request.max_steps, model.config.eval.max_steps)
    games: list[Game] = []
    sent: list[int] = []
    best, found = (-1.0,), None
    with open_player(model, seed=request.seed, max_steps=steps) as player:
        agent, settings = player.agent, player.config.macro
        threshold, so_far = settings.tree_threshold, []
        for moment in play(player, num_games=request.games):
            so_far.append(moment)
            if moment.action is None:
                games.append(_game(so_far, first=len(sent) - len(so_far) + 1))
                sent.append(0)  # ignored: with it the lane begins its next game
                so_far = []
                continue
            sent.append(moment.action)
            tree = agent.decision.search.tree if agent.decision is not None else None
            if tree is None:
                continue
            small = to_host(tree, player.game.env.spec.num_actions)
            chain = best_chain(small, threshold, settings.max_length, known)
            if chain is not None and worth(small, chain, known, threshold) > best:
                best = worth(small, chain, known, threshold)
                found = TreeDecision(moment.game, moment.step, small, chain)
    return WatchedGames(games, found, np.array(sent, np.int32), player.seed, player.config)


def _game(moments: Sequence[Moment], first: int) -> Game:
    """A game of its moments; the last one is its end."""
    played = moments[:-1]
    return Game(
        number=moments[-1].game,
        first=first,
        actions=np.array([x.action for x in played], np.int32),
        score=np.array([x.score for x in moments], np.float64),
        entropy=np.array([x.transition_entropy for x in played], np.float64),
        frames=np.stack([x.timestep.observation[0, -1] for x in moments]),
        ends=np.array([bool(x.timestep.terminated[0]) for x in moments[1:]], np.bool_),
    )


def pictures(watched: WatchedGames, wanted: set[int]) -> dict[int, Image.Image]:
    """What the games look like at some steps: they are played once more, action by action.

    Args:
        watched: what was played.
        wanted: steps of the environment since its first reset, as `Game.first` counts them.

    Returns:
        A picture of each: the game's own screen, or a drawing of what the agent sees.

    Raises:
        ConfigError: in one line, if the game does not repeat itself.
    """
    settings = game_settings(watched.config)
    game = open_game(settings, seed=watched.seed, screen=True)
    frames = {x.first + i: frame for x in watched.games for i, frame in enumerate(x.frames)}
    found: dict[int, Image.Image] = {}
    try:
        scene = make_scene(settings, game.env.spec, game.screen)
        timestep = game.env.reset()
        for step in range(max(wanted, default=-1) + 1):
            if step:
                timestep = game.env.step(watched.sent[step - 1 : step])
            if step in wanted:
                same = np.array_equal(timestep.observation[0, -1], frames[step])
                what = "other frames, played once more"
                require(same, "the game", what, "the same for the same seed and actions")
                found[step] = scene.picture(timestep).copy()
    finally:
        game.env.close()
    return found
