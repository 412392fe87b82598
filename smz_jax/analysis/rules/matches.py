"""How a trained model does against players that were not trained: matches, and every line."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from smz_jax.acting.evaluate import evaluate
from smz_jax.config.check import ConfigError
from smz_jax.config.seeds import FINAL_SEED
from smz_jax.envs import check_opponent, opponents_of
from smz_jax.envs.pgx.board_players import FULL, has_line
from smz_jax.learning.learner import acting_params

RESULTS = {1: "won", 0: "drawn", -1: "lost"}
Choose = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`(frames [N, *frame_shape], invalid actions [N, A]) -> actions [N]` of the greedy agent."""


def matches_at_the_end(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """Plays the other opponents of the game, as `eval.opponent` is played by the run itself.

    Args:
        parts: `Parts` of the run.
        state: its `RunState`.
        run_dir: nothing is written there.

    Who is slow is left out, and who cannot play, in a line.

    Returns:
        `{"matches": {opponent: statistics}}`: the mean result of `eval.num_games` games, half of
        them from each side, with its interval, and how many were won, drawn and lost.
    """
    del run_dir
    config, found = parts.config, {}
    params = acting_params(state.train, config)
    others = opponents_of(config.env)
    for name in ("random", *others):
        if name == config.eval.opponent or (name in others and others[name].is_slow):
            continue
        settings = replace(config, eval=replace(config.eval, opponent=name))
        agent = parts.agent(params, config.seed)
        try:
            check_opponent(config.env, name)
            result = evaluate(agent, settings, seed=FINAL_SEED + config.seed)
        except ConfigError as error:  # the run is whole without it
            print(f"no matches against {name}: {error}", flush=True)
            continue
        assert result is not None
        counts = Counter(RESULTS[int(np.sign(score))] for score in result["scores"])
        kept = ("games", "distinct", "mean", "mean_low", "mean_high", "length_mean", "cut_share")
        found[name] = {key: result[key] for key in kept} | {x: counts[x] for x in RESULTS.values()}
    return {"matches": found}


def make_choose(parts: Any, state: Any) -> Choose:
    """The greedy agent's choices, searched in batches as large as those of its evaluations."""
    config = parts.config
    size = min(config.eval.num_envs, -(-config.eval.num_games // parts.spec.players))
    params, key = acting_params(state.train, config), jax.random.key(config.seed)
    greedy = (np.float32(0.0),) * 3  # no temperature, no epsilon, no noise

    def choose(frames: np.ndarray, invalid: np.ndarray) -> np.ndarray:
        actions = []
        for start in range(0, len(frames), size):
            rows = np.minimum(np.arange(start, start + size), len(frames) - 1)
            seen = frames[rows][:, None], invalid[rows].astype(np.float32)
            decision = parts.decide(params, key, np.int32(0), *seen, *greedy)
            actions.append(np.asarray(decision.search.action))
        return np.concatenate(actions)[: len(frames)]

    return choose


def every_line(choose: Choose) -> dict[str, int]:
    """Plays tic-tac-toe from both sides against every reply, to the end of every line.

    Returns:
        `positions`, those in which the agent moved; and how many ends were `won`, `drawn`, `lost`
        by it, each position once.
    """
    counts = Counter({"positions": 0, "won": 0, "drawn": 0, "lost": 0})
    known: set[tuple[int, int]] = set()
    ahead = [(0, 0), *((0, 1 << cell) for cell in range(9))]  # the agent's stones, the other's
    while ahead:
        known.update(ahead)
        counts["positions"] += len(ahead)
        stones = np.array(ahead)[:, None, :] >> np.arange(9)[:, None] & 1
        taken = np.asarray(stones.any(axis=2), np.float32)
        actions = choose(stones.reshape(-1, 3, 3, 2).astype(np.bool_), taken)
        following: set[tuple[int, int]] = set()
        for (own, other), action in zip(ahead, actions, strict=True):
            own |= 1 << int(action)
            if has_line(own) or own | other == FULL:
                counts["won" if has_line(own) else "drawn"] += 1
                continue
            for cell in (x for x in range(9) if not (own | other) >> x & 1):
                replied = other | 1 << cell
                if has_line(replied) or own | replied == FULL:
                    counts["lost" if has_line(replied) else "drawn"] += 1
                else:
                    following.add((own, replied))
        ahead = sorted(following - known)
    return dict(counts)


def every_line_at_the_end(parts: Any, state: Any, run_dir: Path) -> dict[str, Any]:
    """Matches, and in tic-tac-toe every line: entries `matches` and `lines` of summary.json."""
    found = matches_at_the_end(parts, state, run_dir)
    if parts.config.env.id != "tic_tac_toe" or parts.spec.context > 1:
        return found
    return found | {"lines": every_line(make_choose(parts, state))}
