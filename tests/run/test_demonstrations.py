"""Demonstrations beside the replay: drawn, searched anew, never overwritten, and continued with."""

import jax
import numpy as np
import pytest

from smz_jax.analysis.recording import record
from smz_jax.config.check import ConfigError
from smz_jax.learning.replay import make_replay
from smz_jax.macros.precondition.updates import Known
from smz_jax.run.demonstrations import LEAST_WINDOWS, Demonstrations, ring_settings
from smz_jax.run.loop import iterate
from smz_jax.run.parts import make_parts, no_reanalyse
from smz_jax.run.state import fresh_state, make_store, restore, save
from smz_jax.run.stored_play import StoredPlay
from smz_jax.storage.dataset import Dataset
from smz_jax.storage.dataset_writer import write_dataset
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import TARGETS
from tests.run.test_offline import LANES, LENGTH, make_config

pytest.importorskip("minari")
SHARE = ("--replay.demonstration_share", "0.5", "--replay.demonstration_share_end", "0.5")


def at_random(folder, steps):
    """The folder of a dataset of random play."""
    config = make_config("--total_env_steps", str(steps), "--seed", "3")
    found = record(config, None, lambda: False)
    write_dataset(folder, found.rows, found.about, found.oldest)
    return folder


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return at_random(tmp_path_factory.mktemp("shown") / "dataset", 96)


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    return at_random(tmp_path_factory.mktemp("games") / "dataset", 256)


@pytest.fixture(scope="module")
def parts(shown):
    flags = (*SHARE, "--reanalyse.ratio", "1", "--demonstrations", str(shown))
    return make_parts(make_config(*flags), PhaseTimers())


def test_they_are_all_there_and_only_their_targets_change(parts, shown):
    state = fresh_state(parts)
    rows, dataset = state.shown.experience, Dataset(shown)
    lanes, count = rows.reward.shape
    assert (dataset.rows - lanes) < lanes * count <= dataset.rows
    frames = np.concatenate([x["observations"] for x in dataset.read()])
    np.testing.assert_array_equal(
        rows.frame.reshape(-1, *frames.shape[1:]), frames[: rows.reward.size]
    )
    # Of random play nothing was searched: values are returns, and some are not 0.
    before = jax.device_get(rows)
    assert before.search_value.any() and not before.target_step.any()
    shares = []
    for _ in range(6):  # the replay's own ring wraps: 48 of 40 rows
        state, row = iterate(parts, state)
        shares.append(row.get("learner/demonstrations"))
    assert 0.2 < np.mean(shares[2:]) < 0.8 and row["demonstrations/reanalyse/rows"] > 0
    after = state.shown.experience
    for name in (x for x in before._fields if getattr(before, x) is not None):
        same = np.array_equal(getattr(before, name), getattr(after, name))
        assert same == (name not in TARGETS), name
    assert state.counters.shown_cursor > 0
    # What is shown has no priority, so no more of them change than windows are the run's own.
    (table, buckets, _), train, replay = state.macros, state.train, state.replay
    known, batch = Known(table.actions, table.play_count, buckets), parts.config.learner.batch_size
    own = changed = 0
    for number in range(8):
        nodes = np.array(replay.sum_tree_state.nodes)
        train, replay, row = parts.train_step(train, replay, known, number, state.shown)
        own += round(batch * (1 - float(row["learner/demonstrations"])))
        leaves = np.array(replay.sum_tree_state.nodes) != nodes
        changed += int(leaves[-(nodes.size // 2 + 1) :].sum())
    assert 0 < changed <= own < 8 * batch


def test_it_continues_bit_for_bit(parts, tmp_path, monkeypatch):
    state = fresh_state(parts)
    for _ in range(4):
        state, _ = iterate(parts, state)
    store = make_store(parts.config, tmp_path)
    save(parts, state, store, tmp_path)
    before = jax.device_get(state.shown)
    again, notes = restore(parts, make_store(parts.config, tmp_path))
    assert notes == [] and again.counters.shown_cursor == state.counters.shown_cursor > 0
    for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(again.shown), strict=True):
        np.testing.assert_array_equal(one, two)
    # Stored targets are those of its rows: another dataset of as many is none to go on with.
    monkeypatch.setattr(parts.demonstrations, "sum", "0" * 64)
    with pytest.raises(ConfigError, match=r"^demonstrations = .* the dataset that the run began"):
        restore(parts, make_store(parts.config, tmp_path))


def test_without_any_share_it_is_the_run_without(parts, shown):
    """The same games, updates and numbers: nothing else is drawn otherwise."""
    none = ("--replay.demonstration_share", "0", "--replay.demonstration_share_end", "0")
    flags = ("--demonstrations", str(shown)), ()
    rows = []
    for given in flags:
        own = make_parts(make_config(*none, *given), PhaseTimers())
        state = fresh_state(own)
        for _ in range(3):
            state, row = iterate(own, state)
        rows.append((jax.device_get(state.train.params), row["learner_steps"]))
        own.source.close()
    assert rows[0][1] == rows[1][1] > 0
    for one, two in zip(*(jax.tree.leaves(x[0]) for x in rows), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["demonstrations", "dataset"])
def test_games_that_are_not_kept_are_not_in_the_ring(games, parts, name):
    """Its rows are those of the games that are kept, one after the other; which ones, is told."""

    def make(keep):
        flags = (f"--{name}", str(games), "--env.num_envs", "1", "--rollout.length", "4")
        flags += ("--learner.updates_per_env_step", "0.5", "--replay.keep", keep)
        config, given = make_config(*flags), (parts.spec, parts.networks)
        if name == "demonstrations":
            found = Demonstrations(config, *given)
            return found, found.begin()
        replay = make_replay(config, parts.spec)
        found = StoredPlay(config, parts.spec, replay, no_reanalyse, PhaseTimers())
        return found, found.begin(replay.init())

    dataset = Dataset(games)
    whole = [x for x in dataset.listed() if x.is_whole]
    best = sorted(whole, key=lambda x: (x.score, x.number))[-20:]
    wanted = [x for x in whole[-30:] if x in best]
    numbers = [x.number for x in wanted]
    assert 1 < len(wanted) < 20 < len(whole) < dataset.episodes
    frames = [x["observations"] for i, x in enumerate(dataset.read()) if i in numbers]
    source, ring = make("best:20,newest:30")
    count = sum(map(len, frames))
    found = np.asarray(ring.experience.frame)[0, :count]
    np.testing.assert_array_equal(found, np.concatenate(frames))
    assert ring.is_full if name == "demonstrations" else ring.current_index == count
    assert source.kept == {
        "keep": "best:20,newest:30",
        "of": dataset.episodes,
        "whole": len(whole),
        "games": numbers,
        "scores": [x.score for x in wanted],
    }
    told = source.note if name == "demonstrations" else source.notes[-1]
    assert f"keeps {len(wanted)} of {dataset.episodes} games" in told and "\n" not in told
    assert told.endswith(": " + ", ".join(map(str, numbers)))
    with pytest.raises(ConfigError, match=r"^replay.keep = 'min_score 9\.0' .* whole games in the"):
        make("min_score:9")


def test_few_rows_have_fewer_lanes():
    config = make_config("--demonstrations", "x")
    least = config.window_rows + 1
    two = 2 * LEAST_WINDOWS * least
    for rows, lanes in ((least, 1), (two - 1, 1), (two, 2), (50 * two, LANES)):
        found = ring_settings(config, rows)
        assert found.env.num_envs == lanes and found.replay.capacity == rows // lanes * lanes
    with pytest.raises(ConfigError, match=r"^demonstrations = 'x' is not allowed: it must be of "):
        ring_settings(config, least - 1)


@pytest.mark.parametrize(
    "flags", [("--dataset", "y"), ("--devices", "2"), ("--demonstrations", "")]
)
def test_a_wrong_setting_is_one_line(flags):
    with pytest.raises(
        ConfigError, match=r"^demonstrations = '.?' is not allowed: it must be "
    ) as x:
        make_config("--demonstrations", "x", *flags)
    assert "\n" not in str(x.value) and LENGTH
