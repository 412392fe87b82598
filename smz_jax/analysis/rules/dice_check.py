"""What a model of backgammon takes for chance, against the dice."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.analysis.rules.known_rules import rules_check
from smz_jax.envs.pgx.backgammon import ROLL_ENTROPY
from smz_jax.learning.learner import acting_params
from smz_jax.model import steps
from smz_jax.types import Array, Params

MOVES = 8192
"""Newest stored moves of the check."""


def stored_moves(replay_state: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The newest real moves of a replay, oldest first.

    Returns:
        Frames `[N, *frame_shape]` before the move, actions `[N]` and discounts `[N]` after it: -1
        where the turn passed, 0 where the game ended. A game that was cut off has none.
    """
    held = jax.device_get(replay_state)
    index, rows = int(held.current_index), held.experience
    newest = np.arange(index if not held.is_full else rows.action.shape[1])
    newest = (newest + (index if held.is_full else 0)) % rows.action.shape[1]
    newest = newest[-(-(-MOVES // len(rows.action)) + 1) :]
    # Time first, so that the newest of all lanes come last; the row after a game's end is no move.
    real = ~rows.is_first[:, newest[1:]].T
    frame, action, discount = (
        np.swapaxes(x[:, newest[:-1]], 0, 1)[real][-MOVES:]
        for x in (rows.frame, rows.action, rows.discount)
    )
    return frame, action, discount


def check_rolls(parts: Any, state: Any) -> dict[str, float]:
    """The transition entropies of stored moves against those of two dice; see `rules_check`.

    `parts` and `state` are a run's, of one frame an observation. A move after which the other
    player rolls has 3.006 nats, any other none. A pair of the check is a move that was played, so
    that `roc_area_reachable` and `pairs_visited` tell nothing more and are left out.
    """
    frames, actions, discounts = stored_moves(state.replay)
    params, networks = acting_params(state.train, parts.config), parts.networks

    @jax.jit
    def entropies(params: Params, seen: Array, actions: Array) -> Array:
        embedding = networks.representation(params, seen[:, None])
        afterstate = steps.decide(networks, params, embedding, actions)
        return steps.entropy_nats(afterstate.logits)

    entropy = np.asarray(entropies(params, jnp.asarray(frames), jnp.asarray(actions)))
    found = rules_check(
        entropy.astype(np.float64)[:, None],
        np.where(discounts < 0, ROLL_ENTROPY, 0.0)[:, None],
        reachable=np.ones(len(actions), np.bool_),
        visits=np.ones((len(actions), 1), np.int64),
        codebook_size=parts.config.network.codebook_size,
    )
    return {x: y for x, y in found.items() if x not in ("roc_area_reachable", "pairs_visited")}
