"""Replay against brute force: contents, frequencies, weights, wrap-around, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config import settings as cfg
from smz_jax.config import training
from smz_jax.config.check import ConfigError
from smz_jax.config.kept import Kept
from smz_jax.learning import replay as rp
from smz_jax.learning.views import kept_ends, view_weights
from smz_jax.types import EnvSpec, Space, Trajectory

A = 3


def make_config(*, lanes=3, capacity=90, min_size=30, length=4, batch=16, stack=3, **replay):
    return cfg.Config(
        total_env_steps=10_000,
        env=cfg.EnvConfig(num_envs=lanes, frame_stack=stack),
        rollout=training.RolloutConfig(length=length),
        replay=training.ReplayConfig(capacity=capacity, min_size=min_size, **replay),
        learner=training.LearnerConfig(
            batch_size=batch, unroll_steps=2, td_steps=2, updates_per_env_step=1.0
        ),
    )


def make_spec(stack=3, frame_shape=(2, 2)):
    return EnvSpec("toy", frame_shape, stack, np.dtype(np.uint8), Space(A, ("a", "b", "c")), 1)


def rows_of(lanes, first, steps):
    """Rows whose reward is a unique id: 1000 * lane + time."""
    ids = (1000 * np.arange(lanes)[:, None] + np.arange(first, first + steps)).astype(np.float32)
    return Trajectory(
        frame=jnp.asarray(np.broadcast_to(ids[..., None, None] % 251, (*ids.shape, 2, 2)), "u1"),
        action=jnp.asarray(ids % A, jnp.int32),
        reward=jnp.asarray(ids),
        discount=jnp.ones(ids.shape, jnp.float32),
        is_first=jnp.zeros(ids.shape, bool),
        invalid_actions=jnp.zeros((*ids.shape, A), jnp.uint8),
        action_weights=jnp.full((*ids.shape, A), 1 / A, jnp.float32),
        search_value=jnp.asarray(ids),
        search_spread=jnp.zeros(ids.shape, jnp.float32),
        transition_entropy=jnp.zeros(ids.shape, jnp.float32),
        target_step=jnp.zeros(ids.shape, jnp.int32),
    )


def filled(config, steps):
    """Replay, its state after `steps` steps of every lane, and the jitted sampler."""
    replay = rp.make_replay(config, make_spec())
    state, lanes, length = replay.init(), config.env.num_envs, config.rollout.length
    for first in range(0, steps, length):
        state = replay.add_donated(state, rows_of(lanes, first, length))
    return replay, state, jax.jit(replay.sample)


@pytest.mark.parametrize("prioritised", [True, False])
def test_windows_are_contiguous_and_cover_exactly_what_the_ring_holds(prioritised):
    config = make_config(prioritised=prioritised, batch=64)
    replay = rp.make_replay(config, make_spec())
    state, sample = replay.init(), jax.jit(replay.sample)
    set_priorities = jax.jit(replay.set_priorities)
    ring, W, length = 90 // 3, config.window_rows, 4
    assert (ring, W) == (30, 7)
    rng, key = np.random.default_rng(0), jax.random.key(0)
    for end in range(length, 101, length):
        state = replay.add_donated(state, rows_of(3, end - length, length))
        held = range(max(0, end - ring), end)
        assert int(replay.size(state)) == 3 * len(held)
        assert bool(replay.can_sample(state)) == (len(held) * 3 >= 30)
        if len(held) < W or end % 12:
            continue
        seen = set()
        for _ in range(12):
            key, sample_key = jax.random.split(key)
            batch = sample(state, sample_key)
            ids = np.asarray(batch.rows.reward)
            assert ids.shape == (64, W)
            np.testing.assert_array_equal(ids - ids[:, :1], np.tile(np.arange(W), (64, 1)))
            assert (ids % 1000 >= held[0]).all() and (ids % 1000 <= held[-1]).all()
            np.testing.assert_array_equal(batch.rows.frame[..., 0, 0], ids.astype(int) % 251)
            np.testing.assert_array_equal(batch.rows.action, ids.astype(int) % A)
            seen |= set(ids[:, 0].astype(int))
            priorities = jnp.asarray(rng.uniform(0.5, 1.5, 64), jnp.float32)
            state = set_priorities(state, batch.indices, priorities)
        possible = {1000 * lane + t for lane in range(3) for t in held[: len(held) - W + 1]}
        assert seen == possible


def test_sampling_follows_priorities_and_weights_undo_them():
    config = make_config(batch=32, priority_exponent=0.6, importance_exponent=0.4)
    replay, state, _ = filled(config, 12)
    lanes, per_lane, ring = 3, 12 - 7 + 1, 30
    rng = np.random.default_rng(2)
    priorities = rng.uniform(0.05, 6.0, (lanes, per_lane))
    index = ring * np.arange(lanes)[:, None] + np.arange(per_lane)
    state = jax.jit(replay.set_priorities)(
        state, jnp.asarray(index.ravel(), jnp.int32), jnp.asarray(priorities.ravel(), jnp.float32)
    )
    p = priorities**0.6 / (priorities**0.6).sum()

    def draw(key):
        batch = replay.sample(state, key)
        return batch.rows.reward[:, 0], batch.indices, batch.weights

    batches = 1500
    ids, indices, weights = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), batches))
    lane, time = np.divmod(np.asarray(ids).astype(int), 1000)
    np.testing.assert_array_equal(indices, ring * lane + time)
    counts = np.zeros_like(p)
    np.add.at(counts, (lane, time), 1)
    expected = batches * 32 * p
    # Stratified draws vary less than independent ones, so chi-square is an upper bound.
    assert ((counts - expected) ** 2 / expected).sum() < 40  # 17 degrees of freedom: p = 0.001
    plain = (1 / (lanes * per_lane * p[lane, time])) ** 0.4
    plain /= plain.max(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, plain, rtol=1e-5)


def test_uniform_is_uniform_and_ignores_priorities():
    replay, state, _ = filled(make_config(prioritised=False, batch=64), 12)
    assert replay.set_priorities(state, None, jnp.ones(64)) is state

    def draw(key):
        batch = replay.sample(state, key)
        assert batch.indices is None
        return batch.rows.reward[:, 0], batch.weights

    ids, weights = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), 500))
    assert (np.asarray(weights) == 1).all()
    counts = np.unique(np.asarray(ids), return_counts=True)[1]
    expected = 500 * 64 / 18
    assert counts.size == 18
    assert ((counts - expected) ** 2 / expected).sum() < 40


def test_new_items_get_the_running_maximum_rounded_down():
    config = make_config(priority_exponent=1.0)
    replay, state, _ = filled(config, 12)

    def priority(state, index):
        tree = state.sum_tree_state
        return float(tree.nodes[2**tree.tree_depth - 1 + index])

    assert priority(state, 0) == 1.0
    set_priorities = jax.jit(replay.set_priorities)
    state = set_priorities(state, jnp.asarray([0, 1]), jnp.asarray([0.25, 7.5]))
    assert (priority(state, 0), priority(state, 1)) == (0.25, 7.5)
    state = replay.add_donated(state, rows_of(3, 12, 4))
    assert [priority(state, i) for i in (5, 6, 9, 10)] == [1.0, 7.0, 7.0, 0.0]


def test_bad_priorities_never_enter_and_dead_items_stay_dead():
    config = make_config(priority_exponent=1.0)
    replay, state, sample = filled(config, 12)
    before = np.asarray(state.sum_tree_state.nodes)
    # Item 20 is not written yet; 6..11 would span the write head.
    bad = jnp.asarray([np.nan, np.inf, -np.inf, 5.0, 5.0], jnp.float32)
    set_priorities = jax.jit(replay.set_priorities)
    state = set_priorities(state, jnp.asarray([0, 1, 2, 20, 6]), bad)
    np.testing.assert_array_equal(state.sum_tree_state.nodes, before)
    state = set_priorities(state, jnp.asarray([0, 1, 2]), jnp.asarray([0.0, -3.0, 1e30]))
    leaves = np.asarray(state.sum_tree_state.nodes)[2**state.sum_tree_state.tree_depth - 1 :]
    np.testing.assert_allclose(leaves[:4], [1e-3, 1e-3, 1e3, 1.0], rtol=1e-4)
    # Falling over the whole range keeps an item alive in float32.
    state = set_priorities(state, jnp.asarray([0, 1, 2]), jnp.asarray([1.0, 1.0, 0.0]))
    leaves = np.asarray(state.sum_tree_state.nodes)[2**state.sum_tree_state.tree_depth - 1 :]
    np.testing.assert_allclose(leaves[:4], [1.0, 1.0, 1e-3, 1.0], rtol=0.05)
    batch = sample(state, jax.random.key(0))
    assert np.isfinite(np.asarray(batch.weights)).all() and batch.weights.max() == 1


def test_rounding_in_the_tree_never_yields_an_invalid_window():
    _, state, sample = filled(make_config(batch=16), 12)
    tree = state.sum_tree_state
    # A root larger than the sum of its leaves sends half of the draws past the last valid item.
    state = state.replace(sum_tree_state=tree.replace(nodes=tree.nodes.at[0].mul(2.0)))
    for seed in range(5):
        batch = sample(state, jax.random.key(seed))
        ids = np.asarray(batch.rows.reward)
        np.testing.assert_array_equal(ids - ids[:, :1], np.tile(np.arange(7), (16, 1)))
        assert np.isfinite(np.asarray(batch.weights)).all()


def test_a_donated_scan_neither_copies_rows_nor_traces_twice():
    replay, state, _ = filled(make_config(), 12)
    traces = []

    def train(state, key):
        traces.append(1)

        def update(state, key):
            batch = replay.sample(state, key)
            return replay.set_priorities(state, batch.indices, batch.rows.reward[:, 2]), ()

        return jax.lax.scan(update, state, jax.random.split(key, 4))[0]

    jitted = jax.jit(train, donate_argnums=0)
    before = state.experience.frame.unsafe_buffer_pointer()
    old_nodes = np.asarray(state.sum_tree_state.nodes)
    for seed in range(3):
        state = jitted(state, jax.random.key(seed))
    assert state.experience.frame.unsafe_buffer_pointer() == before
    assert len(traces) == 1
    assert not np.array_equal(state.sum_tree_state.nodes, old_nodes)


def test_min_size_and_capacity_that_the_lanes_do_not_divide():
    config = make_config(capacity=35, min_size=35)
    replay, state, _ = filled(config, 8)
    assert not replay.can_sample(state)
    state = replay.add_donated(state, rows_of(3, 8, 4))
    assert replay.can_sample(state) and int(replay.size(state)) == 33


def test_required_bytes_are_those_of_the_state():
    for prioritised in (True, False):
        config = make_config(prioritised=prioritised)
        state = rp.make_replay(config, make_spec()).init()
        held = sum(x.nbytes for x in jax.tree.leaves(state))
        assert rp.required_bytes(config, make_spec()) == held
    atari = make_spec(4, (84, 84))
    big = make_config(lanes=32, capacity=1_000_000, stack=4, min_size=1000)
    # By hand: frame, action, reward, discount, first, invalid, weights, value, spread, entropy,
    # step.
    row = 84 * 84 + 4 + 4 + 4 + 1 + A + 4 * A + 4 + 4 + 4 + 4
    assert 0 <= rp.required_bytes(big, atari) - 1_000_000 * row < 0.01e9


def test_memory_refusal_says_needed_and_free():
    big = make_config(lanes=32, capacity=1_000_000, stack=4, min_size=1000)
    with pytest.raises(ConfigError) as error:
        rp.check_memory(big, make_spec(4, (84, 84)), available_bytes=2_500_000_000)
    message = str(error.value)
    assert "\n" not in message
    assert "replay.capacity = 1000000 needs 7.1" in message and "2.50 GB free" in message
    needed = rp.required_bytes(big, make_spec(4, (84, 84)))
    rp.check_memory(big, make_spec(4, (84, 84)), available_bytes=needed)
    with pytest.raises(ConfigError):
        rp.check_memory(big, make_spec(4, (84, 84)), available_bytes=needed - 1)
    rp.check_memory(make_config(), make_spec())
    huge = make_config(lanes=32, capacity=10**8, stack=4, min_size=1000)
    with pytest.raises(ConfigError, match="GB free"):
        rp.check_memory(huge, make_spec(4, (84, 84)))


def test_spec_and_config_must_stack_alike():
    with pytest.raises(ConfigError, match="frame_stack = 3 is not allowed"):
        rp.make_replay(make_config(), make_spec(stack=4))


# --- a second priority ---


def games_of(lanes, first, steps):
    """Rows of games of 7 steps; the n-th game of a lane pays n + lane at each step."""
    rows, time = rows_of(lanes, first, steps), np.arange(first, first + steps)
    pays = time // 7 + np.arange(lanes)[:, None]
    is_first = np.broadcast_to(time % 7 == 0, pays.shape)
    reward = jnp.asarray(pays, jnp.float32)
    return rows._replace(reward=reward, is_first=jnp.asarray(is_first), search_value=rows.reward)


def view_twin(view, lanes, ring, steps, history, window):
    """Row by row: weight of the window whose root a row is, by its lane and time."""
    oldest = max(0, steps - ring)
    rows = [(lane, time) for lane in range(lanes) for time in range(oldest, steps)]
    returns = {
        (lane, time): sum(
            other // 7 + lane for other in range(oldest, steps) if other // 7 == time // 7
        )
        for lane, time in rows
    }
    ends = {lane: max(time // 7 for _, time in rows) for lane in range(lanes)}
    whole = [at for at in rows if at[1] // 7 * 7 >= oldest and at[1] // 7 < ends[at[0]]]
    mean = sum(returns[at] for at in whole) / max(1, len(whole))
    games = sorted({(time // 7, lane) for lane, time in whole})
    scores = [returns[lane, number * 7 + 6] for number, lane in games]
    chosen = [games[x] for x in Kept(best=3, newest=4).choose(scores)] if games else []
    found = {}
    for lane, time in rows:
        if oldest <= time - history and time - history + window <= steps:
            recent = time - oldest + 1.0
            best = max(returns[lane, time] - mean, 0.0) if (lane, time) in whole else 0.0
            kept = float((lane, time) in whole and (time // 7, lane) in chosen)
            found[lane, time] = {"recent": recent, "best": best, "kept": kept}[view]
    none = not any(found.values())
    return dict.fromkeys(found, 1.0) if none else found


@pytest.mark.parametrize("steps", [12, 28, 76])
@pytest.mark.parametrize("view", ["recent", "best", "kept"])
def test_the_second_priority_against_a_twin(view, steps):
    keep = "best:3,newest:4" if view == "kept" else "all"
    config = make_config(lanes=2, capacity=60, min_size=16, view=view, view_share=1.0, keep=keep)
    replay, lanes, ring, history = rp.make_replay(config, make_spec()), 2, 30, 2
    state = replay.init()
    for first in range(0, steps, 4):
        state = replay.add_donated(state, games_of(lanes, first, 4))
    wanted = view_twin(view, lanes, ring, steps, history, config.window_rows)
    found = np.zeros((lanes, ring))
    for (lane, time), weight in wanted.items():
        found[lane, (time - history) % ring] = weight
    weights = jax.jit(view_weights, static_argnums=1)(state, config)
    np.testing.assert_allclose(weights, found, rtol=1e-5, atol=1e-4)
    drawn, sample = [], jax.jit(replay.sample)
    for i in range(250):
        batch = sample(state, jax.random.key(i))
        root = np.asarray(batch.rows.search_value)[:, history].astype(int)
        drawn += list(zip(root // 1000, root % 1000, strict=True))
        assert (np.asarray(batch.weights) == 1).all()
        items = (np.asarray(batch.indices) // ring, np.asarray(batch.indices) % ring)
        np.testing.assert_array_equal(items, (root // 1000, (root % 1000 - history) % ring))
    total = sum(wanted.values())
    for at, weight in wanted.items():
        share = weight / total
        near = 5 * np.sqrt(share * (1 - share) / len(drawn)) + 1e-9
        assert abs(drawn.count(at) / len(drawn) - share) <= near


@pytest.mark.parametrize(
    "limits",
    [
        {"best": 4},
        {"newest": 3},
        {"min_score": 1.0},
        {"best": 99},
        {"newest": 3 * 10**9},
        {"best": 9, "newest": 6, "min_score": 1.0},
    ],
)
def test_games_of_the_ring_are_kept_as_those_of_a_dataset(limits):
    """Against `Kept.choose`, with many equal scores, also below 0."""
    draw, kept = np.random.default_rng(0), Kept(**limits)
    keep = jax.jit(lambda returns, is_end: kept_ends(returns, is_end, kept))
    for _ in range(40):
        is_end = draw.random((3, 9)) < draw.choice([0.0, 0.2, 0.6])
        returns = draw.integers(-2, 4, is_end.shape).astype(np.float32)
        games = [(lane, time) for time in range(9) for lane in range(3) if is_end[lane, time]]
        wanted = np.zeros_like(is_end)
        try:
            for number in kept.choose([float(returns[x]) for x in games]):
                wanted[games[number]] = True
        except ConfigError:
            pass
        np.testing.assert_array_equal(keep(returns, is_end), wanted)


def test_the_best_are_no_pieces_of_games_and_no_side_of_two():
    """Each step costs: what is left of a cut game, or was played of one, is not better for it."""
    config = make_config(lanes=2, capacity=60, min_size=16, view="best")
    replay, state = rp.make_replay(config, make_spec()), None
    state = replay.init()
    for first in range(0, 80, 4):
        rows = games_of(2, first, 4)
        state = replay.add_donated(state, rows._replace(reward=jnp.full_like(rows.reward, -1.0)))
    weights = np.asarray(view_weights(state, config))
    assert set(np.unique(weights)) == {0.0, 1.0} and (weights > 0).sum() == 2 * (31 - 7)
    kept = make_config(lanes=2, capacity=60, min_size=16, view="kept", keep="best:2")
    roots = (np.asarray(view_weights(state, kept)).nonzero()[1] + 2) % 30  # at times 50 to 79
    assert sorted(roots) == sorted(2 * [time % 30 for time in range(70, 76)])
    for one in (config, kept):
        with pytest.raises(ConfigError, match=r"replay.view = '\w+' is not .* move in turn"):
            rp.make_replay(one, make_spec()._replace(players=2))


def test_where_all_games_are_the_same_so_are_all_windows():
    config = make_config(lanes=3, capacity=90, view="best")
    replay = rp.make_replay(config, make_spec())
    state = replay.init()
    for first in range(0, 40, 4):
        rows = rows_of(3, first, 4)
        state = replay.add_donated(state, rows._replace(reward=jnp.zeros_like(rows.reward)))
    weights = np.asarray(view_weights(state, config))
    assert set(np.unique(weights)) == {0.0, 1.0} and (weights > 0).sum() == 3 * (31 - 7)


@pytest.mark.parametrize("prioritised", [True, False])
def test_a_share_of_a_batch_is_drawn_by_the_second_priority(prioritised):
    """The rest is what the replay would draw without it, window for window."""
    common = {"batch": 512, "prioritised": prioritised}
    plain, viewed = (make_config(**common, **x) for x in ({}, {"view": "recent"}))
    _, state, sample = filled(plain, 40)
    both = sample(state, jax.random.key(3)), filled(viewed, 40)[2](state, jax.random.key(3))
    ids = [np.asarray(x.rows.reward)[:, 2] for x in both]
    assert 0.15 < (ids[0] != ids[1]).mean() < 0.3
    assert (both[1].indices is None) == (not prioritised)
    names = jax.tree.leaves(both[1].rows)[0].shape[0], plain.learner.batch_size
    assert names[0] == names[1]
