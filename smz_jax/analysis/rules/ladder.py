"""The ladder of a run: its own checkpoints against one another, and what each is worth in Elo."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smz_jax.acting.agent import ActFn, Agent, make_random_policy
from smz_jax.acting.evaluate import evaluate
from smz_jax.analysis.load import Functions, abstract_params, load_model, make_functions
from smz_jax.config.check import require
from smz_jax.config.seeds import LADDER_SEED
from smz_jax.envs import count_players, make_spec
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.estimate import percentile_interval, stratified_draws
from smz_jax.types import Timestep

OPENING = 2
"""Moves at the start of each game that are drawn at random where there are no dice: greedy players
would play one game over and over."""
SCALE = 400 / np.log(10)
"""Elo of a chance to win of e to 1."""
SWEEPS = 200
"""Of the fit, which is then exact to far below an Elo."""


def fit_elo(points: np.ndarray) -> np.ndarray:
    """Elo `[..., N]` of players by their points against one another, the first one's 0.

    The likeliest strengths where i beats j with chance s_i / (s_i + s_j) (Bradley and Terry 1952),
    by Hunter's iteration (2004, "MM algorithms for generalized Bradley-Terry models"). Each pair
    has a drawn game more, which keeps those finite that won all or none.

    Args:
        points: `[..., N, N]`, what i won of j: 1 a game, a half a draw.
    """
    others = 1 - np.eye(points.shape[-1])
    points = (points + 0.5) * others
    games, won = points + np.swapaxes(points, -1, -2), points.sum(axis=-1)
    strength = np.ones(won.shape)
    for _ in range(SWEEPS):
        sums = strength[..., :, None] + strength[..., None, :]
        strength = won / (games / sums).sum(axis=-1)
        strength = strength / strength[..., :1]
    return SCALE * np.log(strength)


def elo_table(scores: Sequence[Sequence[np.ndarray]]) -> dict[str, list[float]]:
    """Elo of N players with 95 % intervals, which resample the games of each pair (2,000 times).

    Args:
        scores: of each pair i < j, in the order of `itertools.combinations`, i's results
            `[2, G]`: each game from both sides, with the same dice.
    """
    count = next(n for n in itertools.count(2) if n * (n - 1) // 2 == len(scores))
    pairs = list(itertools.combinations(range(count), 2))
    won = [(np.sign(np.asarray(x)) + 1).mean(axis=0) / 2 for x in scores]  # [G], of each pair
    sizes = [len(x) for x in won]

    def elo(of_pair: Callable[[int], np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        points = np.zeros((*shape, count, count))
        for number, (i, j) in enumerate(pairs):
            share = of_pair(number)
            points[..., i, j] = 2 * sizes[number] * share
            points[..., j, i] = 2 * sizes[number] * (1 - share)
        return fit_elo(points)

    drawn = stratified_draws(sizes, seed=0)
    low, high = percentile_interval(
        elo(lambda pair: won[pair][drawn[pair]].mean(axis=1), (len(drawn[0]),))
    )
    mean = elo(lambda pair: np.asarray(won[pair].mean()), ())
    return {"elo": mean.tolist(), "elo_low": low.tolist(), "elo_high": high.tolist()}


def opened(act: ActFn, moves: int, seed: int) -> ActFn:
    """A player whose first so many moves of all lanes are drawn by the seed and the count alone."""

    def play(timestep: Timestep, count: int) -> np.ndarray:
        if count < moves:
            return make_random_policy(seed + count)(timestep, count)
        return act(timestep, count)

    return play


def play_ladder(
    folder: Path, *, games: int, seed: int | None = None, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Plays every two of a run's kept checkpoints against each other, greedily.

    Args:
        folder: of a run of a game of two players.
        games: of each pair, half of them from each side with the same dice, or the same opening.
        seed: of the games; None: one of its own.
        tell: is given a line for each pair.

    Returns:
        What ladder.json holds: `env_steps` of the checkpoints, `elo`, `elo_low`, `elo_high` with
        the first one's 0, and `matches`: `first` and `second` by their places, and what the first
        one scored, as `summarise_games`, without the single scores.

    Raises:
        ConfigError: in one line, if the run has less than two checkpoints or another game.
    """
    model = load_model(folder, "last")
    config, players = model.config, count_players(model.config.env)
    require(players == 2, "ladder", config.env.id, "a run of a game of two players")
    spec = make_spec(config.env)
    functions = make_functions(model, spec)
    store = CheckpointStore(folder)
    steps = store.steps("last")
    allowed = "of a run that kept two checkpoints (--keep_checkpoint_every_env_steps)"
    require(len(steps) >= 2, "ladder", f"{len(steps)} checkpoint", allowed)
    lanes = -(-games // 2)
    config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, num_envs=lanes))
    agents = [_agent(functions, store, step) for step in steps]
    seed = LADDER_SEED + config.seed if seed is None else seed
    opening = 0 if spec.has_dice else OPENING
    matches, scores = [], []
    for i, j in itertools.combinations(range(len(steps)), 2):
        first, second = (opened(agents[x], opening, seed) for x in (i, j))
        found = evaluate(
            first,
            config,
            seed=seed,
            num_games=games,
            reply=lambda timestep, count, _, act=second: act(timestep, count),
        )
        assert found is not None, "nothing stops it"
        scores.append(np.reshape(found.pop("scores"), (2, -1)))
        matches.append({"first": i, "second": j, **found})
        tell(f"{steps[i]:,} against {steps[j]:,} steps: mean result {found['mean']:.3f}")
    return {"env_steps": steps, **elo_table(scores), "opening": opening, "matches": matches}


def _agent(functions: Functions, store: CheckpointStore, step: int) -> Agent:
    """The greedy player of a checkpoint."""
    params, _, _ = store.restore_model("last", abstract_params(functions.networks), step=step)
    return Agent(functions.decide, params, functions.config.seed)
