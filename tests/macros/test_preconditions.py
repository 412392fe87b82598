"""The precondition head: what it learns, from which windows, and that the model is none the wiser.

The toy is the grid world with its exact rules as the model: where a macro applies is then known.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.training import MacroConfig
from smz_jax.learning import learner
from smz_jax.macros.judge.evidence import SOUND, count_trials, outcomes
from smz_jax.macros.judge.trials import make_replayed
from smz_jax.macros.mine.buckets import BucketState
from smz_jax.macros.mine.table import EVIDENCE, init_table
from smz_jax.macros.precondition.network import OUTPUT, PreconditionHead
from smz_jax.macros.precondition.quality import quality
from smz_jax.macros.precondition.updates import (
    Known,
    applies,
    assign_owners,
    held_out,
    init_head,
    make_head_update,
    model_part,
    play_weights,
    settle,
    uncertain,
    worth_it,
)
from smz_jax.types import ReplaySample
from tests.analysis import test_grid_check as grid
from tests.learning import test_learner as toy

LANES, ROWS, W, BATCH, DELTA = 64, 200, 5, 128, 0.03
MACRO = MacroConfig(
    max_length=3, capacity=64, slots=24, num_buckets=grid.STATES, value_delta=DELTA, head_size=32,
    head_learning_rate=1e-2, min_occurrences=2,
)  # fmt: skip
SEQUENCES = [(a, b) for a in range(4) for b in range(4)] + [
    (1, 1, 2), (2, 2, 1), (1, 2, 1), (2, 1, 1), (0, 0, 0), (3, 1, 2), (2, 2, 2), (0, 1, 2)
]  # fmt: skip
KEY = jax.random.key(0)


def table_of(sequences, config):
    """A table of these macros, in order, with 9 of 10 trials held."""
    size = len(sequences)
    actions = np.full((config.capacity, config.max_length), -1, np.int32)
    for row, sequence in zip(actions, sorted(sequences), strict=False):
        row[: len(sequence)] = sequence
    filled = np.arange(config.capacity) < size
    return init_table(config, 4)._replace(
        actions=jnp.asarray(actions),
        length=jnp.asarray((actions >= 0).sum(axis=1), jnp.int32),
        count=jnp.asarray(np.where(filled, 10, 0), jnp.int32),
        trials=jnp.asarray(np.where(filled, 10, 0), jnp.float32),
        held=jnp.asarray(np.where(filled, 9, 0), jnp.float32),
    )


# --- the toy: what it learns ----------------------------------------------------------------------


def truth(state, sequence):
    """Whether a sequence is certain from a state and worth as much as the best; None: it ends."""
    gamma, rules, gained = grid.CONFIG.learner.gamma, grid.RULES, 0.0
    first, certain = state, True
    for step, action in enumerate(sequence):
        if rules.terminal[state]:
            return None
        chances = rules.probability[state, action]
        certain &= chances.max() > 1 - 1e-9
        likely = chances.argmax()
        gained += gamma**step * rules.reward[state, action, likely]
        state = rules.next_state[state, action, likely]
    after = 0.0 if rules.terminal[state] else gamma ** len(sequence) * grid.VALUES[state]
    return bool(certain and gained + after >= grid.VALUES[first] - DELTA)


@functools.cache
def played():
    """Rows of random play with rewards and ends, and the states that they are of."""
    rows, states = grid.played_rows(lanes=LANES, length=ROWS, seed=4)
    before, after, action = states[:, :-1], states[:, 1:], rows.action[:, :-1]
    slot = np.argmax(grid.RULES.next_state[before, action] == after[..., None], axis=-1)
    reward = grid.RULES.reward[before, action, slot]
    ends = grid.RULES.terminal[after] & ~grid.RULES.terminal[before]
    last = ((0, 0), (0, 1))
    return rows._replace(
        frame=rows.frame.astype(np.float32),
        reward=np.pad(reward, last).astype(np.float32),
        discount=np.pad(1.0 - ends, last).astype(np.float32),
    ), states


def draw(rng):
    """A batch of windows as the replay gives it."""
    rows, _ = played()
    lane, start = rng.integers(0, LANES, BATCH), rng.integers(0, ROWS - W, BATCH)
    picked = jax.tree.map(lambda x: x[lane[:, None], start[:, None] + np.arange(W)], rows)
    index = (lane * ROWS + start).astype(np.int32)
    return ReplaySample(picked, jnp.asarray(index), jnp.ones(BATCH, jnp.float32))


@functools.cache
def toy_update():
    config = dataclasses.replace(
        grid.CONFIG, macro=MACRO, loss=dataclasses.replace(grid.CONFIG.loss, consistency=0.0)
    )
    spec = type("Spec", (), {"context": 1, "is_marked": False})
    return jax.jit(make_head_update(grid.exact_networks(), config, spec))  # type: ignore[arg-type]


@functools.cache
def assign(macro=MACRO):
    return jax.jit(lambda head, table, states: assign_owners(head, table, states, macro))


ALL_SOUND = jnp.full(MACRO.capacity, SOUND, jnp.int32)


@functools.cache
def fresh_head():
    head = init_head(MACRO, (grid.STATES,), KEY)
    return assign()(head, table_of(SEQUENCES, MACRO), ALL_SOUND)


KNOWN = Known(
    table_of(SEQUENCES, MACRO).actions,
    jnp.zeros(MACRO.capacity, jnp.int32),
    BucketState(jnp.eye(grid.STATES), jnp.zeros(grid.STATES), jnp.float32(1)),
)
"""A bucket for each state: the best that this baseline can be."""


def test_the_head_learns_where_macros_apply():
    head, rng = fresh_head(), np.random.default_rng(0)
    for step in range(500):
        head = toy_update()(head, grid.PARAMS, draw(rng), KNOWN)
        if step == 250:  # what was counted of the beginner is dropped
            head = head._replace(tally=jax.tree.map(jnp.zeros_like, head.tally))
    _, states = played()
    seen = [s for s in np.unique(states[:, :-W]) if not grid.RULES.terminal[s]]
    chance = np.asarray(applies(head, MACRO, jnp.eye(grid.STATES)[np.array(seen)]))
    owners = [tuple(int(a) for a in row if a >= 0) for row in np.asarray(head.slots.actions)]
    assert sorted(owners) == sorted(SEQUENCES)
    pairs = [
        (chance[i, j] >= 0.5, true)
        for i, state in enumerate(seen)
        for j, owner in enumerate(owners)
        if (true := truth(state, owner)) is not None
    ]
    said, true = np.array(pairs).T
    assert true.sum() >= 10 and (~true).sum() >= 100
    assert (said & true).sum() / said.sum() > 0.95 and (said & true).sum() / true.sum() > 0.95
    found = {name: float(x) for name, x in quality(head.slots, head.tally).items()}
    assert found["precision"] > 0.95 and found["recall"] > 0.95 and found["ece"] < 0.05
    assert found["bucket_precision"] > 0.95 and found["always_precision"] < 0.8
    assert found["windows"] > 500


def test_certain_from_here_is_what_the_rules_say():
    judge = functools.partial(uncertain, grid.exact_networks(), grid.CONFIG.macro)
    state, index = (x.ravel() for x in np.indices((grid.STATES, len(SEQUENCES))))
    actions = np.array([(*SEQUENCES[i], -1)[:3] for i in index], np.int32)
    roots = jnp.eye(grid.STATES)[state]
    found = np.asarray(jax.jit(judge)(grid.PARAMS, roots, jnp.asarray(actions)))
    kinds = []
    for first, row, answer in zip(state, actions, found, strict=True):
        at, sure = first, True
        for action in row[row >= 0]:
            if grid.RULES.terminal[at]:
                break
            chances = grid.RULES.probability[at, action]
            sure &= chances.max() == 1
            at = grid.RULES.next_state[at, action, chances.argmax()]
        else:
            assert answer == (not sure), (first, row)
            kinds.append(sure)
    assert 20 < sum(kinds) < len(kinds) - 20


def test_windows_held_out_are_counted_and_not_learned_from():
    head, rng = fresh_head(), np.random.default_rng(1)
    sample = draw(rng)
    apart = np.flatnonzero(held_out(sample, 0))
    assert 1 <= len(apart) < BATCH
    again = jax.tree.map(lambda x: x[np.resize(apart, BATCH)], sample)
    after = toy_update()(head, grid.PARAMS, again, KNOWN)
    jax.tree.map(np.testing.assert_array_equal, after.params, head.params)
    assert after.tally.asked.sum() > 0 and not np.asarray(after.tally.buckets).any()
    rest = np.setdiff1d(np.arange(BATCH), apart)
    others = jax.tree.map(lambda x: x[np.resize(rest, BATCH)], sample)
    after = toy_update()(head, grid.PARAMS, others, KNOWN)
    assert after.tally.asked.sum() == 0 and np.asarray(after.tally.buckets).any()
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), after.params, head.params)
    assert max(jax.tree.leaves(moved)) > 1e-3


def test_what_is_not_finite_is_not_learned():
    head = fresh_head()
    sample = draw(np.random.default_rng(2))
    broken = sample.rows._replace(frame=sample.rows.frame * np.float32(np.nan))
    after = toy_update()(head, grid.PARAMS, sample._replace(rows=broken), KNOWN)
    jax.tree.map(np.testing.assert_array_equal, after.params, head.params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after.tally, after.opt_state)))


def test_an_eighth_is_held_out_in_blocks():
    indices = jnp.arange(80_000, dtype=jnp.int32)
    rows = played()[0]._replace(search_value=np.zeros((80_000, 2), np.float32))
    apart = np.asarray(held_out(ReplaySample(rows, indices, None), 1))  # type: ignore[arg-type]
    assert apart.mean() == pytest.approx(1 / 8, abs=0.02)
    blocks = apart.reshape(-1, 32)
    assert (blocks.all(axis=1) == blocks.any(axis=1)).all()
    values = np.random.default_rng(0).normal(size=(80_000, 2)).astype(np.float32)
    sample = ReplaySample(rows._replace(search_value=values), None, None)  # type: ignore[arg-type]
    by_value = np.asarray(held_out(sample, 1))
    assert by_value.mean() == pytest.approx(1 / 8, abs=0.01)
    order = np.random.default_rng(1).permutation(80_000)
    shuffled = sample._replace(rows=rows._replace(search_value=values[order]))
    np.testing.assert_array_equal(held_out(shuffled, 1), by_value[order])


def test_worth_by_hand():
    rows = played()[0]._replace(
        reward=np.array([[9, 0, 1, 0], [9, 0, -1, 0], [9, 0, 0, 0]], np.float32),
        discount=np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 1]], np.float32),
    )
    values = jnp.array([[2.0, 2.0, 2.0], [2.0, 2.0, 1.0], [2.0, 2.0, 9.0]])  # [K+1, B]
    # After one step 0.5 * 2, 0.5 * 2 and 0.5 * 1; after two 0.5 * r + 0.25 * v, or 0 at an end: 1,
    # 0 and 0. The best action is worth 2.
    found = worth_it(rows, values, history=1, gamma=0.5, delta=1.0)
    np.testing.assert_array_equal(found, [[True, True], [True, False], [False, False]])
    found = worth_it(rows, values, history=1, gamma=0.5, delta=1.6)
    np.testing.assert_array_equal(found, [[True, True], [True, False], [True, False]])


def test_worth_of_three_players_by_hand():
    """Who moves at the root (seat 1, then 2, then 0) reads its own entry of each state's values."""
    rows = played()[0]._replace(
        reward=np.zeros((1, 4), np.float32),
        discount=np.array([[1, -1, -1, 1]], np.float32),
        player=np.array([[0, 1, 2, 0]], np.int32),
    )
    values = jnp.array([[[2.0, -1, -1]], [[1.0, -0.5, -0.5]], [[-3.0, 4.0, -1.0]]])  # [K+1, B, P]
    # To seat 1 the states are worth 2, -0.5 (the last entry from seat 2 on) and 4 (the second one
    # from seat 0 on): after one step 0.5 * -0.5, after two 0.25 * 4.
    found = [
        worth_it(rows, values, history=1, gamma=0.5, delta=delta).tolist()
        for delta in (0.9, 1.1, 2.2, 2.3)
    ]
    assert found == [[[False, False]], [[False, True]], [[False, True]], [[True, True]]]


# --- owners that change ---------------------------------------------------------------------------


def test_a_new_owner_begins_anew_and_the_others_go_on():
    head = toy_update()(fresh_head(), grid.PARAMS, draw(np.random.default_rng(3)), KNOWN)
    left = [s for s in SEQUENCES if s not in ((0, 0), (1, 2))]
    after = assign()(head, table_of([*left, (3, 3, 3)], MACRO), ALL_SOUND)
    differs = np.any(np.asarray(after.slots.actions) != np.asarray(head.slots.actions), axis=1)
    assert differs.sum() == 2
    before_output, output = (x.params["params"][OUTPUT] for x in (head, after))
    assert not np.asarray(output["kernel"])[:, differs].any()
    taken = np.asarray(after.slots.length) > 0
    log_odds = np.where(taken, np.log(10 / 2), 0)[differs]  # 9 of 10 held, and one more of each
    np.testing.assert_allclose(np.asarray(output["bias"])[differs], log_odds, rtol=1e-6)
    for moment in ("mu", "nu"):
        old, new = (getattr(x.opt_state[0], moment)["params"] for x in (head, after))
        for name in ("kernel", "bias"):
            assert not np.asarray(new[OUTPUT][name])[..., differs].any()
            kept = [np.asarray(x[OUTPUT][name])[..., ~differs] for x in (old, new)]
            np.testing.assert_array_equal(*kept)
            assert kept[0].any()
    for name in ("kernel", "bias"):
        kept = [np.asarray(x[name])[..., ~differs] for x in (before_output, output)]
        np.testing.assert_array_equal(*kept)
    counts = np.asarray(after.tally.buckets)
    assert not counts[:, differs].any()
    np.testing.assert_allclose(
        counts[:, ~differs],
        np.asarray(head.tally.buckets)[:, ~differs] * MACRO.evidence_decay,
        rtol=1e-6,
    )
    free = ~taken
    assert (
        free.sum() == 1
        and not np.asarray(applies(after, MACRO, jnp.eye(grid.STATES)))[:, free].any()
    )


# --- the model knows nothing of it ----------------------------------------------------------------


def test_no_gradient_passes_out_of_the_head():
    head = PreconditionHead(MACRO)
    params = jax.tree.map(lambda x: x + 0.1, jax.jit(head.init)(KEY, jnp.zeros((1, 5, 5, 3))))

    def total(params, embedding):
        return jnp.sum(head.apply(params, embedding) ** 2)

    embedding = jax.random.normal(KEY, (4, 5, 5, 3))
    of_params, of_embedding = jax.jit(jax.grad(total, argnums=(0, 1)))(params, embedding)
    assert not np.asarray(of_embedding).any()
    assert all(np.asarray(x).any() for x in jax.tree.leaves(of_params))


def test_the_model_learns_the_same_with_and_without_it():
    config, networks, _ = toy.parts(1)
    macro = dataclasses.replace(MACRO, head_every=2, play_threshold=1.0, distance_threshold=1.0)
    config = dataclasses.replace(config, macro=macro)
    step = learner.TrainStep(networks, toy.stub_replay(), config, toy.SPEC)
    head = init_head(macro, (8,), KEY)
    sequences = [(a, b) for a in range(3) for b in range(3)]
    head = assign()(head, table_of(sequences, macro), ALL_SOUND)
    plain = toy.start_state(step=20)
    learned = jax.tree.map(jnp.copy, plain)._replace(head=head)
    buckets = BucketState(jnp.ones((8, grid.STATES)), jnp.zeros(8), jnp.float32(1))
    table = table_of(sequences, macro)
    known = Known(table.actions, table.play_count, buckets)
    memory = toy.fresh_memory(toy.golden_rows())
    for number in range(4):
        before = learned.head
        (plain, ours, numbers), (learned, theirs, same) = (
            step(*jax.tree.map(jnp.copy, (state, memory, known))) for state in (plain, learned)
        )
        # Two programs: XLA may round their sums differently.
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7)
        model = (plain, ours, numbers), (learned._replace(head=None), theirs, same)
        jax.tree.map(close, *(toy.plain(x) for x in model))
        plain = learned._replace(head=None)
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, learned.head.params)
        assert int(learned.head.updates) == number // 2 + 1
        assert any(jax.tree.leaves(moved)) == (number % 2 == 0)


def test_weights_of_play():
    """Of (1 / (N p))^0.5 over its maximum; probabilities 1, 4 and 16 times the least."""
    found = play_weights(jnp.array([1.0, 0.5, 0.25]), 0.5)
    np.testing.assert_allclose(found, np.array([16, 4, 1]) / 7, rtol=1e-6)
    np.testing.assert_allclose(play_weights(jnp.ones(3), 0.0), 1)


# --- evidence for the table -----------------------------------------------------------------------


@pytest.mark.parametrize("rate", [MACRO.head_learning_rate, 0.0])
def test_an_iterations_batches_are_evidence_and_then_fade(rate):
    """Sums over the batches of an iteration, as `count_trials` has them; learned from or not."""
    macro = dataclasses.replace(MACRO, head_learning_rate=rate, evidence_decay=0.5)
    config = dataclasses.replace(
        grid.CONFIG, macro=macro, loss=dataclasses.replace(grid.CONFIG.loss, consistency=0.0)
    )
    spec = type("Spec", (), {"context": 1, "is_marked": False})
    networks = grid.exact_networks()
    update = jax.jit(make_head_update(networks, config, spec))  # type: ignore[arg-type]
    replayed = jax.jit(make_replayed(networks, config, spec))  # type: ignore[arg-type]
    end = jax.jit(lambda head, table: settle(head, table, macro))
    head, rng = init_head(macro, (grid.STATES,), KEY), np.random.default_rng(0)
    table = table_of(SEQUENCES, macro)._replace(trials=jnp.full(macro.capacity, 8.0))
    known = KNOWN._replace(actions=table.actions)
    for number in range(2):
        before, total = np.stack([getattr(table, name) for name in EVIDENCE]), 0.0
        for _ in range(3):
            sample = draw(rng)
            head = update(head, grid.PARAMS, sample, known)
            windows = outcomes(replayed(grid.PARAMS, sample.rows)[0], macro)
            weights = jnp.ones(BATCH, jnp.float32)
            total += np.asarray(count_trials(table.actions, known.played, windows, weights))
        assert total[0].sum() > 50 and int(head.updates) == (3 * number + 3) * (rate > 0)
        head, table = end(head, table)
        after = np.stack([getattr(table, name) for name in EVIDENCE])
        np.testing.assert_allclose(after, before * 0.5 + total, rtol=1e-6)
        assert not np.asarray(head.evidence).any()
        assert bool((head.slots.length > 0).any()) == (rate > 0)
    assert update(head, grid.PARAMS, draw(rng), None).evidence.sum() == 0
    assert (model_part(head, macro) is None) == (rate == 0)
