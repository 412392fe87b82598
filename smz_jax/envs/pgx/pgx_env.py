"""2048, MinAtar and boards from pgx: B games stepped by one jitted call on the CPU.

pgx ends a game at an illegal move and keeps a game that is over as it is; here a lane resets at the
step after its end, and illegal moves are masked. Each lane draws from a key of its own. Rewards are
raw: in 2048 the sum of the tiles merged, so that the return is the game's score.

pgx draws which of its players begins; here player 0 always does. It shows the board from the side
of who moves, so that nothing is turned around here. The dice of a turn depend on the seed, the
lane, the game's number there and the turn's, whatever was played: two matches have the same dice.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pgx

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.pgx import backgammon
from smz_jax.envs.pgx.pgx_games import ACTIONS
from smz_jax.envs.vector import Lanes, LaneStep, describe
from smz_jax.types import Array, EnvSpec

LIBRARY = "pgx"
"""Who plays, for those who watch."""
TURNS = 2**16
"""Counted for each game of two players, more than any has."""


class Lane(NamedTuple):
    """One game; a step's randomness is `rng_key` with `count` folded in."""

    state: Any  # pgx's
    rng_key: Array
    count: Array  # [] int32, steps and resets since the lane was opened; of two players, TURNS for
    #               each game before and what was thrown in this one
    first: Array  # [] int32, pgx's number of who began the game
    mover: Array  # [] int32, and of who made the last move


def spec_of(config: EnvConfig) -> EnvSpec:
    """Describes the game of `config`; see `make_spec`. A frame is a board `[H, W, planes]`."""
    game = pgx.make(config.id)  # pyright: ignore[reportArgumentType]
    state = jax.eval_shape(game.init, jax.random.key(0))  # pgx's own properties play a game
    names = ACTIONS.get(config.id) or map(str, range(state.legal_action_mask.shape[0]))
    shape, dtype = state.observation.shape, state.observation.dtype
    has_dice = config.id == "backgammon"
    if has_dice:
        shape, dtype, names = (backgammon.SIZE,), np.uint8, backgammon.ACTION_NAMES
    spec = describe(config, shape, dtype, names)
    return spec._replace(players=game.num_players, has_dice=has_dice)


def lane_functions(game_id: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The start and the step of one game as pure functions, which `jax.lax.scan` takes, too.

    Returns:
        `(lane id [], key) -> lane, LaneStep` and
        `(lane, action [], over []) -> lane, LaneStep`, both without a batch axis.
    """
    game = pgx.make(game_id)  # pyright: ignore[reportArgumentType]
    has_two = game.num_players == 2

    def seen(lane: Lane) -> LaneStep:
        state = lane.state
        frame, valid = state.observation, state.legal_action_mask
        if game_id == "backgammon":
            frame, valid = backgammon.frame_of(frame, jnp), backgammon.only_one_skip(valid)
        return LaneStep(
            frame=frame,  # pyright: ignore[reportArgumentType]
            reward=state.rewards[lane.mover],
            terminated=state.terminated,
            valid_actions=valid,  # pyright: ignore[reportArgumentType]
            player=state.current_player ^ lane.first if has_two else None,
        )

    def begin(lane_id: Array, key: Array) -> tuple[Lane, LaneStep]:
        key = jax.random.fold_in(key, lane_id)
        state = game.init(jax.random.fold_in(key, 0))
        lane = Lane(state, key, jnp.int32(1), state.current_player, state.current_player)
        return lane, seen(lane)

    def step(lane: Lane, action: Array, over: Array) -> tuple[Lane, LaneStep]:
        next_game = (lane.count // TURNS + 1) * TURNS
        count = jnp.where(over, next_game, lane.count) if has_two else lane.count
        key = jax.random.fold_in(lane.rng_key, count)
        # Both are computed for every lane under vmap in any case.
        first, after = game.init(key), game.step(lane.state, action, key)
        state = jax.tree.map(lambda a, b: jnp.where(over, a, b), first, after)
        began = jnp.where(over, first.current_player, lane.first)
        moves_on = has_two & ~over & (state.current_player == lane.state.current_player)
        new = Lane(state, lane.rng_key, count + ~moves_on, began, lane.state.current_player)
        return new, seen(new)

    return begin, step


@functools.cache
def _compiled_game(game_id: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The jitted start and step of a whole vector, shared by all vectors of a game.

    Returns:
        `(lane ids [B], key) -> lanes, LaneStep` and
        `(lanes, action [B], over [B]) -> lanes, LaneStep`.
    """
    begin, step = lane_functions(game_id)
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
