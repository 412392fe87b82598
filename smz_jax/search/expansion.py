"""One new node for each row: the model's functions, each run only for the rows that need it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from smz_jax.config.settings import Config
from smz_jax.model.steps import (
    Afterstate,
    Step,
    chance,
    decide,
    finite,
    foretold_certain,
    jump,
    one_hot_code,
)
from smz_jax.model.turns import by_seat
from smz_jax.search.candidates import Candidates, EdgeActions
from smz_jax.search.control import Control, make_control
from smz_jax.search.edges import Edges
from smz_jax.search.macro_edges import best_macro
from smz_jax.search.nodes import NewNode
from smz_jax.types import LEAPT, Array, Networks, Params


def on_rows(
    function: Callable[..., Any],
    needed: Array,
    inputs: Any,
    outputs: Any,
    row_multiple: int | None,
    control: Control,
) -> Any:
    """Runs `function` for the rows that need it, and for none if no row does.

    Args:
        function: of a batch of any size, row by row: `(inputs) -> outputs`.
        needed: `[B]` bool.
        inputs: pytree of `[B, ...]`.
        outputs: pytree of `[B, ...]`; keeps its entries in rows that do not need the function.
        row_multiple: the needing rows are gathered, and `function` runs once on the next multiple
            of this many rows (each multiple up to B is compiled); None: on the whole batch.
        control: of the branch around it.

    Returns:
        `outputs` with the results.
    """
    (batch_size,) = needed.shape
    if row_multiple is None or row_multiple >= batch_size:

        def keep(old: Array, new: Array) -> Array:
            return jnp.where(needed.reshape(-1, *(1,) * (old.ndim - 1)), new.astype(old.dtype), old)

        return control.branch(
            jnp.any(needed),
            lambda: jax.tree.map(keep, outputs, function(inputs)),
            lambda: outputs,
        )
    # Rows beyond the needing ones are out of range: read as the last row, and never written.
    (rows,) = jnp.nonzero(needed, size=batch_size, fill_value=batch_size)

    def run_first(count: int) -> Any:
        some = rows[:count]
        results = function(jax.tree.map(lambda x: x.at[some].get(mode="clip"), inputs))
        return jax.tree.map(
            lambda old, new: old.at[some].set(new.astype(old.dtype), mode="drop"), outputs, results
        )

    sizes = [*range(row_multiple, batch_size, row_multiple), batch_size]
    branches = [lambda: outputs, *(functools.partial(run_first, size) for size in sizes)]
    count = jnp.sum(needed, dtype=jnp.int32)
    return jax.lax.switch((count + row_multiple - 1) // row_multiple, branches)


def _state_after(
    networks: Networks, params: Params, num_outcomes: int, inputs: tuple[Array, Array]
) -> tuple[Step, Array]:
    afterstate, outcome = inputs
    return finite(chance(networks, params, afterstate, one_hot_code(outcome, num_outcomes)))


def _end_of_jump(
    networks: Networks, params: Params, inputs: tuple[Array, Array]
) -> tuple[Step, Array]:
    return finite(jump(networks, params, *inputs))


class Place(NamedTuple):
    """Where a new node of each tree comes: an edge of a node."""

    state: Array  # [B, ...] of the node
    actions: Array | None  # [B, K] int32, of the node's edges, see `candidates`
    macro: Array | None  # [B, L] int32, of the node's macro; None: the search has none
    edge: Array  # [B] int32
    from_chance: Array  # [B] bool, the node is a chance node
    mover: Any = None  # [B] int32, of more than two players: who moves at the node, see `Nodes`


def _choose_jumps(
    networks: Networks,
    config: Config,
    edges: Edges,
    params: Params,
    place: Place,
    action: Array,
    may_collapse: Array,
) -> tuple[Array, Array, Array]:
    """Which edges are jumps `[B]`, of which actions `[B, L]`, and their discounts `[B]`."""
    settings, gamma = config.search, config.learner.gamma
    alone = jnp.full((len(action), config.network.jump_length - 1), -1, jnp.int32)
    sequence, leaps = jnp.column_stack([action, alone]), jnp.zeros_like(may_collapse)
    discount = jnp.full(action.shape, gamma, jnp.float32)
    if settings.jump_collapses:
        leaps = foretold_certain(networks, params, place.state, action) & may_collapse
    if place.macro is not None:
        by_macro = place.edge == edges.num_actions
        sequence = jnp.where(by_macro[:, None], place.macro, sequence)
        length = jnp.sum(place.macro >= 0, axis=1).astype(jnp.float32)
        leaps, discount = leaps | by_macro, jnp.where(by_macro, gamma**length, discount)
    return leaps, sequence, discount


def _no_step(afterstate: Afterstate, options: int, of_all: Array | None) -> Step:
    """What stands in rows that take no step of chance: the afterstate as it is."""
    zeros = jnp.zeros_like(afterstate.value)
    no_options = jnp.zeros((len(zeros), options), jnp.float32)
    turn = None if of_all is None else jnp.zeros(zeros.shape, jnp.int32)
    worth = afterstate.value, zeros, zeros, afterstate.values, of_all, turn
    return Step(afterstate.state, no_options, *worth)


def _draw(
    choices: EdgeActions, control: Control, rng_key: Array, policy_logits: Array, needed: Array
) -> Candidates:
    """The edges of new decision nodes; of drawn ones those of rows `needed [B]` alone.

    All rows often meet a chance node at once, which has no candidates: then nothing is drawn.
    """
    if not choices.is_sampled:
        return choices.of_node(rng_key, policy_logits)

    def compute() -> Candidates:
        found = choices.of_node(rng_key, policy_logits)
        return jax.tree.map(lambda x: jnp.where(needed[:, None], x, 0), found)

    shapes = jax.eval_shape(compute)
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return control.branch(jnp.any(needed), compute, lambda: none)


class Worth(NamedTuple):
    """What a new node is worth, and to whom; see `NewNode`."""

    value: Array  # [B] or [B, P]
    reward: Array  # [B] or [B, P]
    discount: Array  # [B]
    mover: Array | None  # [B] int32


def _worth_of_all(step: Step, to_decision: Array, discount: Array, mover: Array | None) -> Worth:
    """The step as a node has it: the mover's numbers, of more than two players all by seat.

    `to_decision [B]`: a decision node follows, else a chance node, which is of who moved.
    """
    discount = jnp.where(to_decision, discount, 1.0)
    if mover is None:
        return Worth(step.value, step.reward, discount, None)
    after = jnp.where(to_decision, (mover + step.turn) % step.values.shape[-1], mover)
    values, rewards = by_seat(step.values, after), by_seat(step.rewards, mover)
    return Worth(values, rewards, jnp.abs(discount), after)


def make_expand(networks: Networks, config: Config, choices: EdgeActions) -> Callable[..., NewNode]:
    """The evaluation of one edge per row.

    From a decision node an action leads to a chance node. Where its normalised H(sigma) is strictly
    below `search.collapse_threshold` (0: never), and the row may collapse, the same call continues
    through the most likely outcome to the next decision node. With `search.jump_collapses` a jump
    of one action does that where it is foretold that it is certain; the edge of a macro is always
    a jump.

    Returns:
        `(params, rng_key, Place, needed [B], may_collapse [B]) -> NewNode`; rows that are not
        needed hold nothing of meaning. The key, of the new node's actions, is consumed.
    """
    settings, edges = config.search, Edges(choices.count, int(config.search.macros))
    choose_jumps = functools.partial(_choose_jumps, networks, config, edges)
    threshold, gamma = settings.collapse_threshold, config.learner.gamma
    control = make_control(settings)
    run = functools.partial(on_rows, row_multiple=settings.row_multiple, control=control)

    def expand(
        params: Params, rng_key: Array, place: Place, needed: Array, may_collapse: Array
    ) -> NewNode:
        state, known, macro, edge, from_chance, mover = place

        def to_afterstate(inputs: tuple[Array, Array]) -> tuple[Afterstate, Array]:
            return finite(decide(networks, params, *inputs))

        action = choices.actions_at(known, edge)
        shapes = jax.eval_shape(to_afterstate, (state, action))[0]
        num_outcomes = shapes.logits.shape[-1]
        zeros, no_faults = jnp.zeros(edge.shape, jnp.float32), jnp.zeros_like(edge)
        no_outcomes = jnp.zeros((*edge.shape, num_outcomes), jnp.float32)
        of_all = None if mover is None else jnp.zeros(shapes.values.shape, jnp.float32)
        nothing = Afterstate(state, no_outcomes, zeros, of_all), no_faults
        from_decision, leaps, discount = needed & ~from_chance, None, gamma
        if settings.jump_collapses or settings.macros:
            leaps, sequence, discount = choose_jumps(params, place, action, may_collapse)
            leaps, from_decision = leaps & from_decision, from_decision & ~leaps
        afterstate, faults = run(to_afterstate, from_decision, (state, action), nothing)
        # Of a chance node, or of the edge of a collapsed one.
        entropy = jnp.where(from_chance, 0.0, afterstate.entropy)
        collapsed = from_decision & may_collapse & (entropy < threshold)
        outcome = edge - edges.first_outcome
        if threshold > 0:
            outcome = jnp.where(collapsed, afterstate.likely, outcome)
        to_decision = from_chance | collapsed
        nothing = _no_step(afterstate, sum(choices.space.sizes), of_all), no_faults
        reached = afterstate.state, outcome
        to_state = functools.partial(_state_after, networks, params, num_outcomes)
        step, more_faults = run(to_state, needed & to_decision, reached, nothing)
        if leaps is not None:
            to_end = functools.partial(_end_of_jump, networks, params)
            step, more_faults = run(to_end, leaps, (state, sequence), (step, more_faults))
            to_decision, entropy = to_decision | leaps, jnp.where(leaps, LEAPT, entropy)
        macro, gain = None, None
        if settings.macros:
            none = jnp.full((len(edge), config.network.jump_length), -1, jnp.int32), zeros
            best = functools.partial(best_macro, networks, params)
            macro, gain = run(best, needed & to_decision, step.state, none)
        at_decision = needed & to_decision
        candidates = _draw(choices, control, rng_key, step.policy_logits, at_decision)
        prior_logits = jnp.where(
            to_decision[:, None],
            edges.of_decision(candidates.logits, num_outcomes),
            edges.of_chance(afterstate.logits),
        )
        worth = _worth_of_all(step, to_decision, discount * step.discount, mover)
        return NewNode(
            **worth._asdict(),
            prior_logits=prior_logits,
            is_chance=~to_decision,
            entropy=entropy,
            faults=faults + more_faults,
            state=step.state,
            actions=candidates.actions,
            macro=macro,
            gain=gain,
        )

    return expand
