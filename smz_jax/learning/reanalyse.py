"""Stored targets made anew: rows of the replay are searched again with the newest parameters.

Source: MuZero Reanalyse (Schrittwieser et al. 2020, appendix H); EfficientZero (Ye et al. 2021)
does so with 99 % of its policy targets. Here rows are rewritten in place, between the updates:
every draw of them sees the newer targets, and no update waits for a search.

Times count the steps of every lane since the run began; row t of a ring of T rows is t mod T.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flashbax.buffers import sum_tree
from jax.sharding import Mesh

from smz_jax.config.seeds import REANALYSE_KEY
from smz_jax.config.settings import Config
from smz_jax.learning.replay import layout, mean_target_age, read_block, write_targets
from smz_jax.macros.mine.miner import slim
from smz_jax.model.actions import likeliest
from smz_jax.model.lanes import WHOLE, brought_home, over_lanes, own_sums
from smz_jax.model.observe import stack_windows
from smz_jax.model.steps import decide, finite_logits, normalised_entropy
from smz_jax.search.root_search import make_search
from smz_jax.types import (
    TARGETS,
    Array,
    Decision,
    EnvSpec,
    Networks,
    Params,
    SearchOutput,
    Trajectory,
)

LEAST_PROBABILITY = 1e-6
"""Probabilities below count as this in the divergence of policies: visits may be 0."""
DRAWN = 4
"""Blocks that are drawn for each that is searched, where `reanalyse.order` is sampled."""


class Searched(NamedTuple):
    """A block of n rows as if they were played now: what macros are looked for in."""

    first: int  # of its rows, a time
    decisions: list[Decision]  # n, of all lanes; trees as `slim` leaves them
    rows: Trajectory  # [B, n, ...] without frames; entropies of the stored actions


class Reanalysed(NamedTuple):
    """What one iteration's reanalysis gives."""

    replay: Any
    cursor: int  # the next one's first row, a time
    metrics: dict[str, float]
    blocks: Sequence[Searched] = ()  # of a dataset; else none


def sweep(
    cursor: int, *, oldest: int, newest: int, steps: int, block: int, whole: bool = False
) -> tuple[list[int], int]:
    """First rows of the blocks of one iteration, and the cursor after them.

    The cursor moves from the oldest row to the newest and starts over; a block never reaches past
    the newest. Of fewer rows than `steps` each gets at most one turn.

    Args:
        cursor: the row to continue with, a time.
        oldest: first row that may be searched.
        newest: first row that may not.
        steps: rows of an iteration.
        block: rows of one search, a divisor of `steps`.
        whole: whether the last block ends with the newest row, and overlaps the one before.
    """
    starts = []
    for _ in range(min(steps, newest - oldest) // block):
        if not oldest <= cursor <= newest - block:
            cursor = newest - block if whole and oldest <= cursor < newest else oldest
        starts.append(cursor)
        cursor += block
    return starts, cursor


def blocks_of(config: Config, iteration: int) -> int:
    """How many blocks an iteration searches.

    By `reanalyse.mode: chance` their number is drawn from the run's seed and the iteration: each
    block that a rollout's rows fill is searched by a chance which makes it `reanalyse.ratio` of
    these rows on average.
    """
    block = config.reanalyse_block
    if config.dataset or config.reanalyse.mode == "ratio" or not config.reanalyse_steps:
        return config.reanalyse_steps // block
    drawn = np.random.default_rng((config.seed, REANALYSE_KEY, iteration))
    length = config.rollout.length
    blocks = math.ceil(length / block)
    return int(drawn.binomial(blocks, config.reanalyse.ratio * length / (block * blocks)))


def make_draw(config: Config, spec: EnvSpec) -> Callable[..., Any]:
    """Draws blocks as the updates draw windows: in proportion to the priorities, if there are any.

    Returns:
        `(replay_state, rng_key, count, oldest, newest, step) -> (first, age)`: the first rows of
        `DRAWN` x as many blocks as an iteration searches at most, times `[n]` int32 in
        `oldest..newest - block`, each the root of a window that was drawn; and the mean age of the
        targets in each block, `[n]` float32 learner steps. `count` steps were played.
    """
    block, history = config.reanalyse_block, spec.context - 1
    most = config.rollout.length if config.reanalyse.mode == "chance" else config.reanalyse_steps
    number = DRAWN * math.ceil(most / block)

    def draw(
        state: Any, rng_key: Array, count: Array, oldest: Array, newest: Array, step: Array
    ) -> tuple[Array, Array]:
        made = state.experience.target_step
        ring = made.shape[1]
        if config.replay.prioritised:
            items = sum_tree.stratified_sample(state.sum_tree_state, number, rng_key)
            place = items % ring + history
            time = count - 1 - (count - 1 - place) % ring
        else:
            time = jax.random.randint(rng_key, (number,), oldest, newest - block + 1)
        first = jnp.clip(time, oldest, newest - block)
        own = (first[:, None] + jnp.arange(block)) % ring
        return first, jnp.mean((step - made[:, own]).astype(jnp.float32), axis=(0, 2))

    return draw


def oldest_apart(first: np.ndarray, age: np.ndarray, *, number: int, block: int) -> list[int]:
    """Of blocks that were drawn those with the oldest targets, at most `number`; none overlap."""
    taken: list[int] = []
    for at in first[np.argsort(-age, kind="stable")]:
        if len(taken) < number and all(abs(at - other) >= block for other in taken):
            taken.append(int(at))
    return taken


def read_flat(state: Any, first: Array, size: int, spec: EnvSpec) -> tuple[Array, Trajectory]:
    """Observations `[B n, F, ...]` of the `size` = n rows from the time `first` on, and the rows.

    F - 1 rows before `first` must be in the ring. The rows come without frames.
    """
    history = spec.context - 1
    rows = read_block(state, first - history, history + size)
    stacks = stack_windows(rows, spec, range(history, history + size))
    own = rows._replace(frame=())
    flat = jax.tree.map(lambda x: x[:, history:].reshape(-1, *x.shape[2:]), own)
    return stacks.reshape(-1, *stacks.shape[2:]), flat


def make_reanalyse_block(networks: Networks, config: Config, spec: EnvSpec) -> Callable[..., Any]:
    """Searches one block, `config.reanalyse_block` rows of all lanes, as play does; pure.

    Returns:
        `(params, replay_state, rng_key, first, step) -> (replay_state, sums)`: `first` is the
        block's first row, a time with F - 1 rows before it in the ring; `step` the learner step of
        the parameters. `rng_key` is consumed. The sums are over the rows with new targets, whose
        number is `rows`; a row whose search had faults, or no valid action, keeps its old ones. Of
        a dataset the decisions and the rows of a `Searched` follow.
    """
    simulations = config.reanalyse.num_simulations or config.search.num_simulations
    settings = replace(config, search=replace(config.search, num_simulations=simulations))
    search = make_search(networks, settings, spec)
    size, is_stored = config.reanalyse_block, config.dataset is not None
    is_searched = config.rollout.policy == "search"

    def reanalyse_block(
        params: Params, state: Any, rng_key: Array, first: Array, step: Array
    ) -> tuple[Any, ...]:
        observation, old = read_flat(state, first, size, spec)
        embedding = networks.representation(params, observation)
        invalid = old.invalid_actions.astype(jnp.float32)
        if is_searched:
            found = search(params, rng_key, embedding, invalid, jnp.float32(1.0), jnp.float32(1.0))
            good = (found.faults == 0) & ~found.all_invalid
        else:  # of a dataset, all targets of which stay as they are
            faults = jnp.zeros_like(old.action)
            kept = old.action, old.action_weights, old.search_value, None, faults
            found, good = SearchOutput(*kept, faults > 0, spread=old.search_spread), faults > 0
        values = found.action_weights, found.value, found.spread, step, found.values
        fresh = {
            name: jnp.where(good.reshape(-1, *[1] * (x.ndim - 1)), new, x)
            for name, new in zip(TARGETS, values, strict=True)
            for x in [getattr(old, name)]
            if x is not None
        }
        policy, stored = fresh["action_weights"], old.action_weights
        logs = [jnp.log(jnp.maximum(x, LEAST_PROBABILITY)) for x in (stored, policy)]
        was, now = (likeliest(x, spec.action_space.sizes) for x in (stored, policy))
        sums = {
            "rows": good,
            "policy_changed": jnp.any(now != was, axis=-1),
            "policy_kl": jnp.sum(stored * (logs[0] - logs[1]), axis=-1),
            "value_change": fresh["search_value"] - old.search_value,
        }

        def by_lane(tree: Any) -> Any:
            return jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), tree)

        state = write_targets(state, first, by_lane(fresh))
        sums = own_sums({name: jnp.sum(x, dtype=jnp.float32) for name, x in sums.items()})
        if not is_stored:
            return state, sums
        logits, _ = finite_logits(decide(networks, params, embedding, old.action).logits)
        entropy = normalised_entropy(logits)
        seen = by_lane(Decision(found._replace(tree=slim(found.tree)), embedding, entropy))
        decisions = [jax.tree.map(lambda x, i=i: x[:, i], seen) for i in range(size)]
        return state, sums, decisions, by_lane(old._replace(transition_entropy=entropy, **fresh))

    return reanalyse_block


def make_reanalyse(
    networks: Networks, config: Config, spec: EnvSpec, mesh: Mesh | None = None
) -> Callable[..., Reanalysed]:
    """The reanalysis of one iteration, in jitted blocks (`ReanalyseConfig`).

    The rollout that was just played is left out: its targets are of the same parameters. So are the
    oldest F - 1 rows: their observations are not known, and no window has them as a root. Of a
    dataset no row is left out but those, and the blocks are given too.
    Each device of the `mesh` searches for its own lanes.

    Returns:
        `(params, replay_state, *, cursor, count, iteration, step) -> Reanalysed`: `count` steps of
        every lane were played so far. The replay state is donated. The metrics are
        `replay/target_age`, the mean age of all stored targets in learner steps, and of the
        reanalysed rows the share whose best action is another one now, the means of
        KL(stored, new policy) and of the values' change, and their number.
    """
    history, is_stored = spec.context - 1, config.dataset is not None
    length = 0 if is_stored else config.rollout.length
    ring = config.replay.capacity // config.env.num_envs
    rng_key = jax.random.fold_in(jax.random.key(config.seed), REANALYSE_KEY)
    one_block, age = make_reanalyse_block(networks, config, spec), jax.jit(mean_target_age)

    def search_at(params: Params, state: Any, iteration: Array, first: Array, step: Array) -> Any:
        key = jax.random.fold_in(jax.random.fold_in(rng_key, iteration), first)
        laid = layout(state)
        given = (WHOLE, laid, WHOLE, WHOLE, WHOLE)
        return over_lanes(one_block, mesh, given, (laid, WHOLE))(params, state, key, first, step)

    jitted = jax.jit(search_at, donate_argnums=1)
    draw, block = jax.jit(make_draw(config, spec)), config.reanalyse_block

    def reanalyse(
        params: Params, replay_state: Any, *, cursor: int, count: int, iteration: int, step: Array
    ) -> Reanalysed:
        bounds = {"oldest": max(0, count - ring) + history, "newest": count - length}
        number = blocks_of(config, iteration)
        if config.reanalyse.order == "sweep":
            sizes = {"steps": number * block, "block": block}
            starts, cursor = sweep(cursor, **bounds, **sizes, whole=is_stored)
        elif number and bounds["newest"] - bounds["oldest"] >= block:
            key = jax.random.fold_in(rng_key, iteration)
            at = {name: np.int32(x) for name, x in {**bounds, "count": count}.items()}
            drawn = jax.device_get(brought_home(draw(replay_state, key, **at, step=step)))
            starts = oldest_apart(*drawn, number=number, block=block)
        else:
            starts = []
        several, blocks = [], []
        for first in starts:
            at = np.int32(iteration), np.int32(first)
            replay_state, sums, *seen = jitted(params, replay_state, *at, step)
            several.append(sums)
            blocks += [Searched(first, *seen)] if seen else []
        several, old = jax.device_get((several, age(replay_state, step)))
        metrics = {"replay/target_age": float(old)}
        if rows := sum(float(sums["rows"]) for sums in several):
            metrics["reanalyse/rows"] = rows
            for name in ("policy_changed", "policy_kl", "value_change"):
                metrics[f"reanalyse/{name}"] = sum(float(sums[name]) for sums in several) / rows
        return Reanalysed(replay_state, cursor, metrics, blocks)

    return reanalyse
