"""Slots of the precondition head and the counts of its quality, against plain-Python twins."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from smz_jax.config.check import ConfigError
from smz_jax.config.training import MacroConfig
from smz_jax.macros.judge.evidence import CANDIDATE, REFUTED, SOUND
from smz_jax.macros.mine.table import init_table
from smz_jax.macros.precondition.quality import (
    calibration_error,
    count,
    fit_temperature,
    forget,
    init_tally,
    quality,
    slot_entries,
)
from smz_jax.macros.precondition.slots import MacroSlots, assign_slots, init_slots, slot_targets
from tests.macros import test_evidence as evidence
from tests.macros.test_evidence import CONFIG, A, B, K, random_trials

SLOTS, ENTRIES = 5, 12
SMALL = dataclasses.replace(CONFIG, slots=SLOTS, capacity=ENTRIES, max_length=3)
L = SMALL.max_length


def padded(sequences, size):
    rows = np.full((size, L), -1, np.int32)
    for row, actions in zip(rows, sequences, strict=False):
        row[: len(actions)] = actions
    return rows


def owners_of(slots):
    lengths = np.asarray(slots.length)
    np.testing.assert_array_equal(lengths, (np.asarray(slots.actions) >= 0).sum(axis=1))
    return [tuple(int(a) for a in row if a >= 0) for row in np.asarray(slots.actions)]


def twin_assign(owners, entries):
    """Owners after it; entries are (actions, count, status) in the order of the table."""
    macros = {e[0]: e for e in entries if e[0] and e[1] >= 2 and e[2] != REFUTED}

    def rank(entry):
        owned = entry[0] in owners
        kind = (0 if owned else 1) if entry[2] == SOUND else (2 if owned else 3)
        return kind, -entry[1], entries.index(entry)

    chosen = [entry[0] for entry in sorted(macros.values(), key=rank)[:SLOTS]]
    newcomers = [actions for actions in chosen if actions not in owners]
    kept = [owner if owner in chosen else () for owner in owners]
    return [owner if owner else (newcomers.pop(0) if newcomers else ()) for owner in kept]


def test_owners_are_those_of_the_twin_over_many_passes():
    """Tables whose macros come, go, are refuted and become sound, from few sequences."""
    step = jax.jit(lambda slots, table, states: assign_slots(slots, table, states, SMALL))
    sequence = st.lists(st.integers(0, 1), min_size=2, max_size=L).map(tuple)
    entry = st.tuples(
        sequence, st.integers(1, 5), st.sampled_from((CANDIDATE, SOUND, REFUTED, CANDIDATE))
    )
    table = st.lists(entry, max_size=ENTRIES, unique_by=lambda e: e[0]).map(sorted)
    empty = init_table(SMALL, A)
    seen = set()

    @settings(max_examples=500, deadline=None, derandomize=True)
    @given(st.lists(table, min_size=1, max_size=4))
    def check(tables):
        slots, owners = init_slots(SMALL), [()] * SLOTS
        for entries in tables:
            filled = np.arange(ENTRIES) < len(entries)
            columns = [[e[i] for e in entries] + [0] * (ENTRIES - len(entries)) for i in (1, 2)]
            actions = padded([e[0] for e in entries], ENTRIES)
            full = empty._replace(
                actions=actions,
                length=np.where(filled, (actions >= 0).sum(axis=1), 0).astype(np.int32),
                count=np.array(columns[0], np.int32),
            )
            slots, changed = step(slots, full, np.array(columns[1], np.int32))
            expected = twin_assign(owners, entries)
            assert owners_of(slots) == expected
            assert changed.tolist() == [a != b for a, b in zip(owners, expected, strict=True)]
            seen.update(
                ("kept" if a == b else "lost" if not b else "gained" if not a else "taken over")
                for a, b in zip(owners, expected, strict=True)
                if a or b
            )
            owners = expected

    check()
    assert seen == {"kept", "lost", "gained", "taken over"}


def test_more_slots_than_entries():
    wide = dataclasses.replace(SMALL, slots=40, capacity=8)
    table = init_table(wide, A)._replace(
        actions=padded([(0, 1), (2, 2, 2)], 8),
        length=np.array([2, 3] + [0] * 6, np.int32),
        count=np.full(8, 9, np.int32),
    )
    slots, changed = assign_slots(init_slots(wide), table, jnp.zeros(8, jnp.int32), wide)
    owners = owners_of(slots)
    assert owners[:2] == [(0, 1), (2, 2, 2)] and not any(owners[2:])
    assert changed.tolist() == [True] * 2 + [False] * 38


@pytest.mark.parametrize("repeats", [True, False])
def test_targets_are_those_of_the_twin(repeats):
    """The same windows as those of the evidence, whose twin says what was tried and what held."""
    config = dataclasses.replace(CONFIG, include_repeats=repeats, slots=24)
    ask = jax.jit(lambda slots, trials, worth: slot_targets(slots, trials, worth, config))
    seen = set()

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32 - 1))
    def check(seed):
        rng = np.random.default_rng(seed)
        trials, worth = random_trials(rng), rng.random((B, K)) < 0.7
        # Owners that begin windows, one that is longer than any, and free slots.
        length = np.minimum(rng.integers(2, K + 1, 24), 4).astype(np.int32)
        length[20:] = 0
        actions = np.array(trials.action[:, :4])
        actions[np.arange(4) >= length[:, None]] = -1
        slots = MacroSlots(jnp.asarray(actions), jnp.asarray(length))
        asked, target = (np.asarray(x) for x in ask(slots, trials, worth))
        for b in range(B):
            for s in range(24):
                n, own = int(length[s]), tuple(int(a) for a in actions[s, : length[s]])
                window = evidence.judged(trials, b, n, config) if n > 0 else None
                known, certain, gates = window or ((), False, {})
                same = n > 0 and window is not None and own[: len(known)] == known
                repeated = len(known) == n and len(set(own)) == 1
                same = same and (repeats or not repeated)
                assert asked[b, s] == same, (b, s)
                whole = same and len(known) == n
                is_true = whole and certain and all(gates.values()) and worth[b, n - 1]
                assert target[b, s] == is_true, (b, s)
                seen.add((same, whole, is_true))

    check()
    assert seen == {(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)}


TALLY = MacroConfig(slots=3, num_buckets=4)


def random_batch(rng):
    shape = (20, 3)
    asked = rng.random(shape) < 0.6
    apart = rng.random((20, 1)) < 0.5
    logits = rng.normal(scale=3, size=shape).astype(np.float32)
    logits[rng.random(shape) < 0.05] = np.nan
    return {
        "logits": logits,
        "target": rng.random(shape) < 0.5,
        "trained": asked & ~apart,
        "held_out": asked & apart,
        "bucket": rng.integers(-1, 4, 20).astype(np.int32),
    }


def twin_count(tally, batch):
    """One batch in loops; predictions by bucket from the windows before it."""
    new = jax.tree.map(lambda x: np.array(x, np.float64), tally)
    for b, s in np.ndindex(batch["logits"].shape):
        logit, target, q = batch["logits"][b, s], batch["target"][b, s], batch["bucket"][b]
        if batch["trained"][b, s] and q >= 0:
            new.buckets[0, s, q] += 1
            new.buckets[1, s, q] += target
        if not batch["held_out"][b, s] or np.isnan(logit):
            continue
        n, p = tally.buckets[:, s, q] if q >= 0 else (0, 0)
        if n == 0:
            n, p = tally.buckets[:, s].sum(axis=-1)
        said = [logit >= 0, p > 0 and p / n >= 0.5]
        new.asked[s] += 1
        new.positive[s] += target
        new.predicted[:, s] += said
        new.hit[:, s] += np.array(said) & target
        clipped = min(max(logit, -8.0), 8.0)
        place = min(int((clipped + 8) * 4), 63)
        new.bins[:, place] += [not target, target, clipped]
    return new


def test_counts_are_those_of_the_twin():
    rng = np.random.default_rng(0)
    counted = jax.jit(lambda tally, batch: count(tally, **batch))
    tally = expected = init_tally(TALLY)
    for _ in range(20):
        batch = random_batch(rng)
        expected = twin_count(jax.device_get(expected), batch)
        tally = counted(tally, batch)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), tally, expected)
    changed = jnp.array([False, True, False])
    after = forget(tally, changed, 0.5)
    for name, value in after._asdict().items():
        whole = np.array(getattr(expected, name)) * 0.5
        if name != "bins":
            whole[1 if whole.ndim == 1 else (slice(None), 1)] = 0
        np.testing.assert_allclose(value, whole, rtol=1e-5)


def test_quality_by_hand():
    tally = init_tally(TALLY)._replace(
        asked=jnp.array([10.0, 5, 0]),
        positive=jnp.array([8.0, 0, 0]),
        predicted=jnp.array([[6.0, 2, 0], [10, 5, 0]]),
        hit=jnp.array([[6.0, 0, 0], [8, 0, 0]]),
    )
    slots = MacroSlots(jnp.array([[0, 1, -1], [2, 2, 2], [-1] * 3]), jnp.array([2, 3, 0]))
    found = {k: float(v) for k, v in quality(slots, tally).items()}
    assert found["precision"] == 0.75 and found["recall"] == 0.75 and found["windows"] == 15
    assert found["bucket_precision"] == pytest.approx(8 / 15) and found["bucket_recall"] == 1
    assert found["always_precision"] == pytest.approx(8 / 15) and found["owners"] == 2
    entries = slot_entries(slots, tally)
    assert list(entries) == [(0, 1), (2, 2, 2)]
    assert entries[0, 1] == {
        "slot": 0, "windows": 10, "precision": 1.0, "recall": 0.75, "always_precision": 0.8,
    }  # fmt: skip
    assert entries[2, 2, 2]["precision"] == 0.0 and entries[2, 2, 2]["recall"] is None
    nothing = quality(init_slots(TALLY), init_tally(TALLY))
    assert np.isnan([nothing[k] for k in ("precision", "recall", "ece", "always_precision")]).all()
    assert float(nothing["temperature"]) == 1


def test_temperature_and_error_of_overconfident_logits():
    """Logits 2.5 times too large: T undoes it. Against SciPy's minimum and the error in loops."""
    rng = np.random.default_rng(3)
    true = rng.uniform(-2, 2, 20_000)
    target = rng.random(20_000) < 1 / (1 + np.exp(-true))
    logits = (2.5 * true).astype(np.float32)
    batch = {
        "logits": logits[:, None],
        "target": target[:, None],
        "trained": np.zeros((20_000, 1), bool),
        "held_out": np.ones((20_000, 1), bool),
        "bucket": np.full(20_000, -1, np.int32),
    }
    bins = count(init_tally(dataclasses.replace(TALLY, slots=1)), **batch).bins

    def loss(temperature):
        z = logits / temperature
        return np.mean(np.logaddexp(0, np.where(target, -z, z)))

    best = minimize_scalar(loss, bounds=(0.2, 8), method="bounded").x
    temperature = float(fit_temperature(bins))
    assert temperature == pytest.approx(best, rel=0.03) and 2.3 < temperature < 2.7
    errors = []
    for t in (1.0, temperature):
        chance = 1 / (1 + np.exp(-logits / t))
        place = np.minimum((chance * 10).astype(int), 9)
        gaps = [abs((chance - target)[place == i].sum()) for i in range(10)]
        errors.append(sum(gaps) / len(target))
        assert float(calibration_error(bins, t)) == pytest.approx(errors[-1], abs=0.01)
    assert errors[0] > 0.1 and errors[1] < 0.02


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("slots", 0), ("head_size", 0), ("head_every", 0), ("value_delta", -1.0)),
        *(("head_learning_rate", -1e-3), ("head_learning_rate", 2.0)),
    ],
)
def test_settings_are_checked(field, value):
    with pytest.raises(ConfigError, match=rf"macro\.{field} = {value} is not allowed"):
        MacroConfig(**{field: value})
