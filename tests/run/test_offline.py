"""Learning from stored play: the rows that were stored, searched anew, and nothing played."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from smz_jax.analysis.recording import read_replay
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.config.experiment import Experiment
from smz_jax.config.sources import config_to_yaml
from smz_jax.learning import reanalyse as rf
from smz_jax.learning.replay import make_replay, read_block
from smz_jax.model.observe import stack_windows
from smz_jax.run import parts as parts_module
from smz_jax.run.loop import iterate
from smz_jax.run.parts import make_parts, no_reanalyse
from smz_jax.run.state import fresh_state, library, make_store, restore, save
from smz_jax.run.stored_play import StoredPlay, cut, make_reader
from smz_jax.storage.dataset import Dataset
from smz_jax.storage.dataset_writer import write_dataset
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import EnvSpec, Space, Trajectory

minari = pytest.importorskip("minari")
RING, LENGTH, LANES, F = 40, 8, 4, 3


def make_config(*flags):
    base = {"env.suite": "grid", "env.id": "GridWorld", "env.max_episode_steps": 11}
    base |= {"env.kwargs": '{"map": "O~G/~S~/G~O"}', "env.frame_stack": F, "network.family": "mlp"}
    base |= {"macro.min_occurrences": 1, "macro.play_threshold": 1.0, "macro.tree_threshold": 1.0}
    argv = ["--preset", "tiny", "--replay.capacity", str(RING * LANES), "--replay.min_size", "64"]
    argv += ["--env.num_envs", str(LANES), "--rollout.length", str(LENGTH)]
    argv += ["--learner.updates_per_env_step", str(2 / LANES / LENGTH)]
    argv += ["--learner.batch_size", "4"]
    return parse([*argv, *flags], Experiment("gridworld", "grid", base)).config


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A run whose ring wraps: its parts and state after 7 rollouts, its folder and its dataset."""
    folder, config = tmp_path_factory.mktemp("played") / "run", make_config()
    folder.mkdir()
    (folder / "config.yaml").write_text(config_to_yaml(config))
    parts = make_parts(config, PhaseTimers())
    state = fresh_state(parts)
    for _ in range(7):
        state, row = iterate(parts, state)
    assert row["env_steps"] == 7 * LENGTH * LANES
    save(parts, state, make_store(config, folder), folder)
    parts.source.close()
    found = read_replay(folder)
    write_dataset(folder / "dataset", found.rows, found.about, found.oldest)
    return parts, state, folder


@pytest.fixture(scope="module")
def stored(played):
    """Parts that learn from the dataset; they open no game."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_module, "make_env", None)
        return make_parts(make_config("--dataset", str(played[2] / "dataset")), PhaseTimers())


def test_a_dataset_gives_the_windows_of_the_run_bit_for_bit(played, stored):
    parts, state, _ = played
    other, oldest = fresh_state(stored), state.counters.count - RING
    assert other.counters.count == RING and oldest % RING
    before = read_block(state.replay, np.int32(oldest), RING)
    after = read_block(other.replay, np.int32(0), RING)
    for name, wanted in before._asdict().items():
        if name not in {"target_step", "search_spread"}:
            np.testing.assert_array_equal(getattr(after, name), wanted, err_msg=name)
    assert before.search_spread.any() and not after.search_spread.any()  # not searched here
    assert after.is_first.sum() > LANES and not np.asarray(after.is_first)[:, 0].all()
    one, two = (stack_windows(x, parts.spec, range(F - 1, RING)) for x in (before, after))
    np.testing.assert_array_equal(one, two)
    # As many windows can be drawn: those that lie within the ring.
    window = stored.config.window_rows
    for replay in (state.replay, other.replay):
        tree = np.asarray(replay.sum_tree_state.nodes)[-replay.sum_tree_state.nodes.size // 2 :]
        assert (tree > 0).sum() == LANES * (RING - window + 1)


def test_other_lanes_join_what_was_cut_as_games_of_their_own(played):
    flags = ("--env.num_envs", "2", "--dataset", str(played[2] / "dataset"))
    config, spec, found = make_config(*flags), played[0].spec, read_replay(played[2])
    replay = make_replay(config, spec)
    source = StoredPlay(config, spec, replay, no_reanalyse, PhaseTimers())
    rows = source.begin(replay.init()).experience
    assert source.count == 2 * RING
    there = {name: x for name, x in found.rows._asdict().items() if x is not None}
    for name, wanted in there.items():
        wanted = np.roll(wanted, -found.oldest, axis=1).reshape(2, 2 * RING, *wanted.shape[2:])
        if name == "is_first":
            assert not wanted[:, RING].all()
            wanted[:, RING] = True
        if name != "target_step":
            np.testing.assert_array_equal(getattr(rows, name), wanted, err_msg=name)


def test_all_rows_are_searched_anew_and_steps_are_updates(stored):
    state = fresh_state(stored)
    rows = state.replay.experience
    never = rows._replace(target_step=rows.target_step - 1)
    state = state._replace(replay=state.replay.replace(experience=never))
    for number in range(1, 7):
        state, row = iterate(stored, state)
        assert row["env_steps"] == row["learner_steps"] == 2 * number and row["env_frames"] == 0
        assert row["reanalyse/rows"] == LENGTH * LANES and state.counters.count == RING
        done = np.asarray(state.replay.experience.target_step) >= 0
        rows = np.arange(RING)
        assert (done == ((rows >= F - 1) & (rows < F - 1 + LENGTH * number))).all()
    assert row["score/count"] == 0 and 0 < row["replay/target_age"] < 2 * 6


def test_cloning_learns_the_actions_that_were_played(played, monkeypatch):
    """Nothing is searched, no target changes, and the policy's loss is that of those actions."""
    monkeypatch.setattr(parts_module, "make_env", None)
    flags = ("--rollout.policy", "prior", "--eval.policy", "prior")
    config = make_config(*flags, "--dataset", str(played[2] / "dataset"))
    parts = make_parts(config, PhaseTimers())
    state = fresh_state(parts)
    before = jax.device_get(state.replay.experience)
    wanted = np.arange(parts.spec.num_actions) == before.action[..., None]
    np.testing.assert_array_equal(before.action_weights, wanted)
    for _ in range(2):
        state, row = iterate(parts, state)
    for one, two in zip(before, state.replay.experience, strict=True):
        np.testing.assert_array_equal(one, two)
    assert row["learner_steps"] == 4 and "reanalyse/rows" not in row
    assert row["macros/transitions_tree"] == 0 < row["macros/transitions_play"]
    # What an evaluation plays is the policy head's likeliest valid action.
    frames = np.stack([before.frame[:, i : i + F] for i in range(3)], axis=1)[0]
    invalid = np.zeros((len(frames), parts.spec.num_actions), np.float32)
    greedy = (np.float32(0.0),) * 3
    found = parts.decide(
        state.train.params, jax.random.key(0), np.int32(0), frames, invalid, *greedy
    )
    embedding = parts.networks.representation(state.train.params, frames)
    logits = parts.networks.prediction(state.train.params, embedding)[0]
    assert found.search.tree is None
    np.testing.assert_array_equal(found.search.action, np.argmax(logits, axis=-1))


def test_macros_say_that_they_are_of_a_dataset(stored):
    state = fresh_state(stored)
    for _ in range(6):
        state, row = iterate(stored, state)
    found = library(stored, state)["macros"]
    assert "dataset" in {x["source"] for x in found} <= {"dataset", "tree"}
    assert all((x["source"] == "tree") == (x["play_count"] == 0) for x in found)
    # A window counts in each pass, and what was counted is halved.
    windows = sum(x["play_count"] for x in found if x["length"] == 2)
    assert LANES * RING / 3 < windows < 2 * LANES * RING
    assert LANES * RING / 2 < row["macros/transitions_play"] < 6 * LANES * LENGTH


def test_it_continues_bit_for_bit(stored, played, tmp_path):
    state = fresh_state(stored)
    for _ in range(2):
        state, _ = iterate(stored, state)
    store = make_store(stored.config, tmp_path)
    save(stored, state, store, tmp_path)
    for _ in range(5):
        state, _ = iterate(stored, state)
    whole = jax.device_get((state.train.params, state.replay, state.macros, stored.source.games))
    again, notes = restore(stored, make_store(stored.config, tmp_path))
    assert notes == [] and again.counters.iteration == 2
    for _ in range(5):
        again, _ = iterate(stored, again)
    found = jax.device_get((again.train.params, again.replay, again.macros, stored.source.games))
    for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("rows", [16, 17, 20, 40])
def test_every_row_has_its_turn_in_a_pass(rows):
    """Also the newest, of any number; online they are left to later."""
    cursor, seen = 0, []
    for _ in range(-(-rows // 8) + 1):
        starts, cursor = rf.sweep(cursor, oldest=2, newest=rows, steps=8, block=4, whole=True)
        assert len(starts) == 2 and all(2 <= x <= rows - 4 for x in starts)
        seen += [row for x in starts for row in range(x, x + 4)]
    assert set(seen) == set(range(2, rows))


def rows_of(lengths):
    draw = np.random.default_rng(0)
    return [Trajectory(*[draw.random(n) for _ in Trajectory._fields]) for n in lengths]


def test_rows_are_cut_in_any_pieces():
    parts = rows_of([3, 1, 10, 2, 7])
    sizes = [2, 2, 9, 1, 5]
    found = list(cut(iter(parts), sizes))
    assert [len(x.action) for x in found] == sizes
    whole, joined = (np.concatenate([x.reward for x in y]) for y in (parts, found))
    np.testing.assert_array_equal(joined, whole[:19])
    with pytest.raises(ConfigError, match="it has fewer rows than it says"):
        list(cut(iter(parts), [20, 4]))


# --- of others ---


def foreign(folder, observation, action, episodes, **options):
    """A dataset as Minari writes it, by its own functions."""
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage
    from minari.serialization import deserialize_space

    spaces = [deserialize_space(json.dumps(x)) for x in (observation, action)]
    (folder / "data").mkdir(parents=True)
    storage = MinariStorage.new(folder / "data", *spaces, jpeg_encoding=False, **options)
    storage.update_metadata({"dataset_id": "other/x-v0", "minari_version": minari.__version__})
    storage.update_episodes([EpisodeBuffer(**x) for x in episodes])
    return Dataset(folder)


BOX = {"type": "Box", "dtype": "float32", "shape": [4], "low": [-9.0] * 4, "high": [9.0] * 4}
SPEC = EnvSpec("CartPole-v1", (4,), 1, np.dtype(np.float32), Space(2, ("0", "1")), 1)


def test_any_dataset_of_minari_whose_spaces_fit(tmp_path):
    draw = np.random.default_rng(0)
    episodes = [
        {
            "observations": draw.normal(size=(n + 1, 4)).astype(np.float32),
            "actions": draw.integers(0, 2, n),
            "rewards": np.full(n, 0.5),
            "terminations": np.arange(n) == n - 1,
            "truncations": np.zeros(n, bool),
            "infos": {"lives": np.zeros(n + 1)},
        }
        for n in (3, 5)
    ]
    dataset = foreign(tmp_path / "x", BOX, {"type": "Discrete", "n": 2, "start": 0}, episodes)
    assert not dataset.is_verified and (dataset.rows, dataset.about) == (10, {})
    config = dataclasses.replace(make_config().env, suite="gym", id="CartPole-v1")
    config = dataclasses.replace(make_config(), env=config)
    read = make_reader(dataset, config, SPEC)
    for episode, rows in zip(episodes, map(read, dataset.read()), strict=True):
        n = len(episode["actions"])
        np.testing.assert_array_equal(rows.frame, episode["observations"])
        np.testing.assert_array_equal(rows.action[:-1], episode["actions"])
        np.testing.assert_array_equal(rows.action_weights.argmax(axis=1)[:-1], episode["actions"])
        assert rows.reward.tolist() == [0.5] * n + [0]
        np.testing.assert_allclose(rows.action_weights.sum(axis=1), 1.0, rtol=1e-6)
        assert set(rows.action_weights.flat) == {np.float32(0.95), np.float32(0.05)}
        # By hand: what is paid after each row, discounted.
        gamma, value = config.learner.gamma, [0.0, 0.5]
        for _ in range(n - 1):
            value.append(0.5 + gamma * value[-1])
        np.testing.assert_allclose(rows.search_value, value[::-1], rtol=1e-6)
        assert rows.discount.tolist() == [1.0] * (n - 1) + [0, 1]
        assert rows.is_first.tolist() == [True] + [False] * n
    with pytest.raises(ConfigError, match=r"^observations of the dataset = 'float32 \(4,\)' "):
        make_reader(dataset, config, SPEC._replace(frame_shape=(5,)))
    with pytest.raises(ConfigError, match=r"^action space of the dataset = 'Discrete\(2\)' is not"):
        make_reader(dataset, config, SPEC._replace(action_space=Space(3, ("0", "1", "2"))))


def test_actions_go_by_their_names(played):
    dataset = Dataset(played[2] / "dataset")
    spec, config = played[0].spec, played[0].config
    names = ("STAY", *spec.action_names[::-1])
    read = make_reader(dataset, config, spec._replace(action_space=Space(5, names)))
    episode = max(dataset.read(), key=lambda x: len(x["rewards"]))
    rows, plain = read(episode), episode["infos"]
    assert [names[x] for x in rows.action] == [spec.action_names[x] for x in plain["action"]]
    assert not rows.invalid_actions.any()
    # Where some are not allowed, one that the dataset does not know is not, either.
    told = plain["invalid_actions"].copy()
    told[-1, :3] = 1
    limited = read({**episode, "infos": {**plain, "invalid_actions": told}}).invalid_actions
    assert limited[-1].tolist() == [1, 0, 1, 1, 1] and not limited[:-1].any()
    np.testing.assert_array_equal(rows.action_weights[:, 1:][:, ::-1], plain["action_weights"])
    fewer = spec._replace(action_space=Space(3, spec.action_names[:3]))
    with pytest.raises(ConfigError, match=r"^actions of the dataset = .* it must be among those "):
        make_reader(dataset, config, fewer)


# --- settings ---


def test_presets_are_as_long_as_the_updates_that_they_would_make():
    cartpole = Experiment("cartpole", "vector", {"env.suite": "gym", "env.id": "CartPole-v1"})
    lengths = ("total_env_steps", "checkpoint_every_env_steps")
    of = lambda *argv: parse(["--preset", "laptop", *argv], cartpole).config  # noqa: E731
    usual, offline = of(), of("--dataset", "x")
    assert [getattr(usual, x) // 4 for x in lengths] == [getattr(offline, x) for x in lengths]
    assert offline.eval.every_env_steps == usual.eval.every_env_steps // 4
    assert of("--dataset", "x", "--total_env_steps", "5000").total_env_steps == 5000
    assert of("--dataset", "x", "--learner.updates_per_env_step", "0.5").total_env_steps == 20_480
    assert offline.iteration_steps == offline.updates_per_iteration == 128
    assert (offline.reanalyse_steps, offline.reanalyse_block) == (32, 8)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learner.updates_per_env_step", "0"], "learner.updates_per_env_step = 0.0 is not allo"),
        (["--total_env_steps", "1"], "total_env_steps = 1 is not allowed: it must be at least the"),
        (["--dataset", ""], "dataset = '' is not allowed: it must be a path"),
        (["--dataset", "nowhere"], "dataset = 'nowhere' is not allowed: it must be the folder of"),
        (
            ["--replay.capacity", "100"],
            "replay.capacity = 100 is not allowed: it must be at least",
        ),
        (
            ["--rollout.length", "64", "--replay.capacity", "1000", "--total_env_steps", "99"],
            "dataset",
        ),
    ],
)
def test_a_wrong_setting_is_one_line(played, flags, message):
    with pytest.raises(ConfigError) as caught:
        make_parts(make_config("--dataset", str(played[2] / "dataset"), *flags), PhaseTimers())
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
