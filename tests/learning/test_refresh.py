"""Targets made anew: which rows, from which observations, by which search; what stays as it was."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config import settings
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.config.experiment import Experiment
from smz_jax.learning import refresh as rf
from smz_jax.learning.replay import mean_target_age
from smz_jax.run.parts import make_parts
from smz_jax.run.state import fresh_state
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import TARGETS

RING, LENGTH, LANES, F = 40, 8, 4, 3


def make_config(*flags, root="gumbel"):
    base = {"env.suite": "grid", "env.id": "GridWorld", "env.max_episode_steps": 11}
    base |= {"env.kwargs": '{"map": "O~G/~S~/G~O"}', "env.frame_stack": F}
    base |= {"search.root": root, "search.interior": root, "network.family": "mlp"}
    argv = ["--preset", "tiny", "--replay.capacity", str(RING * LANES), "--replay.min_size", "64"]
    argv += ["--env.num_envs", str(LANES), "--rollout.length", str(LENGTH)]
    return parse([*argv, *flags], Experiment("gridworld", "grid", base)).config


class Played:
    """A few rollouts in a ring that wraps, and what the actor saw at each time."""

    def __init__(self, root):
        self.config = make_config(root=root)
        self.parts = make_parts(self.config, PhaseTimers())
        state = fresh_state(self.parts)
        self.params = state.train.params
        source, self.seen = self.parts.source, []
        self.rng_key, decide = source._pools[0].rng_key, source._decide
        source._watch = lambda *decisions: None

        def watched(params, key, count, observation, invalid, *rest):
            self.seen.append((np.array(observation), np.array(invalid)))
            return decide(params, key, count, observation, invalid, *rest)

        source._decide = watched
        self.rollouts = [source.next(self.params, jnp.int32(i)).rows for i in range(7)]
        source.close()
        self.rows = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *self.rollouts)

    def again(self, refresh_rows=0, rollouts=7):
        """The same play in a new ring, and settings of a refresh."""
        made, of = copy.copy(self), self.config.replay
        made.config = dataclasses.replace(
            self.config, replay=dataclasses.replace(of, refresh_rows=refresh_rows)
        )
        made.replay, made.count = self.parts.replay.init(), rollouts * LENGTH
        for rows in self.rollouts[:rollouts]:
            made.replay = self.parts.replay.add_donated(made.replay, rows)
        return made

    def block(self):
        return rf.make_refresh_block(self.parts.networks, self.config, self.parts.spec)

    def refresh(self):
        return rf.make_refresh(self.parts.networks, self.config, self.parts.spec)

    def in_ring(self, name, time):
        return np.asarray(getattr(self.replay.experience, name))[:, np.asarray(time) % RING]

    def forget(self):
        """Targets that no search gives."""
        rows = self.replay.experience
        rows = rows._replace(
            action_weights=jnp.full_like(rows.action_weights, 0.25),
            search_value=jnp.full_like(rows.search_value, 77.0),
            target_step=jnp.full_like(rows.target_step, -1),
        )
        self.replay = self.replay.replace(experience=rows)


@pytest.fixture(scope="module", params=["gumbel", "puct"])
def either(request):
    return Played(request.param)


@pytest.fixture(scope="module")
def gumbel():
    return Played("gumbel")


# --- order ---


def twin(cursor, oldest, newest, steps, block):
    """Row by row: those in the ring are listed, taken from the cursor, then from the start."""
    held, taken = list(range(oldest, newest)), []
    for _ in range(min(steps, len(held)) // block):
        ahead = [row for row in held if row >= cursor] if cursor >= oldest else held
        ahead = ahead if len(ahead) >= block else held
        taken.append(ahead[:block])
        cursor = ahead[block - 1] + 1
    return taken, cursor


@pytest.mark.parametrize(("steps", "block"), [(6, 2), (8, 8), (3, 1), (12, 4)])
def test_the_cursor_goes_from_the_oldest_row_to_the_newest_and_starts_over(steps, block):
    cursor, last = 0, {}
    for iteration in range(120):
        count = 5 * (iteration + 1)
        bounds = {"oldest": max(0, count - 31) + 2, "newest": count - 5}
        taken, after = twin(cursor, **bounds, steps=steps, block=block)
        starts, cursor = rf.sweep(cursor, **bounds, steps=steps, block=block)
        assert [[*range(x, x + block)] for x in starts] == taken and cursor == after
        last |= {row: iteration for rows in taken for row in rows}
        if count > 100:  # of a pass over the ring, and one for its ends
            passes = -(-31 // (steps // block * block)) + 2
            held = range(bounds["oldest"] + 5 * passes, bounds["newest"] - block - 5 * passes)
            assert all(last[row] >= iteration - passes for row in held)


def test_nothing_is_taken_before_there_are_rows():
    assert rf.sweep(0, oldest=2, newest=0, steps=8, block=4) == ([], 0)
    assert rf.sweep(0, oldest=2, newest=5, steps=8, block=4) == ([], 0)
    assert rf.sweep(0, oldest=2, newest=6, steps=8, block=4) == ([2], 6)


# --- observations ---


@pytest.mark.parametrize("size", [1, 4])
def test_observations_are_those_that_the_actor_saw(gumbel, size):
    played = gumbel.again()
    read = jax.jit(rf.read_flat, static_argnums=(2, 3))
    assert played.rows.is_first.sum() > 2 * LANES and played.count > RING
    wraps = 0
    for first in range(played.count - RING + F - 1, played.count - size + 1):
        observations, rows = read(played.replay, np.int32(first), size, played.parts.spec)
        wanted = np.stack([played.seen[t][0] for t in range(first, first + size)], axis=1)
        np.testing.assert_array_equal(observations, wanted.reshape(-1, *wanted.shape[2:]))
        time = slice(first, first + size)
        np.testing.assert_array_equal(rows.action, played.rows.action[:, time].ravel())
        wraps += first % RING + size > RING
    assert wraps == size - 1


# --- targets ---


def test_the_parameters_and_the_key_of_play_give_the_targets_of_play(either):
    """A block of one step has the batch of play, and so its noise."""
    played = either.again(refresh_rows=LANES)
    assert played.config.refresh_block == 1
    jitted = jax.jit(played.block(), donate_argnums=1)
    played.forget()
    oldest = played.count - RING
    times = [oldest + F - 1, -(-oldest // RING) * RING, played.count - 1]  # the second is row 0
    for time in times:
        key = jax.random.fold_in(played.rng_key, time)
        args = (key, np.int32(time), jnp.int32(123))
        played.replay, sums = jitted(played.params, played.replay, *args)
        assert sums["rows"] == LANES
        for name in ("action_weights", "search_value"):
            wanted = getattr(played.rows, name)[:, time]
            np.testing.assert_allclose(played.in_ring(name, time), wanted, rtol=1e-5, atol=1e-6)
        assert (played.in_ring("target_step", time) == 123).all()
    others = np.setdiff1d(np.arange(RING), np.array(times) % RING)
    assert (played.in_ring("search_value", others) == 77).all()
    assert (played.in_ring("target_step", others) == -1).all()


def test_what_an_iteration_refreshes_and_what_it_says(gumbel, monkeypatch):
    monkeypatch.setattr(settings, "REFRESH_ROOTS", 4 * LANES)
    played = gumbel.again(refresh_rows=8 * LANES)
    assert played.config.refresh_block == 4
    traces, make_search = [], rf.make_search

    def counted(*args):
        search = make_search(*args)
        return lambda *args: traces.append(1) or search(*args)

    monkeypatch.setattr(rf, "make_search", counted)
    refresh = played.refresh()
    frames = played.replay.experience.frame.unsafe_buffer_pointer()
    priorities = np.asarray(played.replay.sum_tree_state.nodes)
    # Other parameters than those of play: else nothing would change.
    params = jax.tree.map(lambda x: x * 1.3, played.params)
    # Of 56 times 16 to 55 are in the ring; 16 and 17 have no history, 48 was just played.
    cursor, wanted = 0, [[18, 22], [26, 30], [34, 38], [42, 18]]
    for iteration, firsts in enumerate(wanted):
        before = {name: getattr(played.replay.experience, name) for name in TARGETS}
        before = {name: np.array(x) for name, x in before.items()}
        step = jnp.int32(100 + iteration)
        played.replay, cursor, metrics, _ = refresh(
            params,
            played.replay,
            **{"cursor": cursor, "count": played.count, "iteration": iteration, "step": step},
        )
        times = np.concatenate([np.arange(first, first + 4) for first in firsts])
        assert cursor == firsts[-1] + 4
        after = {name: np.array(getattr(played.replay.experience, name)) for name in TARGETS}
        assert (after["target_step"][:, times % RING] == 100 + iteration).all()
        for name in TARGETS:  # the head, its history and all other rows are as they were
            rest = np.setdiff1d(np.arange(RING), times % RING)
            np.testing.assert_array_equal(after[name][:, rest], before[name][:, rest])
        old, new = (x["action_weights"][:, times % RING] for x in (before, after))
        logs = np.log(np.maximum(old, 1e-6)) - np.log(np.maximum(new, 1e-6))
        change = (after["search_value"] - before["search_value"])[:, times % RING].mean()
        assert metrics == {
            "replay/target_age": pytest.approx((100 + iteration - after["target_step"]).mean()),
            "refresh/rows": len(times) * LANES,
            "refresh/policy_changed": pytest.approx((old.argmax(-1) != new.argmax(-1)).mean()),
            "refresh/policy_kl": pytest.approx((old * logs).sum(-1).mean(), rel=1e-4),
            "refresh/value_change": pytest.approx(change, rel=1e-3, abs=1e-6),
        }
        assert abs(change) > 1e-6 and metrics["refresh/policy_kl"] > 1e-6
    assert len(traces) == 1
    assert played.replay.experience.frame.unsafe_buffer_pointer() == frames
    np.testing.assert_array_equal(played.replay.sum_tree_state.nodes, priorities)


def test_a_search_with_faults_or_without_a_valid_action_changes_nothing(gumbel):
    played = gumbel.again(refresh_rows=LANES)
    played.forget()
    time, jitted = played.count - 2, jax.jit(played.block())
    args = (jax.random.key(0), np.int32(time), jnp.int32(5))
    broken = jax.tree.map(lambda x: x * jnp.nan, played.params)
    state, sums = jitted(broken, played.replay, *args)
    assert {name: float(x) for name, x in sums.items()} == dict.fromkeys(sums, 0.0)
    for name in TARGETS:
        kept = getattr(state.experience, name)
        np.testing.assert_array_equal(kept, getattr(played.replay.experience, name))
    rows = played.replay.experience
    mask = rows.invalid_actions.at[1, time % RING].set(1)
    state = played.replay.replace(experience=rows._replace(invalid_actions=mask))
    state, sums = jitted(played.params, state, *args)
    assert sums["rows"] == LANES - 1
    made = np.asarray(state.experience.target_step)[:, time % RING]
    assert made.tolist() == [5, -1, 5, 5]


def test_the_age_counts_the_rows_that_are_there(gumbel):
    played = gumbel.again(rollouts=3)
    assert played.count == 24 < RING
    wanted = np.repeat([50 - 0, 50 - 1, 50 - 2], LENGTH).mean()
    assert float(mean_target_age(played.replay, jnp.int32(50))) == pytest.approx(wanted)
    found = played.refresh()(
        *(played.params, played.replay),
        **{"cursor": 9, "count": 24, "iteration": 3, "step": jnp.int32(50)},
    )
    assert found.cursor == 9 and found.metrics == {"replay/target_age": pytest.approx(wanted)}


# --- settings ---


def test_steps_and_blocks_of_a_refresh():
    """Four lanes, a ring of 40 rows, 30 of which may be refreshed."""
    config = make_config()
    sizes = {0: (0, 1), 1: (1, 1), 4: (1, 1), 5: (2, 2), 28: (7, 7), 140: (60, 30), 164: (60, 30)}
    for rows, wanted in sizes.items():
        of = dataclasses.replace(config.replay, refresh_rows=rows)
        found = dataclasses.replace(config, replay=of)
        assert (found.refresh_steps, found.refresh_block) == wanted
    wide = dataclasses.replace(config.replay, refresh_rows=300, capacity=10_000)
    found = dataclasses.replace(config, replay=wide)
    assert (found.refresh_steps, found.refresh_block) == (96, 32)  # of 75 rows; 128 roots a search
    prior = dataclasses.replace(config.rollout, policy="prior")
    assert dataclasses.replace(found, rollout=prior).refresh_steps == 0
    with pytest.raises(ConfigError, match=r"replay.refresh_rows = -4 is not allowed: it must be "):
        make_config("--replay.refresh_rows", "-4")
