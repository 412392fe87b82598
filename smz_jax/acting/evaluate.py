"""Whole games, raw scores: of the agent, of a random policy, of constant ones."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from smz_jax.acting.actor import GameScores
from smz_jax.acting.agent import ActFn, Agent, make_constant_policy, make_random_policy
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config, EnvConfig
from smz_jax.envs import (
    GameFault,
    OpponentFault,
    Turn,
    check_opponent,
    count_players,
    make_env,
    opponents_of,
)
from smz_jax.envs.protocol import first_line
from smz_jax.envs.rebuilt import MAX_RESTARTS
from smz_jax.storage.estimate import bootstrap
from smz_jax.types import EnvSpec, Timestep

Reply = Callable[[Timestep, int, np.ndarray], np.ndarray]
"""`(timestep, step count, lanes in which it moves [B] bool) -> actions [B]`; the others' mean
nothing."""


def summarise_games(
    games: list[tuple[float, int, bool]], seed: int = 0, *, copies: bool = False, seats: int = 1
) -> dict[str, Any]:
    """Statistics of finished games, with 95 % bootstrap intervals (percentile, 2,000 resamples).

    The interquartile mean is the mean of the middle half (Agarwal et al. 2021). `distinct` counts
    the games that differ in score or length.

    Args:
        games: (raw score, length in agent steps, cut off) of each.
        seed: of the bootstrap.
        copies: equal games are one that was repeated. An interval then resamples the distinct ones,
            each with all of its copies (the cluster bootstrap, Field and Welsh 2007).
        seats: sides that the same games were played from, one after the other. An interval then
            resamples the games, each with its scores from all sides: the dice are shared.
    """
    scores = np.array([game[0] for game in games], np.float64)
    distinct = Counter(game[:2] for game in games)
    values, counts = scores.reshape(seats, -1).T, np.ones(len(scores), np.int64)
    if copies:
        values, counts = np.array([score for score, _ in distinct]), np.array([*distinct.values()])

    def resampled(statistic: Callable[..., Any], drawn: np.ndarray) -> np.ndarray:
        if values.size == len(scores):
            return statistic(values[drawn].reshape(len(drawn), -1))
        return np.array([statistic(np.repeat(values[row], counts[row])) for row in drawn])

    def interval(name: str, statistic: Callable[..., Any]) -> dict[str, float]:
        low = high = value = float(statistic(scores))
        if np.any(scores != scores[0]):
            bounds = bootstrap(partial(resampled, statistic), len(values), seed=seed)
            low, high = map(float, bounds)
        return {name: value, f"{name}_low": low, f"{name}_high": high}

    return {
        "games": len(games),
        "distinct": len(distinct),
        **interval("mean", partial(np.mean, axis=-1)),
        "median": float(np.median(scores)),
        **interval("iqm", partial(stats.trim_mean, proportiontocut=0.25, axis=-1)),
        "min": float(scores.min()),
        "max": float(scores.max()),
        "length_mean": float(np.mean([game[1] for game in games])),
        "cut_share": float(np.mean([game[2] for game in games])),
        "scores": scores.tolist(),
    }


def game_settings(config: Config, sticky_prob: float | None = None) -> EnvConfig:
    """The environment's settings in evaluation, which differ from those of training.

    `sticky_prob` overrides the environment's sticky actions.
    """
    return dataclasses.replace(
        config.env,
        noop_max=config.eval.noop_max,
        max_episode_steps=config.eval.max_steps,
        sticky_prob=config.env.sticky if sticky_prob is None else sticky_prob,
    )


def repeats(settings: EnvConfig) -> bool:
    """Whether the same actions after the same no-ops give the same game again."""
    return settings.suite == "atari" and settings.sticky == 0


def evaluate(
    act: ActFn,
    config: Config,
    *,
    seed: int,
    num_games: int | None = None,
    sticky_prob: float | None = None,
    draws_actions: bool = False,
    reply: Reply | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Plays whole games and returns their statistics.

    Every lane plays the same number of games, so that short games are never preferred. A game
    ends when the emulator says so, or is cut after `config.eval.max_steps` agent steps. Of two
    players the agent is one and `eval.opponent` the other: half of the games are played from each
    side, of the same seeds (the same dice), and a score is the agent's.

    Args:
        act: the policy.
        config: of the run, which gives what is unset.
        seed: of the games (no-ops and sticky actions); differ from every training seed.
        num_games: at least so many.
        sticky_prob: overrides the environment's sticky actions.
        draws_actions: `act` draws every action: equal games are no copies, see `summarise_games`.
        reply: of two players the other one, in place of `eval.opponent`.
        should_stop: called at every step; evaluation then gives up.

    Raises:
        GameFault: in one line, if the games fail again and again, or the opponent.

    Returns:
        See `summarise_games`; of an `Agent` also `search_faults` and `search_all_invalid`, over all
        searches of this evaluation. None if it was stopped.
    """
    before = (act.faults, act.all_invalid) if isinstance(act, Agent) else (0, 0)
    num_games = config.eval.num_games if num_games is None else num_games
    settings, players = game_settings(config, sticky_prob), count_players(config.env)
    lanes = min(config.eval.num_envs, -(-num_games // players))
    count = -(-num_games // (lanes * players))
    played = None
    for attempt in range(1, MAX_RESTARTS + 2):
        try:
            with contextlib.ExitStack() as stack:
                actors = [act]
                if players > 1:
                    actors = take_seats(act, reply or make_reply(config, seed, stack), players)
                given = settings, count, lanes, seed, should_stop
                parts = [_play(x, *given, seat) for seat, x in enumerate(actors)]
            played = None if None in parts else join_seats(parts)
            break
        except OpponentFault:  # who was started anew before
            raise
        except GameFault as error:  # the same games once more
            if attempt > MAX_RESTARTS:
                what = f"the games of an evaluation failed {attempt} times"
                raise GameFault(f"{what}: {error}") from error
    if played is None:
        return None
    games = [game for games in played for game in games]
    copies = repeats(settings) and not draws_actions
    result = summarise_games(games, seed, copies=copies, seats=players)
    if isinstance(act, Agent):
        result["search_faults"] = act.faults - before[0]
        result["search_all_invalid"] = act.all_invalid - before[1]
    return result


def make_reply(config: Config, seed: int, stack: contextlib.ExitStack) -> Reply:
    """The moves of who plays against the agent: `eval.opponent`, which draws by `seed`.

    The opponent is closed with the `stack`.

    Raises:
        ConfigError: in one line, if the game has no such player.
        OpponentFault: from the reply, in one line, if a program from outside cannot play on.
    """
    name = config.eval.opponent
    if name == "random":
        act = make_random_policy(seed + 1)  # a baseline is another one than its opponent
        return lambda timestep, count, _: act(timestep, count)
    check_opponent(config.env, name)
    opponent = opponents_of(config.env)[name].make(seed)
    stack.callback(opponent.close)

    def reply(timestep: Timestep, count: int, moves: np.ndarray) -> np.ndarray:
        actions, lanes = np.zeros(len(moves), np.int32), np.flatnonzero(moves)
        if lanes.size:
            frames, invalid = timestep.observation[lanes, -1], timestep.invalid_actions[lanes]
            actions[lanes] = opponent.act(Turn(frames, invalid, lanes))
        return actions

    return reply


def take_seats(act: ActFn, reply: Reply, players: int = 2) -> list[ActFn]:
    """Who plays in games with the agent in each seat, and its opponent in all others."""

    def seated(seat: int) -> ActFn:
        def play(timestep: Timestep, count: int) -> np.ndarray:
            own = timestep.player == seat
            moves = ~own & ~timestep.game_over
            return np.where(own, act(timestep, count), reply(timestep, count, moves))

        return play

    return [seated(seat) for seat in range(players)]


def join_seats(parts: list[Any]) -> list[list[tuple[float, int, bool]]]:
    """The games of every seat, scored from the agent's side; those of one player as they are.

    Of two players a score is the first one's, of more that of the agent's seat.
    """
    first, *others = parts
    sign = -1.0 if len(parts) == 2 else 1.0
    turned = [[(0.0 + sign * score, *rest) for score, *rest in x] for part in others for x in part]
    return first + turned


def _play(
    act: ActFn,
    settings: EnvConfig,
    games_per_lane: int,
    lanes: int,
    seed: int,
    should_stop: Callable[[], bool],
    seat: int = 0,
) -> list[list[tuple[float, int, bool]]] | None:
    """Score, length and whether it was cut, of each lane's games; None if it was stopped.

    Raises:
        GameFault: in one line, for whatever the library of the games raises.
    """
    with _faults():
        env = make_env(settings, seed=seed, num_envs=lanes, training=False)
    try:
        played: list[list[tuple[float, int, bool]]] = [[] for _ in range(lanes)]
        running = GameScores(lanes, seat)
        with _faults():
            timestep = env.reset()
        count = 0
        while any(len(games) < games_per_lane for games in played):
            if should_stop():
                return None
            actions = act(timestep, count)
            with _faults():
                timestep = env.step(actions)
            count += 1
            for lane, score, length, truncated in running.add(timestep):
                if len(played[lane]) < games_per_lane:
                    # An environment's own, shorter time limit is an end like any other.
                    cut = truncated and length >= settings.max_episode_steps
                    played[lane].append((score, length, cut))
        return played
    finally:
        env.close()


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """Raises what a library of games raises as GameFault; a ConfigError as it is."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise GameFault(first_line(error)) from error


def evaluate_baselines(config: Config, spec: EnvSpec, *, seed: int, **options) -> dict[str, Any]:
    """A random policy and every constant action, measured by the same evaluator.

    A constant action in a game that repeats itself plays one game a lane.

    Returns:
        `{"random": statistics, "constant": {action name: statistics}}`; a stopped part is left out.
    """
    uniform = make_random_policy(seed, spec.action_space.sizes)
    random = evaluate(uniform, config, seed=seed, draws_actions=True, **options)
    games = config.eval.num_games
    options |= {"num_games": min(games, config.eval.num_envs) if repeats(config.env) else games}
    constant = {
        name: result
        for action, name in enumerate(spec.action_names)
        if (result := evaluate(make_constant_policy(action), config, seed=seed, **options))
    }
    return {"random": random, "constant": constant}


def baseline_row(baselines: dict[str, Any]) -> dict[str, float]:
    """The baselines as a metrics row."""
    random, bounds = baselines["random"], ("", "_low", "_high")
    row = {f"baseline/random{x}": random[f"mean{x}"] for x in bounds} if random is not None else {}
    constant = baselines["constant"].items()
    return row | {f"baseline/constant/{name}": result["mean"] for name, result in constant}


def evaluation_row(result: dict[str, Any]) -> dict[str, float]:
    """An evaluation as part of a metrics row."""
    names = (
        "mean", "mean_low", "mean_high", "iqm", "distinct", "length_mean", "cut_share",
        "search_faults", "search_all_invalid",
    )  # fmt: skip
    return {f"eval/{name}": result[name] for name in names if name in result}
