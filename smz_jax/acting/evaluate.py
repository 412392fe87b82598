"""Whole games, raw scores: the agent greedy and without noise, random and constant policies."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from smz_jax.acting.actor import GameScores
from smz_jax.acting.agent import ActFn, Agent, make_constant_policy, make_random_policy
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config, EnvConfig
from smz_jax.envs import GameFault, make_env
from smz_jax.envs.protocol import first_line
from smz_jax.envs.rebuilt import MAX_RESTARTS
from smz_jax.storage.estimate import Estimate, bootstrap
from smz_jax.types import EnvSpec


def summarise_games(games: list[tuple[float, int, bool]], seed: int = 0) -> dict[str, Any]:
    """Statistics of finished games, with 95 % bootstrap intervals (percentile, 2,000 resamples).

    The interquartile mean is the mean of the middle half (Agarwal et al. 2021). `distinct` counts
    the games that differ in score or length: where a game without chance repeats itself, the
    intervals are those of copies.

    Args:
        games: (raw score, length in agent steps, cut off) of each.
        seed: of the bootstrap.
    """
    scores = np.array([game[0] for game in games], np.float64)
    mean = _estimate(partial(np.mean, axis=-1), scores, seed)
    iqm = _estimate(partial(stats.trim_mean, proportiontocut=0.25, axis=-1), scores, seed)
    return {
        "games": len(games),
        "distinct": len({game[:2] for game in games}),
        "mean": mean.mean,
        "mean_low": mean.low,
        "mean_high": mean.high,
        "median": float(np.median(scores)),
        "iqm": iqm.mean,
        "iqm_low": iqm.low,
        "iqm_high": iqm.high,
        "min": float(scores.min()),
        "max": float(scores.max()),
        "length_mean": float(np.mean([game[1] for game in games])),
        "cut_share": float(np.mean([game[2] for game in games])),
        "scores": scores.tolist(),
    }


def _estimate(
    statistic: Callable[[np.ndarray], np.ndarray], scores: np.ndarray, seed: int
) -> Estimate:
    """A statistic of the last axis, with its bootstrap interval over games."""
    value = float(statistic(scores))
    if np.all(scores == scores[0]):
        return Estimate(value, value, value, len(scores))
    low, high = bootstrap(lambda drawn: statistic(scores[drawn]), len(scores), seed=seed)
    return Estimate(value, float(low), float(high), len(scores))


def game_settings(config: Config, sticky_prob: float | None = None) -> EnvConfig:
    """The environment's settings in evaluation, which differ from those of training.

    Args:
        config: the run's settings.
        sticky_prob: overrides the environment's sticky actions.
    """
    return dataclasses.replace(
        config.env,
        noop_max=config.eval.noop_max,
        max_episode_steps=config.eval.max_steps,
        sticky_prob=config.env.sticky if sticky_prob is None else sticky_prob,
    )


def evaluate(
    act: ActFn,
    config: Config,
    *,
    seed: int,
    num_games: int | None = None,
    sticky_prob: float | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Plays whole games and returns their statistics.

    Every lane plays the same number of games, so that short games are never preferred. A game
    ends when the emulator says so, or is cut after `config.eval.max_steps` agent steps.

    Args:
        act: the policy.
        config: the run's settings.
        seed: of the games (no-ops and sticky actions); differ from every training seed.
        num_games: at least so many; unset: `config.eval.num_games`.
        sticky_prob: overrides the environment's sticky actions.
        should_stop: asked at every step; evaluation then gives up.

    Raises:
        GameFault: in one line, if the games fail again and again.

    Returns:
        See `summarise_games`; of an `Agent` also `search_faults` and `search_all_invalid`, over all
        searches of this evaluation. None if it was stopped.
    """
    agent = act if isinstance(act, Agent) else None
    before = (agent.faults, agent.all_invalid) if agent else (0, 0)
    num_games = config.eval.num_games if num_games is None else num_games
    lanes = min(config.eval.num_envs, num_games)
    games_per_lane = math.ceil(num_games / lanes)
    settings = game_settings(config, sticky_prob)
    played = None
    for attempt in range(1, MAX_RESTARTS + 2):
        try:
            played = _play(act, settings, games_per_lane, lanes, seed, should_stop)
            break
        except GameFault as error:  # the same games once more
            if attempt > MAX_RESTARTS:
                what = f"the games of an evaluation failed {attempt} times"
                raise GameFault(f"{what}: {error}") from error
    if played is None:
        return None
    result = summarise_games([game for games in played for game in games], seed=seed)
    if agent:
        result["search_faults"] = agent.faults - before[0]
        result["search_all_invalid"] = agent.all_invalid - before[1]
    return result


def _play(
    act: ActFn,
    settings: EnvConfig,
    games_per_lane: int,
    lanes: int,
    seed: int,
    should_stop: Callable[[], bool],
) -> list[list[tuple[float, int, bool]]] | None:
    """Score, length and whether it was cut, of each lane's games; None if it was stopped.

    Raises:
        GameFault: in one line, for whatever the library of the games raises.
    """
    with _faults():
        env = make_env(settings, seed=seed, num_envs=lanes, training=False)
    try:
        played: list[list[tuple[float, int, bool]]] = [[] for _ in range(lanes)]
        running = GameScores(lanes)
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

    Returns:
        `{"random": statistics, "constant": {action name: statistics}}`; a stopped part is left out.
    """
    random = evaluate(make_random_policy(seed), config, seed=seed, **options)
    constant = {
        name: evaluate(make_constant_policy(action), config, seed=seed, **options)
        for action, name in enumerate(spec.action_names)
    }
    return {
        "random": random,
        "constant": {name: result for name, result in constant.items() if result is not None},
    }


def baseline_row(baselines: dict[str, Any]) -> dict[str, float]:
    """The baselines as a metrics row."""
    row = {}
    if baselines["random"] is not None:
        for ours, theirs in (("", "mean"), ("_low", "mean_low"), ("_high", "mean_high")):
            row[f"baseline/random{ours}"] = baselines["random"][theirs]
    for name, result in baselines["constant"].items():
        row[f"baseline/constant/{name}"] = result["mean"]
    return row


def evaluation_row(result: dict[str, Any]) -> dict[str, float]:
    """An evaluation as part of a metrics row."""
    names = (
        "mean", "mean_low", "mean_high", "iqm", "length_mean", "cut_share", "search_faults",
        "search_all_invalid",
    )  # fmt: skip
    return {f"eval/{name}": result[name] for name in names if name in result}
