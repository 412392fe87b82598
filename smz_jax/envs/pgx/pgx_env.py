"""2048, MinAtar and boards from pgx: B games stepped by one jitted call on the CPU.

pgx ends a game at an illegal move and keeps a game that is over as it is; here a lane resets at the
step after its end, and illegal moves are masked. Each lane draws from a key of its own. Rewards are
raw: in 2048 the sum of the tiles merged, so that the return is the game's score.

pgx draws which of its players begins; here player 0 always does. It shows the board from the side
of who moves, so that nothing is turned around here.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pgx

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.pgx.pgx_games import ACTIONS
from smz_jax.envs.vector import Lanes, LaneStep, describe
from smz_jax.types import Array, EnvSpec

LIBRARY = "pgx"
"""Who plays, for those who watch."""


class Lane(NamedTuple):
    """One game; a step's randomness is `rng_key` with `count` folded in."""

    state: Any  # pgx's
    rng_key: Array
    count: Array  # [] int32, steps and resets since the lane was opened
    first: Array  # [] int32, pgx's number of who began the game
    mover: Array  # [] int32, and of who made the last move


def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the game of `config`; see `make_spec`. A frame is a board `[H, W, planes]`."""
    game = pgx.make(config.id)  # pyright: ignore[reportArgumentType]
    state = jax.eval_shape(game.init, jax.random.key(0))  # pgx's own properties play a game
    names = ACTIONS.get(config.id) or map(str, range(state.legal_action_mask.shape[0]))
    spec = describe(config, state.observation.shape, state.observation.dtype, names)
    return spec._replace(players=game.num_players)


@functools.cache
def _compiled_game(game_id: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The jitted start and step of a whole vector, shared by all vectors of a game.

    Returns:
        `(lane ids [B], key) -> lanes, LaneStep` and
        `(lanes, action [B], over [B]) -> lanes, LaneStep`.
    """
    game = pgx.make(game_id)  # pyright: ignore[reportArgumentType]

    def seen(lane: Lane) -> LaneStep:
        state = lane.state
        return LaneStep(
            frame=state.observation,  # pyright: ignore[reportArgumentType]
            reward=state.rewards[lane.mover],
            terminated=state.terminated,
            valid_actions=state.legal_action_mask,
            player=state.current_player ^ lane.first if game.num_players == 2 else None,
        )

    def begin(lane_id: Array, key: Array) -> tuple[Lane, LaneStep]:
        key = jax.random.fold_in(key, lane_id)
        state = game.init(jax.random.fold_in(key, 0))
        lane = Lane(state, key, jnp.int32(1), state.current_player, state.current_player)
        return lane, seen(lane)

    def step(lane: Lane, action: Array, over: Array) -> tuple[Lane, LaneStep]:
        key = jax.random.fold_in(lane.rng_key, lane.count)
        # Both are computed for every lane under vmap in any case.
        first, after = game.init(key), game.step(lane.state, action, key)
        state = jax.tree.map(lambda a, b: jnp.where(over, a, b), first, after)
        began = jnp.where(over, first.current_player, lane.first)
        new = Lane(state, lane.rng_key, lane.count + 1, began, lane.state.current_player)
        return new, seen(new)

    return jax.jit(jax.vmap(begin, in_axes=(0, None))), jax.jit(jax.vmap(step), donate_argnums=0)


class _PgxLanes(Lanes):
    """See `Lanes`; `send` starts the step, which runs on while the host does other things."""

    def __init__(self, config: EnvConfig, seed: int, lanes: range) -> None:
        self._begin, self._advance = _compiled_game(config.id)
        self._device = jax.local_devices(backend="cpu")[0]
        self._seed, self._ids, self._resets = seed, np.array(lanes), 0

    def reset(self) -> LaneStep:
        with jax.default_device(self._device):
            words = np.random.SeedSequence([self._seed, self._resets]).generate_state(2)
            key = jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
            self._resets += 1
            self._lanes, self._pending = self._begin(self._ids, key)
        return self.recv()

    def send(self, actions: np.ndarray, over: np.ndarray, resting: np.ndarray) -> None:
        with jax.default_device(self._device):
            self._lanes, self._pending = self._advance(self._lanes, actions, over)

    def recv(self) -> LaneStep:
        return jax.tree.map(np.asarray, self._pending)

    def close(self) -> None:
        self._lanes = self._pending = None


open_lanes = _PgxLanes
