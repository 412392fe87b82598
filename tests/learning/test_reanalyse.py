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
from smz_jax.config.training import ReanalyseConfig
from smz_jax.learning import reanalyse as rf
from smz_jax.learning.replay import mean_target_age
from smz_jax.run.parts import make_parts
from smz_jax.run.state import fresh_state
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import TARGETS

RING, LENGTH, LANES, F = 40, 8, 4, 3
KEPT = [name for name in TARGETS if name != "values"]  # which only more than two players have


GRID = {"env.suite": "grid", "env.id": "GridWorld", "env.max_episode_steps": 11}
GRID |= {"env.kwargs": '{"map": "O~G/~S~/G~O"}', "env.frame_stack": F}


def make_config(*flags, root="gumbel", players=1):
    pig = {"env.suite": "turns", "env.id": "Pig", "env.kwargs": f'{{"players": {players}}}'}
    base = dict(GRID if players == 1 else pig)  # a copy: others read GRID too
    base |= {"search.root": root, "search.interior": root, "network.family": "mlp"}
    argv = ["--preset", "tiny", "--replay.capacity", str(RING * LANES), "--replay.min_size", "64"]
    argv += ["--env.num_envs", str(LANES), "--rollout.length", str(LENGTH)]
    family = "grid" if players == 1 else "pig"
    return parse([*argv, *flags], Experiment(family, family, base)).config


def of_settings(config, **settings):
    """With other settings of the section `reanalyse`; `rows` are those of an iteration."""
    if rows := settings.pop("rows", 0):
        settings["ratio"] = rows / (LANES * LENGTH)
    return dataclasses.replace(config, reanalyse=ReanalyseConfig(**settings))


class Played:
    """A few rollouts in a ring that wraps, and what the actor saw at each time."""

    def __init__(self, root, players=1):
        self.config = make_config(root=root, players=players)
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

    def again(self, rollouts=7, **settings):
        """The same play in a new ring, and settings of a reanalysis."""
        made = copy.copy(self)
        made.config = of_settings(self.config, **settings)
        made.replay, made.count = self.parts.replay.init(), rollouts * LENGTH
        for rows in self.rollouts[:rollouts]:
            made.replay = self.parts.replay.add_donated(made.replay, rows)
        return made

    def block(self):
        return rf.make_reanalyse_block(self.parts.networks, self.config, self.parts.spec)

    def reanalyse(self):
        return rf.make_reanalyse(self.parts.networks, self.config, self.parts.spec)

    def in_ring(self, name, time):
        return np.asarray(getattr(self.replay.experience, name))[:, np.asarray(time) % RING]

    def forget(self):
        """Targets that no search gives."""
        rows = self.replay.experience
        rows = rows._replace(
            action_weights=jnp.full_like(rows.action_weights, 0.25),
            search_value=jnp.full_like(rows.search_value, 77.0),
            search_spread=jnp.full_like(rows.search_spread, 77.0),
            target_step=jnp.full_like(rows.target_step, -1),
            values=None if rows.values is None else jnp.full_like(rows.values, 77.0),
        )
        self.replay = self.replay.replace(experience=rows)


@pytest.fixture(scope="module", params=["gumbel", "puct"])
def either(request):
    return Played(request.param)


@pytest.fixture(scope="module", params=[2, 3])
def in_turn(request):
    return Played("puct", request.param)


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


def test_blocks_are_drawn_by_priority_and_know_their_age(gumbel):
    """Windows from three times alone have a priority: their roots' blocks are drawn as often."""
    played = gumbel.again(rows=8, order="sampled")
    size, history, count = played.config.reanalyse_block, F - 1, played.count
    assert size == 2 and played.config.reanalyse_steps == 2
    buffer = played.parts.replay
    latest = count - (played.config.window_rows - history)  # the root of the newest window
    assert latest > count - LENGTH
    wanted = {count - RING + 3: 1.0, count - RING + 20: 3.0, latest: 4.0}  # by root
    items = np.arange(LANES * RING)
    low = buffer.set_priorities(played.replay, jnp.array(items), jnp.full(items.shape, 1e-3))
    for time, priority in wanted.items():
        places = (time - history) % RING + RING * np.arange(LANES)
        priorities = jnp.full(LANES, priority ** (1 / played.config.replay.priority_exponent))
        low = buffer.set_priorities(low, jnp.array(places), priorities)
    rows = low.experience
    rows = rows._replace(target_step=jnp.broadcast_to(jnp.arange(RING), rows.target_step.shape))
    draw = jax.jit(rf.make_draw(played.config, played.parts.spec))
    bounds = {"oldest": count - RING + history, "newest": count - LENGTH, "count": count}
    drawn = [
        draw(low.replace(experience=rows), jax.random.key(i), **bounds, step=jnp.int32(1000))
        for i in range(500)
    ]
    first, age = (np.concatenate(x) for x in zip(*drawn, strict=True))
    held = dict.fromkeys(wanted, 0)
    newest = bounds["newest"] - size  # where a draw of what was just played goes
    for at, old in zip(first, age, strict=True):
        assert bounds["oldest"] <= at <= newest
        assert old == np.mean([1000 - (at + i) % RING for i in range(size)])
        at = latest if at == newest else int(at)
        held[at] = held.get(at, 0) + 1
    shares = [held[time] / len(first) for time in wanted]
    # A priority of 1e-3 counts as its power, 0.016, and there are 28 of them that can be drawn.
    np.testing.assert_allclose(shares, np.array([1, 3, 4]) / 8.4, atol=0.04)


def test_the_oldest_of_the_blocks_that_were_drawn_are_searched(gumbel):
    first, age = np.array([7, 3, 9, 20, 4]), np.array([5.0, 9.0, 5.0, 1.0, 8.0])
    assert rf.oldest_apart(first, age, number=2, block=2) == [3, 7]  # 4 is next to 3
    assert rf.oldest_apart(first, age, number=9, block=2) == [3, 7, 9, 20]
    assert rf.oldest_apart(first, age, number=9, block=1) == [3, 4, 7, 9, 20]
    assert rf.oldest_apart(first, age, number=0, block=1) == []
    played = gumbel.again(rows=8, order="sampled")
    played.forget()
    at = {"cursor": 3, "count": played.count, "iteration": 4, "step": jnp.int32(50)}
    found = played.reanalyse()(played.params, played.replay, **at)
    assert found.cursor == 3 and found.metrics["reanalyse/rows"] == 2 * LANES
    made = np.asarray(found.replay.experience.target_step)
    assert ((made == 50).sum(axis=1) == 2).all()
    few = dict(at, count=LENGTH + 1)  # nothing but the rollout that was just played
    assert "reanalyse/rows" not in played.reanalyse()(played.params, found.replay, **few).metrics


def test_by_chance_as_many_blocks_on_average(gumbel):
    config = of_settings(gumbel.config, ratio=0.25, mode="chance")
    assert config.reanalyse_block == 2
    numbers = [rf.blocks_of(config, i) for i in range(2000)]
    assert np.mean(numbers) == pytest.approx(0.25 * LENGTH / 2, abs=0.06)
    assert {0, 1, 2, 3} <= set(numbers) <= set(range(5))
    uneven = of_settings(gumbel.config, ratio=0.6, mode="chance")
    assert LENGTH % uneven.reanalyse_block
    rows = [uneven.reanalyse_block * rf.blocks_of(uneven, i) for i in range(2000)]
    assert np.mean(rows) == pytest.approx(0.6 * LENGTH, abs=0.25)
    assert numbers[:9] == [rf.blocks_of(config, i) for i in range(9)]
    assert numbers != [rf.blocks_of(dataclasses.replace(config, seed=1), i) for i in range(2000)]
    assert rf.blocks_of(of_settings(gumbel.config, mode="chance"), 0) == 0
    assert rf.blocks_of(of_settings(gumbel.config, rows=16), 0) == 1


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


def check_targets_of_play(played, names):
    """A block of one step has the batch of play, and so its noise."""
    played, history = played.again(rows=LANES), played.parts.spec.context - 1
    assert played.config.reanalyse_block == 1
    jitted = jax.jit(played.block(), donate_argnums=1)
    played.forget()
    oldest = played.count - RING
    # The second is row 0.
    times = [oldest + history, -(-(oldest + 1) // RING) * RING, played.count - 1]
    for time in times:
        key = jax.random.fold_in(played.rng_key, time)
        args = (key, np.int32(time), jnp.int32(123))
        played.replay, sums = jitted(played.params, played.replay, *args)
        assert sums["rows"] == LANES
        for name in names:
            wanted = getattr(played.rows, name)[:, time]
            np.testing.assert_allclose(played.in_ring(name, time), wanted, rtol=1e-5, atol=1e-6)
        assert (played.in_ring("target_step", time) == 123).all()
    others = np.setdiff1d(np.arange(RING), np.array(times) % RING)
    assert (played.in_ring("search_value", others) == 77).all()
    assert (played.in_ring("target_step", others) == -1).all()


def test_the_parameters_and_the_key_of_play_give_the_targets_of_play(either):
    check_targets_of_play(either, ("action_weights", "search_value", "search_spread"))


def test_so_they_do_of_players_in_turn(in_turn):
    """Of each row's mover, and of three players all values."""
    rows, players = in_turn.rows, in_turn.parts.spec.players
    if players == 2:
        assert {-1.0, 1.0} <= set(np.unique(rows.discount))
        names = ("action_weights", "search_value")
    else:
        assert set(np.unique(rows.player)) == {0, 1, 2} and rows.values.std(axis=(0, 1)).min() > 0
        names = ("action_weights", "search_value", "values")
    check_targets_of_play(in_turn, names)


def test_what_an_iteration_reanalyses_and_what_it_says(gumbel, monkeypatch):
    monkeypatch.setattr(settings, "REANALYSE_ROOTS", 4 * LANES)
    played = gumbel.again(rows=8 * LANES)
    assert played.config.reanalyse_block == 4
    traces, make_search = [], rf.make_search

    def counted(*args):
        search = make_search(*args)
        return lambda *args: traces.append(1) or search(*args)

    monkeypatch.setattr(rf, "make_search", counted)
    reanalyse = played.reanalyse()
    frames = played.replay.experience.frame.unsafe_buffer_pointer()
    priorities = np.asarray(played.replay.sum_tree_state.nodes)
    # Other parameters than those of play: else nothing would change.
    params = jax.tree.map(lambda x: x * 1.3, played.params)
    # Of 56 times 16 to 55 are in the ring; 16 and 17 have no history, 48 was just played.
    cursor, wanted = 0, [[18, 22], [26, 30], [34, 38], [42, 18]]
    for iteration, firsts in enumerate(wanted):
        before = {name: getattr(played.replay.experience, name) for name in KEPT}
        before = {name: np.array(x) for name, x in before.items()}
        step = jnp.int32(100 + iteration)
        played.replay, cursor, metrics, _ = reanalyse(
            params,
            played.replay,
            **{"cursor": cursor, "count": played.count, "iteration": iteration, "step": step},
        )
        times = np.concatenate([np.arange(first, first + 4) for first in firsts])
        assert cursor == firsts[-1] + 4
        after = {name: np.array(getattr(played.replay.experience, name)) for name in KEPT}
        assert (after["target_step"][:, times % RING] == 100 + iteration).all()
        for name in KEPT:  # the head, its history and all other rows are as they were
            rest = np.setdiff1d(np.arange(RING), times % RING)
            np.testing.assert_array_equal(after[name][:, rest], before[name][:, rest])
        old, new = (x["action_weights"][:, times % RING] for x in (before, after))
        logs = np.log(np.maximum(old, 1e-6)) - np.log(np.maximum(new, 1e-6))
        change = (after["search_value"] - before["search_value"])[:, times % RING].mean()
        assert metrics == {
            "replay/target_age": pytest.approx((100 + iteration - after["target_step"]).mean()),
            "reanalyse/rows": len(times) * LANES,
            "reanalyse/policy_changed": pytest.approx((old.argmax(-1) != new.argmax(-1)).mean()),
            "reanalyse/policy_kl": pytest.approx((old * logs).sum(-1).mean(), rel=1e-4),
            "reanalyse/value_change": pytest.approx(change, rel=1e-3, abs=1e-6),
        }
        assert abs(change) > 1e-6 and metrics["reanalyse/policy_kl"] > 1e-6
    assert len(traces) == 1
    assert played.replay.experience.frame.unsafe_buffer_pointer() == frames
    np.testing.assert_array_equal(played.replay.sum_tree_state.nodes, priorities)


def test_a_search_with_faults_or_without_a_valid_action_changes_nothing(gumbel):
    played = gumbel.again(rows=LANES)
    played.forget()
    time, jitted = played.count - 2, jax.jit(played.block())
    args = (jax.random.key(0), np.int32(time), jnp.int32(5))
    broken = jax.tree.map(lambda x: x * jnp.nan, played.params)
    state, sums = jitted(broken, played.replay, *args)
    assert {name: float(x) for name, x in sums.items()} == dict.fromkeys(sums, 0.0)
    for name in KEPT:
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
    before, former = played.replay, jax.tree.map(np.array, played.replay)
    found = played.reanalyse()(
        *(played.params, before),
        **{"cursor": 9, "count": 24, "iteration": 3, "step": jnp.int32(50)},
    )
    assert found.cursor == 9 and found.metrics == {"replay/target_age": pytest.approx(wanted)}
    assert found.replay is before  # of ratio 0 it is a run without
    jax.tree.map(np.testing.assert_array_equal, found.replay, former)


# --- settings ---


def test_steps_and_blocks_of_an_iteration():
    """Four lanes, a ring of 40 rows, 30 of which may be reanalysed."""
    config = make_config()
    sizes = {0: (0, 1), 1: (1, 1), 4: (1, 1), 5: (2, 2), 28: (7, 7), 140: (60, 30), 164: (60, 30)}
    for rows, wanted in sizes.items():
        found = of_settings(config, rows=rows)
        assert (found.reanalyse_steps, found.reanalyse_block) == wanted
    wide = dataclasses.replace(config.replay, capacity=10_000)
    found = of_settings(dataclasses.replace(config, replay=wide), rows=300)
    assert (found.reanalyse_steps, found.reanalyse_block) == (96, 32)  # of 75, 128 at once
    prior = dataclasses.replace(config.rollout, policy="prior")
    assert dataclasses.replace(found, rollout=prior).reanalyse_steps == 0
    with pytest.raises(ConfigError, match=r"reanalyse.ratio = -4.0 is not allowed: it must be in "):
        make_config("--reanalyse.ratio", "-4")
    with pytest.raises(ConfigError, match=r"reanalyse.ratio = 2.0 is not .* at most 1 where rean"):
        make_config("--reanalyse.ratio", "2", "--reanalyse.mode", "chance")
    sampled = ("--reanalyse.order", "sampled", "--dataset", "d", "--learner.updates_per_env_step=1")
    with pytest.raises(ConfigError, match=r"reanalyse.order = 'sampled' .* sweep with a dataset"):
        make_config(*sampled)


def test_searches_have_their_own_number_of_simulations(gumbel, monkeypatch):
    seen = []
    monkeypatch.setattr(rf, "make_search", lambda _, config, __: seen.append(config.search))
    for wanted in (None, 3):
        gumbel.again(rows=LANES, num_simulations=wanted).block()
    own = gumbel.config.search
    assert seen == [own, dataclasses.replace(own, num_simulations=3)]
