"""Whole games, one after the other, move by move."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from smz_jax.acting.actor import GameScores
from smz_jax.acting.agent import Agent
from smz_jax.acting.evaluate import game_settings
from smz_jax.analysis.load import Functions, check_layout, make_functions
from smz_jax.config.seeds import FINAL_SEED
from smz_jax.config.settings import Config
from smz_jax.envs import OpenGame, open_game
from smz_jax.storage.export import Exported
from smz_jax.types import Timestep


class MacroProgress(NamedTuple):
    """A macro whose first `done` actions are the last ones that were played."""

    actions: tuple[int, ...]
    done: int


class Moment(NamedTuple):
    """What the agent sees, and what it decides there; or the end of a game."""

    game: int  # from 1
    step: int  # actions played before in this game
    score: float  # raw rewards so far
    timestep: Timestep  # of one lane
    action: int | None  # None: the game is over; the next two are NaN then
    value: float = math.nan  # of the root of the search, in units of the rewards learned from
    transition_entropy: float = math.nan  # normalised H(sigma) of the action
    macro: MacroProgress | None = None  # followed by this action and those before
    cut: bool = False  # whether the end is that of the time limit


class MacroFollower:
    """Which macro of a library the last actions follow.

    Of the macros whose first actions are the very last ones played, at least two of them, the one
    that was followed longest; of several such, the longest macro, then the most frequent one. A
    macro never reaches from one game into the next: `played` is emptied then.
    """

    def __init__(self, library: Mapping[str, Any] | None) -> None:
        self._best: dict[tuple[int, ...], tuple[int, ...]] = {}
        macros = [(tuple(x["actions"]), x["count"]) for x in (library or {}).get("macros", ())]
        for actions, _ in sorted(macros, key=lambda macro: (-len(macro[0]), -macro[1], macro[0])):
            for done in range(2, len(actions) + 1):
                self._best.setdefault(actions[:done], actions)
        self._longest = max((len(actions) for actions in self._best.values()), default=0)
        self.played: list[int] = []

    def add(self, action: int) -> MacroProgress | None:
        """Notes an action; gives the macro that it follows."""
        self.played = [*self.played, action][-max(self._longest, 1) :]
        lengths = range(len(self.played), 1, -1)
        found = ((self._best.get(tuple(self.played[-done:])), done) for done in lengths)
        return next((MacroProgress(actions, done) for actions, done in found if actions), None)


class Player(NamedTuple):
    """A model and the game that it plays, which is open."""

    game: OpenGame  # one lane
    agent: Agent  # greedy and searched, without noise, as in a run's greedy evaluation
    config: Config
    seed: int  # of the games


@contextlib.contextmanager
def open_player(
    model: Exported,
    seed: int | None = None,
    max_steps: int | None = None,
    sticky_prob: float | None = None,
    *,
    screen: bool = False,
    functions: Functions | None = None,
) -> Iterator[Player]:
    """Opens a game for a model, and closes it at the end.

    Seed and length of the games are by default those of the run's final evaluation, sticky actions
    those of training. With `screen` the game's own picture is wanted. The model's functions are
    made where they are not given.

    Raises:
        ConfigError: in one line, if the model does not fit the game.
    """
    config = model.config
    if max_steps is not None:
        evaluation = dataclasses.replace(config.eval, max_steps=max_steps)
        config = dataclasses.replace(config, eval=evaluation)
    seed = FINAL_SEED + config.seed if seed is None else seed
    game = open_game(game_settings(config, sticky_prob), seed=seed, screen=screen)
    with contextlib.closing(game.env):
        check_layout(model, game.env.spec)  # its library may be another than that of training
        functions = functions or make_functions(model, game.env.spec)
        agent = Agent(functions.decide, functions.params, config.seed)
        yield Player(game, agent, config, seed)


def play(
    player: Player,
    num_games: int,
    library: Mapping[str, Any] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Moment]:
    """Plays as `evaluate` does on one lane: the same agent and games give the same scores.

    Each moment says which macro of the library is followed; `should_stop` is called before every
    action.

    Yields:
        A `Moment` for every action, before it is played, and one for the end of each game.
    """
    env, agent = player.game.env, player.agent
    follower, scores = MacroFollower(library), GameScores(1)
    timestep, count = env.reset(), 0
    for game in range(1, num_games + 1):
        if game > 1:
            timestep = env.step(np.zeros(1, np.int32))  # ignored: the lane begins its next game
            scores.add(timestep)
            count += 1
        follower.played = []
        ended: list[tuple[int, float, int, bool]] = []
        while not ended:
            if should_stop():
                return
            actions = agent(timestep, count)
            assert agent.decision is not None, "the agent has decided"
            value = float(agent.decision.search.value[0])
            entropy = float(agent.decision.transition_entropy[0])
            step, score = int(scores.length[0]), float(scores.score[0])
            macro = follower.add(int(actions[0]))
            yield Moment(game, step, score, timestep, int(actions[0]), value, entropy, macro)
            timestep = env.step(actions)
            count += 1
            ended = scores.add(timestep)
        _, score, length, truncated = ended[0]
        cut = truncated and length >= player.config.eval.max_steps
        yield Moment(game, length, score, timestep, None, cut=cut)
