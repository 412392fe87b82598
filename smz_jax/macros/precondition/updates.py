"""Updates beside the model's, of the same windows: evidence, and where each macro applies.

A macro applies in a state if the model is certain of each of its transitions, its trial holds
(`macros.judge.evidence`), and what it leads to is worth as much as the best action, within
`macro.value_delta`:

    sum_i gamma^i r_i + gamma^l v(s_l) >= v(s_0) - delta

with v the model's own value now, at the root (where it is that of the best action, as far as the
policy is) and of the real end. A replayed window says this of the owners of slots whose actions it
begins by. What the policy does not do it does not replay: so for each
window and one owner in turn the model also says whether it is certain of the owner's transitions
from there; if not, it does not apply.

An eighth of the windows, by a hash of their place in the replay, is never trained on. The head
takes no part in the model's training: no gradient, no randomness, parameters and optimiser apart.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from smz_jax.config.settings import Config
from smz_jax.config.training import MacroConfig
from smz_jax.macros.judge.evidence import count_trials, outcomes, status, weigh
from smz_jax.macros.judge.trials import make_replayed
from smz_jax.macros.mine.buckets import BucketState, assign_buckets
from smz_jax.macros.mine.table import EVIDENCE, table_size
from smz_jax.macros.precondition.network import PreconditionHead, reset_columns
from smz_jax.macros.precondition.quality import Tally, count, fit_temperature, forget, init_tally
from smz_jax.macros.precondition.slots import MacroSlots, assign_slots, init_slots, slot_targets
from smz_jax.model.steps import imagine, predict
from smz_jax.model.turns import by_seat, of_seat
from smz_jax.storage.documents.macro_form import MAX_ACTIONS
from smz_jax.types import Array, EnvSpec, MacroTable, Networks, Params, ReplaySample, Trajectory

HELD_OUT = 8
"""One window of so many is held out."""
BLOCK = 32
"""Neighbouring windows share most of their rows: so many in a row are held out together."""


class HeadState(NamedTuple):
    """The head and all that it learns by, and evidence for the table; saved with the run."""

    params: Params
    opt_state: Any
    slots: MacroSlots
    tally: Tally
    updates: Array  # [] int32
    evidence: Array  # [8, M] float32, `count_trials` of the iteration so far


class Known(NamedTuple):
    """What a run has found so far, to count and to compare with."""

    actions: Array  # [M, L] int32, of the table
    played: Array  # [M] int32, its `play_count`
    buckets: BucketState


@partial(jax.jit, static_argnums=(0, 1, 3))
def init_head(
    config: MacroConfig,
    embedding_shape: tuple[int, ...],
    rng_key: Array,
    num_actions: int = MAX_ACTIONS,
) -> HeadState:
    """A fresh head whose slots are all free; `embedding_shape` has no batch axis."""
    capacity = table_size(config, min(num_actions, MAX_ACTIONS))
    params = PreconditionHead(config).init(rng_key, jnp.zeros((1, *embedding_shape), jnp.float32))
    return HeadState(
        params=params,
        opt_state=optax.adam(config.head_learning_rate).init(params),
        slots=init_slots(config),
        tally=init_tally(config),
        updates=jnp.zeros((), jnp.int32),
        evidence=jnp.zeros((len(EVIDENCE), capacity), jnp.float32),
    )


def model_part(head: HeadState | None, config: MacroConfig) -> HeadState | None:
    """What a saved model needs of a head (or of its shapes); None where none is learned."""
    if head is None or config.head_learning_rate == 0:
        return None
    return head._replace(opt_state=None, evidence=None)


def scatter_bits(x: Array) -> Array:
    """A fixed hash of uint32 numbers (the finaliser of MurmurHash3), which spreads neighbours."""
    x = x + jnp.uint32(0x9E3779B9)  # 0 would stay 0
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)


def held_out(sample: ReplaySample, history: int) -> Array:
    """Which windows `[B]` the head is never trained on; the same whenever they are drawn.

    A uniform sample does not tell where its windows lie; the value that the search found at a root,
    in all its bits, then stands for its place. `history` is the number of rows before the root.
    """
    if sample.indices is not None:
        place = sample.indices.astype(jnp.uint32) // BLOCK
    else:
        value = sample.rows.search_value[:, history].astype(jnp.float32)
        place = jax.lax.bitcast_convert_type(value, jnp.uint32)
    return scatter_bits(place) % HELD_OUT == 0


def play_weights(weights: Array, exponent: float) -> Array:
    """Weights `[B]` by which a batch's shares are those of play, 1 on average.

    Importance weights are (1 / (N p))^beta over their maximum, beta the `exponent`: at beta below 1
    they undo a part of the bias. At 0 they say nothing.
    """
    full = weights ** (1 / exponent) if exponent > 0 else weights
    return full / jnp.mean(full)


def worth_it(rows: Trajectory, values: Array, *, history: int, gamma: float, delta: float) -> Array:
    """Whether the first steps of windows were worth as much as the best action, within `delta`.

    The windows `[B, W, ...]` have `history` rows before the root; `values [K+1, B]`, of more than
    two players `[K+1, B, P]`, are of the root and of what was seen after each step, from the side
    of who moves there; `gamma` is the discount of a step. Rewards count up to where the turn
    passes, beyond which no window is judged.

    Returns:
        `[B, K]` bool, after each of K steps; of steps past a game's end it says nothing.
    """
    steps = values.shape[0] - 1
    part = slice(history, history + steps)
    weights = gamma ** jnp.arange(steps + 1, dtype=jnp.float32)
    discount = rows.discount[:, part]
    if rows.player is not None:  # what each state is worth to who moved at the root
        mover = rows.player[:, history : history + steps + 1].T
        values = of_seat(by_seat(values, mover), jnp.broadcast_to(mover[0], mover.shape))
        discount = jnp.abs(discount)
    gained = jnp.cumsum(rows.reward[:, part] * weights[:-1], axis=1)
    after = weights[1:] * discount * values[1:].T
    return gained + after >= values[0][:, None] - delta


def uncertain(
    networks: Networks, config: MacroConfig, params: Params, embedding: Array, actions: Array
) -> Array:
    """Whether some transition of a sequence is not certain, by `macro.play_threshold`: `[B]` bool.

    Sequences `actions [B, L]`, padded with -1, begin at `embedding [B, ...]`; codes are the
    likeliest.
    """
    played = imagine(networks, params, embedding, jnp.maximum(actions.T, 0)).afterstates
    return jnp.any(~(played.entropy < config.play_threshold) & (actions.T >= 0), axis=0)


def make_head_update(
    networks: Networks, config: Config, spec: EnvSpec
) -> Callable[[HeadState, Params, ReplaySample, Known | None], HeadState]:
    """One update of head and evidence on a batch of windows; pure, to be compiled by the caller.

    The model's parameters stay as they are.

    Returns:
        `(HeadState, params, sample, known) -> HeadState`. With nothing known no evidence is
        counted, and the baseline of start-state buckets has nothing to go by.
    """
    settings, history = config.macro, spec.context - 1
    rates = {"gamma": config.learner.gamma, "delta": settings.value_delta}
    head, optimizer = PreconditionHead(settings), optax.adam(settings.head_learning_rate)
    replayed = make_replayed(networks, config, spec)

    def refused(state: HeadState, params: Params, root: Array, real: Array) -> Array:
        """`[B, slots]` bool: one owner for each window, where it is not certain from there."""
        number = state.updates * root.shape[0] + jnp.arange(root.shape[0], dtype=jnp.int32)
        slot = (scatter_bits(number.astype(jnp.uint32)) % settings.slots).astype(jnp.int32)
        found = uncertain(networks, settings, params, root, state.slots.actions[slot])
        chosen = jax.nn.one_hot(slot, settings.slots, dtype=jnp.bool_)
        return chosen & (found & real & (state.slots.length[slot] > 0))[:, None]

    def learn(state: HeadState, root: Array, target: Array, weight: Array):
        """Logits before a step; parameters and optimiser state after it, if it is finite."""

        def loss(head_params: Params) -> tuple[Array, Array]:
            logits: Array = head.apply(head_params, root)  # type: ignore[assignment]
            each = optax.sigmoid_binary_cross_entropy(logits, target.astype(jnp.float32))
            return jnp.sum(each * weight) / jnp.maximum(weight.sum(), 1.0), logits

        (total, logits), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        finite = jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(gradient))
        new = (optax.apply_updates(state.params, updates), opt_state)
        old = (state.params, state.opt_state)
        return logits, *jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)

    def update(
        state: HeadState, params: Params, sample: ReplaySample, known: Known | None
    ) -> HeadState:
        trials, embeddings = replayed(params, sample.rows)
        root, bucket = embeddings[0], jnp.full(embeddings.shape[1], -1, jnp.int32)
        if known is not None:
            weights = play_weights(sample.weights, config.replay.importance_exponent)
            found = outcomes(trials, settings)
            counts = count_trials(known.actions, known.played, found, weights)
            state = state._replace(evidence=state.evidence + counts)
            bucket = assign_buckets(known.buckets, root)
        if settings.head_learning_rate == 0:
            return state
        values = jax.lax.map(lambda x: predict(networks, params, x).of_players, embeddings)
        worth = worth_it(sample.rows, values, history=history, **rates)
        relevant, target = slot_targets(state.slots, trials, worth, settings)
        apart = held_out(sample, history)[:, None]
        trained = relevant & ~apart
        weight = trained | (refused(state, params, root, trials.valid[:, 0]) & ~apart)
        logits, new, opt_state = learn(state, root, target, weight.astype(jnp.float32))
        windows = {"target": target, "trained": trained, "held_out": relevant & apart}
        tally = count(state.tally, logits=logits, **windows, bucket=bucket)
        updates = state.updates + 1
        return state._replace(params=new, opt_state=opt_state, tally=tally, updates=updates)

    return update


def assign_owners(
    head: HeadState, table: MacroTable, states: Array, config: MacroConfig
) -> HeadState:
    """Owners of the next while; what was learned of former ones is dropped. Pure.

    A new owner's output begins with the log-odds of its share of held trials (with one more of
    each kind), whatever the state. `states [M]` are those of `macros.judge.evidence.status`.
    """
    slots, changed = assign_slots(head.slots, table, states, config)
    same = jnp.all(slots.actions[:, None] == table.actions, axis=-1)
    held, trials = (jnp.sum(jnp.where(same, x, 0.0), axis=1) for x in (table.held, table.trials))
    bias = jnp.log((held + 1) / (trials - held + 1))
    none = jnp.zeros_like(bias)
    moments, *rest = head.opt_state
    reset = {name: reset_columns(getattr(moments, name), changed, none) for name in ("mu", "nu")}
    return head._replace(
        params=reset_columns(head.params, changed, bias),
        opt_state=(moments._replace(**reset), *rest),
        slots=slots,
        tally=forget(head.tally, changed, config.evidence_decay),
    )


def settle(head: HeadState, table: MacroTable, config: MacroConfig) -> tuple[HeadState, MacroTable]:
    """Ends an iteration: its evidence goes into the table, which then says who owns slots. Pure.

    The table has the same entries as while the updates of the iteration were made.
    """
    table = weigh(table, head.evidence, config)
    head = head._replace(evidence=jnp.zeros_like(head.evidence))
    if config.head_learning_rate > 0:
        head = assign_owners(head, table, status(table, config), config)
    return head, table


def applies(head: HeadState, config: MacroConfig, embedding: Array) -> Array:
    """Probability that each owner applies, calibrated on held-out windows.

    Of embeddings `[B, ...]` of real observations: `[B, slots]` float32; 0 for a free slot.
    """
    logits: Array = PreconditionHead(config).apply(head.params, embedding)  # type: ignore[assignment]
    chance = jax.nn.sigmoid(logits / fit_temperature(head.tally.bins))
    return jnp.where(head.slots.length > 0, chance, 0.0)
