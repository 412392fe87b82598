"""Experience on the device: add, sample, priorities, and stacks rebuilt from newest frames.

Wraps flashbax's trajectory buffers, prioritised and uniform, behind one set of pure functions. A
buffer holds one ring of rows per lane; an item is a window of W rows that starts anywhere in it
and never spans the write head. Windows may hold several episodes: `targets` masks them.

The state may be carried through `jit` and `scan` whole, provided that it is *donated*: the rows
are then neither copied nor moved. Without donation each call that returns the state copies every
row.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flashbax
import jax
import jax.numpy as jnp
import psutil
from flashbax.buffers import sum_tree
from jax.sharding import Mesh

from smz_jax.config.check import ConfigError, require
from smz_jax.config.seeds import VIEW_KEY
from smz_jax.config.settings import Config
from smz_jax.learning.demonstrations import mix
from smz_jax.learning.views import view_weights
from smz_jax.model.lanes import LANES, WHOLE, lay
from smz_jax.types import Array, EnvSpec, ReplaySample, Trajectory

# Bounds of a priority. flashbax changes a leaf by adding a float32 difference, so a fall by more
# than seven digits would leave an exact 0: an item that can never be drawn again.
PRIORITY_MIN, PRIORITY_MAX = 1e-3, 1e3


class Replay(NamedTuple):
    """Replay as pure functions; holds no arrays. `make_replay` says what each one does."""

    init: Callable[[], Any]  # () -> state, all empty
    add: Callable[[Any, Trajectory], Any]  # (state, rows [B, T, ...]) -> state
    add_donated: Callable[[Any, Trajectory], Any]  # jitted `add` that reuses the state's memory
    sample: Callable[[Any, Array], ReplaySample]  # (state, rng_key) -> windows
    set_priorities: Callable[[Any, Array | None, Array], Any]  # (state, indices, [B]) -> state
    can_sample: Callable[[Any], Array]  # (state) -> [] bool, `replay.min_size` rows are in
    size: Callable[[Any], Array]  # (state) -> [] int32, environment steps held, all lanes


def _empty_row(spec: EnvSpec) -> Trajectory:
    """One row of experience (no batch or time axis) with the stored dtypes."""
    of_all = None if spec.sides == 1 else jnp.zeros((spec.sides,), jnp.float32)
    return Trajectory(
        frame=jnp.zeros(spec.frame_shape, spec.frame_dtype),
        action=jnp.zeros((), jnp.int32),
        reward=jnp.zeros((), jnp.float32),
        discount=jnp.zeros((), jnp.float32),
        is_first=jnp.zeros((), jnp.bool_),
        invalid_actions=jnp.zeros((spec.num_options,), jnp.uint8),
        action_weights=jnp.zeros((spec.num_options,), jnp.float32),
        search_value=jnp.zeros((), jnp.float32),
        search_spread=jnp.zeros((), jnp.float32),
        transition_entropy=jnp.zeros((), jnp.float32),
        target_step=jnp.zeros((), jnp.int32),
        player=None if spec.sides == 1 else jnp.zeros((), jnp.int32),
        rewards=of_all,
        values=of_all,
    )


def _make_buffer(config: Config) -> Any:
    """Makes flashbax's buffer for these settings; one ring of capacity / B rows per lane."""
    lanes, window = config.env.num_envs, config.window_rows
    ring_rows = config.replay.capacity // lanes
    min_rows = math.ceil(config.replay.min_size / lanes)
    sizes = {
        "add_batch_size": lanes,
        "sample_batch_size": config.learner.batch_size,
        "sample_sequence_length": window,
        "period": 1,
        "min_length_time_axis": max(window, min(min_rows, ring_rows)),
        "max_length_time_axis": ring_rows,
    }
    if not config.replay.prioritised:
        return flashbax.make_trajectory_buffer(**sizes)
    return flashbax.make_prioritised_trajectory_buffer(
        **sizes,
        priority_exponent=config.replay.priority_exponent,
        device=jax.default_backend(),
    )


def _sample_view(state: Any, rng_key: Array, config: Config) -> ReplaySample:
    """Draws windows in proportion to `view_weights`; their own weights are 1."""
    batch_size = config.learner.batch_size
    weights = view_weights(state, config).ravel()
    items = jax.random.choice(rng_key, weights.size, (batch_size,), p=weights / jnp.sum(weights))
    rows = _windows(state, items, config)
    indices = items.astype(jnp.int32) if config.replay.prioritised else None
    return ReplaySample(rows, indices, jnp.ones(batch_size, jnp.float32))


def _windows(state: Any, items: Array, config: Config) -> Trajectory:
    """Rows `[B, W, ...]` of the windows of these items (lane x ring + first row)."""
    ring = state.experience.reward.shape[1]
    time = ((items % ring)[:, None] + jnp.arange(config.window_rows)) % ring
    return jax.tree.map(lambda x: x[(items // ring)[:, None], time], state.experience)


def _sample_prioritised(state: Any, rng_key: Array, config: Config) -> ReplaySample:
    """Draws windows in proportion to priority^alpha; weights are (1 / (N p))^beta over their max.

    Source: Schaul et al. 2016, "Prioritized Experience Replay", section 3.4. N cancels in the
    division by the batch's maximum.
    """
    tree, batch_size = state.sum_tree_state, config.learner.batch_size
    indices = sum_tree.stratified_sample(tree, batch_size, rng_key)
    probs = sum_tree.get_probability(tree, indices)
    # Rounding in the float32 sums can carry a draw onto an item that is not valid (probability 0:
    # unwritten, or across the write head). Another draw of the batch takes its place.
    live = probs > 0.0
    pick = jnp.where(live, jnp.arange(batch_size), jnp.argmax(live))
    indices, probs = indices[pick], probs[pick]

    rows = _windows(state, indices, config)
    weights = jnp.power(jnp.min(probs) / probs, config.replay.importance_exponent)
    return ReplaySample(rows=rows, indices=indices, weights=weights.astype(jnp.float32))


def layout(state: Any) -> Any:
    """How the state lies on a mesh: each device holds its lanes' rings, and all priorities."""
    return jax.tree.map(lambda _: WHOLE, state).replace(experience=LANES)


def make_replay(config: Config, spec: EnvSpec, mesh: Mesh | None = None) -> Replay:
    """Builds the replay of a run.

    `sample` draws windows of W = `config.window_rows` rows: F - 1 rows of history, the root, then
    K + n more. New items get flashbax's running maximum of priority^alpha, rounded down to a whole
    number and at least 1; that maximum never falls. `set_priorities` takes |value error| + eps
    and applies alpha itself; values are clipped to `PRIORITY_MIN..PRIORITY_MAX`, one that is not
    finite leaves its item as it was, and so does one for an item that is no longer valid, so that
    a priority can never revive a window across the write head. (If rows were added between
    sampling and setting, an item that was overwritten and is valid again takes the old item's
    priority; within one training step this cannot happen.)

    With `replay.view` a share of each batch is drawn by a second priority (`view_weights`).

    Uniform mode: `indices` is None, `weights` are 1 and `set_priorities` changes nothing.

    On a `mesh` the same windows are drawn as on one device; each device gets its part of them.

    Returns:
        The functions; all but `add_donated` are pure, to be jitted by the caller with the state
        donated.

    Raises:
        ConfigError: if `spec` stacks another number of frames than `config` says.
    """
    stack = config.env.frame_stack
    require(spec.context == stack, "env.frame_stack", stack, f"{spec.context}, as the env")
    fits = spec.players == 1 or config.replay.view not in ("best", "kept")
    require(fits, "replay.view", config.replay.view, "another one where players move in turn")
    buffer = _make_buffer(config)

    def init() -> Any:
        # flashbax starts with weakly typed scalars that later calls make strong: a second trace.
        state = buffer.init(_empty_row(spec))
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), state)

    def own(state: Any, rng_key: Array) -> ReplaySample:
        if config.replay.prioritised:
            return _sample_prioritised(state, rng_key, config)
        rows = buffer.sample(state, rng_key).experience
        return ReplaySample(rows, None, jnp.ones(config.learner.batch_size, jnp.float32))

    def sample(state: Any, rng_key: Array) -> ReplaySample:
        found = own(state, rng_key)
        if config.replay.view != "none":
            view_key, mix_key = jax.random.split(jax.random.fold_in(rng_key, VIEW_KEY))
            viewed = _sample_view(state, view_key, config)
            found, _ = mix(found, viewed, mix_key, jnp.float32(config.replay.view_share))
        return lay(found, mesh, LANES)

    def set_priorities(state: Any, indices: Array | None, priorities: Array) -> Any:
        if indices is None:
            return state
        tree = state.sum_tree_state
        keep = jnp.isfinite(priorities) & (indices >= 0) & (sum_tree.get(tree, indices) > 0.0)
        # flashbax's own padding: an index past the tree with priority 0 changes nothing.
        indices = jnp.where(keep, indices, tree.nodes.shape[0] + 1)
        clipped = jnp.clip(priorities.astype(jnp.float32), PRIORITY_MIN, PRIORITY_MAX)
        return buffer.set_priorities(state, indices, jnp.where(keep, clipped, 0.0))

    def size(state: Any) -> Array:
        lanes, ring_rows = state.experience.reward.shape
        rows = jnp.where(state.is_full, ring_rows, state.current_index)
        return (lanes * rows).astype(jnp.int32)

    return Replay(
        init=jax.jit(init),
        add=buffer.add,
        add_donated=jax.jit(buffer.add, donate_argnums=0),
        sample=sample,
        set_priorities=set_priorities,
        can_sample=buffer.can_sample,
        size=size,
    )


def read_block(state: Any, first: Array, length: int) -> Trajectory:
    """Rows `[lanes, length, ...]` of all lanes from the time `first` on, around the ring's end."""
    time = (first + jnp.arange(length)) % state.experience.reward.shape[1]
    return jax.tree.map(lambda x: x[:, time], state.experience)


def write_targets(state: Any, first: Array, targets: Mapping[str, Any]) -> Any:
    """The state with `TARGETS` `[lanes, n, ...]` at the times from `first` on; priorities stay.

    To be jitted with the state donated.
    """
    rows = state.experience
    time = (first + jnp.arange(targets["target_step"].shape[1])) % rows.reward.shape[1]
    new = {
        name: getattr(rows, name).at[:, time].set(x) for name, x in targets.items() if x is not None
    }
    return state.replace(experience=rows._replace(**new))


def mean_target_age(state: Any, step: Array) -> Array:
    """Mean age `[]` of the stored targets at a learner step, in learner steps."""
    made = state.experience.target_step
    held = jnp.where(state.is_full, made.shape[1], state.current_index)
    age = jnp.where(jnp.arange(made.shape[1]) < held, step - made, 0)
    return jnp.sum(age, dtype=jnp.float32) / jnp.maximum(held * made.shape[0], 1)


def required_bytes(config: Config, spec: EnvSpec) -> int:
    """Bytes that the replay state takes on the device; allocates nothing."""
    state = jax.eval_shape(_make_buffer(config).init, _empty_row(spec))
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))


def _available_bytes(devices: int) -> int:
    """Free bytes where arrays live: of so many accelerators if they tell, else of the host."""
    device = jax.local_devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    if stats and "bytes_limit" in stats:
        return devices * int(stats["bytes_limit"] - stats["bytes_in_use"])
    return int(psutil.virtual_memory().available)


def check_memory(config: Config, spec: EnvSpec, available_bytes: int | None = None) -> None:
    """Refuses a replay that would not fit, before anything is allocated.

    Raises:
        ConfigError: in one line, with the GB (1e9 bytes) needed and free.
    """
    needed = required_bytes(config, spec)
    free = available_bytes
    if free is None:
        free = _available_bytes(config.devices * config.processes)
    if needed > free:
        raise ConfigError(
            f"replay.capacity = {config.replay.capacity} needs {needed / 1e9:.2f} GB, "
            f"{free / 1e9:.2f} GB free: it must be smaller"
        )
