"""Games that a trained model plays to be looked at: what it did and thought, and its best tree."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from smz_jax.acting.agent import make_agent
from smz_jax.acting.decide import make_decide
from smz_jax.acting.evaluate import game_settings
from smz_jax.analysis.load import check_actions_of, fit_params
from smz_jax.analysis.play.games import play
from smz_jax.analysis.play.scenes import make_scene
from smz_jax.analysis.view.chains import Chain, SmallTree, best_chain, to_host, worth
from smz_jax.config.seeds import FINAL_SEED
from smz_jax.config.settings import Config, require
from smz_jax.envs.screens import open_game
from smz_jax.model.networks import make_networks
from smz_jax.storage.export import Exported
from smz_jax.types import Timestep


class Game(NamedTuple):
    """One game; n actions were played."""

    number: int  # from 1
    first: int  # steps of the environment before its first action
    actions: np.ndarray  # [n] int32
    score: np.ndarray  # [n + 1] float64, raw, before each action and at the end
    value: np.ndarray  # [n] float64, searched
    entropy: np.ndarray  # [n] float64, normalised H(sigma) of each action
    frames: np.ndarray  # [n + 1, *frame_shape] newest frame before each action and at the end
    ends: np.ndarray  # [n] bool, a life or the game ended with the action


class Decided(NamedTuple):
    """A decision whose tree is worth drawing."""

    game: int
    step: int
    tree: SmallTree
    chain: Chain


class Watched(NamedTuple):
    """What was watched."""

    games: list[Game]
    decided: Decided | None  # None: no tree held a certain transition
    sent: np.ndarray  # [steps] int32, all actions given to the environment, ignored ones too
    seed: int
    config: Config  # that was played with


def wanted_config(config: Config, max_steps: int) -> Config:
    """The run's settings with games cut after `max_steps`, if they would be longer."""
    steps = min(max_steps, config.eval.max_steps)
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, max_steps=steps))


def watch(
    model: Exported,
    library: Mapping[str, Any],
    *,
    games: int,
    max_steps: int,
    seed: int | None = None,
) -> Watched:
    """Plays greedily, searched and without noise, as in the evaluations of a run.

    Args:
        model: to play with.
        library: its macros; a tree that shows one of its sound ones is preferred.
        games: to play.
        max_steps: actions after which a game is cut.
        seed: of the games; None: that of the run's final evaluation.

    Raises:
        ConfigError: in one line, if the model does not fit the game.
    """
    config = wanted_config(model.config, max_steps)
    seed = FINAL_SEED + config.seed if seed is None else seed
    macros = library["macros"]
    known = {tuple(x["actions"]) for x in macros if x["status"] == "sound"}
    known = known or {tuple(x["actions"]) for x in macros}
    game = open_game(game_settings(config), seed=seed, screen=False)
    try:
        spec = game.env.spec
        check_actions_of(model, spec)
        networks = make_networks(config.network, spec)
        decide = make_decide(networks, config, spec, policy="search")
        agent = make_agent(decide)(fit_params(networks, model.weights), config.seed)
        notes = _Notes()
        best, found = (-1.0,), None
        for moment in play(agent, game.env, config, num_games=games):
            notes.add(moment)
            tree = agent.decision.search.tree if agent.decision is not None else None
            if moment.action is None or tree is None:
                continue
            small = to_host(tree, spec.num_actions)
            settings = config.macro
            threshold = settings.tree_threshold
            chain = best_chain(small, threshold, settings.max_length, known)
            if chain is not None and worth(small, chain, known, threshold) > best:
                best = worth(small, chain, known, threshold)
                found = Decided(moment.game, moment.step, small, chain)
    finally:
        game.env.close()
    return Watched(notes.games, found, np.array(notes.sent, np.int32), seed, config)


class _Notes:
    """Collects moments into games."""

    def __init__(self) -> None:
        self.games: list[Game] = []
        self.sent: list[int] = []
        self._moments: list[Any] = []

    def add(self, moment: Any) -> None:
        """Notes a moment; the one of a game's end closes the game."""
        self._moments.append(moment)
        if moment.action is not None:
            self.sent.append(moment.action)
            return
        played, all_ = self._moments[:-1], self._moments
        self.games.append(
            Game(
                number=moment.game,
                first=len(self.sent) - len(played),
                actions=np.array([x.action for x in played], np.int32),
                score=np.array([x.score for x in all_], np.float64),
                value=np.array([x.value for x in played], np.float64),
                entropy=np.array([x.transition_entropy for x in played], np.float64),
                frames=np.stack([x.timestep.observation[0, -1] for x in all_]),
                ends=np.array([bool(x.timestep.terminated[0]) for x in all_[1:]], np.bool_),
            )
        )
        self.sent.append(0)  # ignored: with it the lane begins its next game
        self._moments = []


def pieces(games: list[Game]) -> list[np.ndarray]:
    """The actions of games as uninterrupted pieces, which no lost life lies within."""
    return [
        piece
        for game in games
        for piece in np.split(game.actions, np.flatnonzero(game.ends) + 1)
        if len(piece)
    ]


def pictures(model: Exported, watched: Watched, wanted: set[int]) -> dict[int, Image.Image]:
    """What the games look like at some steps: they are played once more, action by action.

    Args:
        model: that played.
        watched: what it played.
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
        for step, timestep in _again(game.env, watched.sent, max(wanted, default=-1)):
            if step in wanted:
                same = np.array_equal(timestep.observation[0, -1], frames[step])
                what = "other frames, played once more" if not same else "the same frames"
                require(same, "the game", what, "the same for the same seed and actions")
                found[step] = scene.picture(timestep).copy()
    finally:
        game.env.close()
    return found


def _again(env: Any, sent: np.ndarray, last: int) -> Iterator[tuple[int, Timestep]]:
    """Steps 0..last of an environment that is given the same actions once more."""
    timestep = env.reset()
    yield 0, timestep
    for step in range(1, last + 1):
        timestep = env.step(sent[step - 1 : step])
        yield step, timestep
