"""Stored play as Minari's: bit for bit, whole or not at all, and nothing is trusted."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.kept import Kept
from smz_jax.storage.dataset import INFOS, Dataset
from smz_jax.storage.dataset_writer import merge_datasets, write_dataset
from smz_jax.types import Trajectory

h5py = pytest.importorskip("h5py")
minari = pytest.importorskip("minari")
LANES, T, A = 3, 40, 3
ABOUT = {"experiment": "toy", "action_names": ["LEFT", "UP", "RIGHT"], "env": {"id": "Toy"}}


def make_rows(shape=(8, 8), dtype=np.uint8, seed=0):
    """Rows whose games begin, end and are cut off anywhere."""
    draw = np.random.default_rng(seed)
    size = (LANES, T)
    frame = draw.integers(0, 256, (*size, *shape)).astype(dtype)
    return Trajectory(
        frame=frame if dtype != np.bool_ else frame > 0,
        action=draw.integers(0, A, size).astype(np.int32),
        reward=draw.normal(size=size).astype(np.float32),
        discount=(draw.random(size) > 0.1).astype(np.float32),
        is_first=draw.random(size) < 0.15,
        invalid_actions=draw.integers(0, 2, (*size, A)).astype(np.uint8),
        action_weights=draw.random((*size, A)).astype(np.float32),
        search_value=draw.normal(size=size).astype(np.float32),
        search_spread=draw.random(size).astype(np.float32),
        transition_entropy=draw.random(size).astype(np.float32),
        target_step=np.full(size, 7, np.int32),
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "toy"
    write_dataset(folder, make_rows(), ABOUT)
    return folder


@pytest.mark.parametrize(("shape", "dtype"), [((8, 8), np.uint8), ((4,), np.float32), ((5,), bool)])
def test_all_fields_come_back_bit_for_bit(tmp_path, shape, dtype):
    rows = make_rows(shape, dtype)
    write_dataset(tmp_path / "x", rows, ABOUT)
    dataset = Dataset(tmp_path / "x")
    episodes = list(dataset.read())
    assert dataset.rows == LANES * T and dataset.is_verified and dataset.about["format"] == 1
    frames = np.concatenate([x["observations"] for x in episodes])
    np.testing.assert_array_equal(frames.reshape(rows.frame.shape), rows.frame)
    for name in INFOS:
        found, wanted = np.concatenate([x["infos"][name] for x in episodes]), getattr(rows, name)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
    starts = np.array(rows.is_first)
    starts[:, 0] = True
    assert dataset.episodes == len(episodes) == starts.sum()


def test_minari_reads_games_as_it_would_have_stored_them(stored):
    """By its own reader: one observation more than actions, and the end of each is told."""
    rows, dataset = make_rows(), minari.MinariDataset(stored / "data")
    lane, start = 0, 0
    for episode in dataset.iterate_episodes():
        end = start + len(episode) + 1
        np.testing.assert_array_equal(episode.observations, rows.frame[lane, start:end])
        np.testing.assert_array_equal(episode.actions, rows.action[lane, start : end - 1])
        np.testing.assert_array_equal(episode.rewards, rows.reward[lane, start : end - 1])
        assert not episode.terminations[:-1].any() and not episode.truncations[:-1].any()
        if len(episode):
            over = rows.discount[lane, end - 2] == 0
            assert (episode.terminations[-1], episode.truncations[-1]) == (over, not over)
        lane, start = (lane, end) if end < T else (lane + 1, 0)
    assert (lane, start) == (LANES, 0)


def test_a_merged_dataset_has_the_episodes_of_all(stored, tmp_path):
    write_dataset(tmp_path / "b", make_rows(seed=1), ABOUT)
    both = [Dataset(stored), Dataset(tmp_path / "b")]
    merge_datasets(tmp_path / "m", both)
    merged = Dataset(tmp_path / "m")
    assert merged.metadata["combined_datasets"] == ["smz_jax/toy-v0", "smz_jax/b-v0"]
    wanted = [x["observations"] for one in both for x in one.read()]
    for found, frames in zip(merged.read(), wanted, strict=True):
        np.testing.assert_array_equal(found["observations"], frames)
    write_dataset(tmp_path / "c", make_rows((4,), np.float32), ABOUT)
    with pytest.raises(ConfigError, match=r"^observation_space of .*/c = .* is not allowed"):
        merge_datasets(tmp_path / "n", [both[0], Dataset(tmp_path / "c")])
    settings = {**ABOUT["env"], "frame_skip": 2}
    write_dataset(tmp_path / "d", make_rows(), {**ABOUT, "env": settings, "played_by": "another"})
    with pytest.raises(ConfigError, match=r"^frame_skip of .*/d = 2 is not allowed"):
        merge_datasets(tmp_path / "n", [both[0], Dataset(tmp_path / "d")])
    write_dataset(tmp_path / "e", make_rows(), {**ABOUT, "played_by": "another"})
    merge_datasets(tmp_path / "o", [both[0], Dataset(tmp_path / "e")])
    who = {str(ABOUT.get("played_by")), "another"}
    assert Dataset(tmp_path / "o").about["played_by"] == ", ".join(sorted(who))
    assert not (tmp_path / "n").exists()


def as_others(folder, stored, **metadata):
    """A dataset of somebody else's: no sums, nothing of ours in the metadata."""
    shutil.copytree(stored, folder)
    (folder / "SHA256SUMS").unlink()
    path = folder / "data/metadata.json"
    found = json.loads(path.read_text())
    del found["smz_jax"]
    path.write_text(json.dumps({**found, **metadata}))
    return folder


def test_counts_of_others_are_checked_and_their_environment_is_kept(stored, tmp_path):
    found = Dataset(as_others(tmp_path / "a", stored, env_spec='{"id": "CartPole-v1"}'))
    merge_datasets(tmp_path / "m", [found, found])
    assert Dataset(tmp_path / "m").metadata["env_spec"] == '{"id": "CartPole-v1"}'
    for name in ("total_steps", "total_episodes"):
        wrong = as_others(tmp_path / name, stored, **{name: found.metadata[name] - 1})
        with pytest.raises(ConfigError, match=r"episodes and steps are \[.*metadata.json says \["):
            Dataset(wrong)


def test_scores_are_noted_and_say_what_is_kept(stored, tmp_path):
    """Against plain loops over the rows; rewards of Minari's lack those of the last row."""
    rows, raw = make_rows(), np.random.default_rng(5).normal(size=(LANES, T)).astype(np.float32)
    spans, oldest = [], 7
    for lane in range(LANES):
        order = [*range(oldest, T), *range(oldest)]
        for place, row in enumerate(order):
            if place == 0 or rows.is_first[lane, row]:
                spans.append([])
            spans[-1].append((lane, row))
    wanted = [sum(float(raw[x]) for x in span) for span in spans]
    seen = []

    def some(scores):
        seen.extend(scores)
        return [1, 4]

    write_dataset(tmp_path / "s", rows, ABOUT, oldest, raw, choose=some)
    np.testing.assert_allclose(seen, wanted, atol=1e-5)
    found = Dataset(tmp_path / "s")
    assert found.scores() == [seen[1], seen[4]]
    for episode, number in zip(found.read(), (1, 4), strict=True):
        frames = [rows.frame[x] for x in spans[number]]
        np.testing.assert_array_equal(episode["observations"], frames)
    plain = Dataset(stored)
    sums = [float(x["rewards"].sum()) for x in plain.read()]
    np.testing.assert_allclose(plain.scores(), sums, atol=1e-6)
    merge_datasets(tmp_path / "k", [plain, found], lambda scores: [0, len(scores) - 1])
    kept = Dataset(tmp_path / "k")
    assert kept.scores() == [plain.scores()[0], seen[4]]
    assert [int(x["id"]) for x in kept.read()] == [0, 1]


def test_the_score_of_two_players_is_that_of_who_began(tmp_path):
    """Rewards are the movers': the other one's move, which wins, costs as much."""
    rows = make_rows()
    first = np.zeros((LANES, T), bool)
    first[:, [0, 3]] = True  # two moves and a final observation, and so on
    reward, discount = np.zeros((2, LANES, T), np.float32)
    discount[:], discount[:, 1], reward[:, 1] = -1, 0, 1  # who moves second wins
    discount[:, 4], reward[:, 3:6] = 1, [0.25, 2, 4]  # a move, and two of the other one
    rows = rows._replace(is_first=first, reward=reward, discount=discount)
    write_dataset(tmp_path / "turns", rows, ABOUT)
    scores = Dataset(tmp_path / "turns").scores()
    assert scores[::2] == [-1.0] * LANES and scores[1::2] == [0.25 - 2 - 4] * LANES
    merge_datasets(tmp_path / "best", [Dataset(tmp_path / "turns")], lambda scores: [0])
    assert Dataset(tmp_path / "best").scores() == [-1.0]


@pytest.mark.parametrize("oldest", [0, 7])
def test_whole_games_alone_are_kept(tmp_path, oldest):
    """Against a loop: begun by `is_first`, ended by the next one or by the last action."""
    rows = make_rows()
    rows.discount[:2, oldest - 2] = 0.0, 1.0  # the last action of a lane
    rows.is_first[:, [oldest - 1, oldest - 2]] = False
    write_dataset(tmp_path / "x", rows, ABOUT, oldest)
    wanted, begins = [], []
    for lane in range(LANES):
        order = [*range(oldest, T), *range(oldest)]
        starts = [x for x, row in enumerate(order) if x == 0 or rows.is_first[lane, row]]
        for start, end in zip(starts, [*starts[1:], T], strict=True):
            ends = end < T or rows.discount[lane, order[end - 2]] == 0
            begins.append(bool(rows.is_first[lane, order[start]]))
            wanted.append(bool(ends and begins[-1]))
    dataset, whole = Dataset(tmp_path / "x"), [x for x, is_whole in enumerate(wanted) if is_whole]
    assert [x.is_whole for x in dataset.listed()] == wanted and not all(wanted)
    scores, frames = dataset.scores(), [x["observations"] for x in dataset.read()]
    kept, _ = dataset.keep(Kept(best=4))
    best = sorted(sorted(whole, key=lambda x: (scores[x], x))[-4:])
    assert [(x.number, x.score) for x in kept] == [(x, scores[x]) for x in best]
    assert dataset.rows == sum(len(frames[x]) for x in best) and dataset.episodes == 4
    for found, number in zip(dataset.read(), best, strict=True):
        np.testing.assert_array_equal(found["observations"], frames[number])
    assert dataset.scores() == scores
    merge_datasets(tmp_path / "m", [Dataset(tmp_path / "x")], lambda scores: range(len(scores)))
    assert [x.is_whole for x in Dataset(tmp_path / "m").listed()] == wanted
    # A person left the third one for the next; that the last one is over its rows do not say.
    write_dataset(tmp_path / "y", rows, ABOUT, oldest, left=[2])
    known = [x.is_whole for x in Dataset(tmp_path / "y").listed()]
    assert known == [begin and x != 2 for x, begin in enumerate(begins)]
    assert sum(known) >= sum(wanted)  # also of the lane whose last action led to no end


def flip_byte(folder):
    path = folder / "data/main_data.hdf5"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def sign(folder):
    files = [x for x in sorted(folder.rglob("*")) if x.is_file() and x.name != "SHA256SUMS"]
    lines = [
        f"{hashlib.sha256(x.read_bytes()).hexdigest()}  {x.relative_to(folder)}" for x in files
    ]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def edit(**changes):
    """Other metadata under its right sum, as of somebody who means harm."""

    def change(folder):
        path = folder / "data/metadata.json"
        found = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: x for k, x in found.items() if x is not None}))
        sign(folder)

    return change


def other_length(folder):
    with h5py.File(folder / "data/main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]
        file["episode_1/rewards"] = np.zeros(77, np.float32)
    edit(smz_jax=None)(folder)


DAMAGES = {
    "a flipped byte": (flip_byte, "data/main_data.hdf5 has another SHA-256 than SHA256SUMS"),
    "a missing file": (lambda x: (x / "data/main_data.hdf5").unlink(), "is missing, of SHA256SUMS"),
    "one file more": (lambda x: (x / "more").write_text(""), "more has another SHA-256 than"),
    "no sums": (lambda x: (x / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "cut off": (lambda x: edit(total_episodes=0)(x), "metadata.json: total_episodes = 0"),
    "a later format": (
        edit(smz_jax={"format": 2, "action_names": []}),
        "has format 2, this version reads format 1",
    ),
    "no space": (edit(observation_space=None), "metadata.json: observation_space = None"),
    "a space of another kind": (edit(action_space='{"type": "Zap"}'), "deserialize_space"),
    "another length": (other_length, r"episode 1: rewards are \(77,\), not"),
    "a text": (
        lambda x: (x / "data/metadata.json").write_text("{"),
        "metadata.json has another SHA-256",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line_and_nothing_is_loaded(stored, tmp_path, name):
    damage, message = DAMAGES[name]
    folder = tmp_path / "copy"
    shutil.copytree(stored, folder)
    damage(folder)
    with pytest.raises(ConfigError, match=message) as caught:
        list(Dataset(folder).read())
    assert str(caught.value).startswith(f"dataset {str(folder)!r} is damaged or not as Minari's")
    assert "\n" not in str(caught.value)


def test_what_is_no_dataset_and_what_holds_something(stored, tmp_path):
    with pytest.raises(ConfigError, match="the folder of a Minari dataset, which holds data/meta"):
        Dataset(tmp_path)
    with pytest.raises(ConfigError, match="the folder of a Minari dataset, which holds data/meta"):
        Dataset(tmp_path / ("x" * 300))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").write_text("")
    with pytest.raises(ConfigError, match=r"^out = .*full' is not allowed"):
        write_dataset(tmp_path / "full", make_rows(), ABOUT)
    assert Dataset(stored / "data").path == stored


def test_an_error_while_it_is_written_leaves_nothing(tmp_path):
    broken = make_rows()._replace(action_weights=np.zeros((LANES, T)))
    with pytest.raises(TypeError):
        write_dataset(tmp_path / "x", broken._replace(action=None), ABOUT)
    assert list(tmp_path.iterdir()) == []
