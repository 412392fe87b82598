"""Encoders on stored frames: the emulator's truth, the frames, the diagnostics, the comparison."""

import collections
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.encoders import comparison
from experiments.encoders.__main__ import read_command
from experiments.encoders.comparison import _Training, compare, unfinished
from experiments.encoders.comparison_report import (
    collect_results,
    curve,
    figure,
    markdown_table,
    write_report,
)
from experiments.encoders.diagnostics import intervals, make_probe, perplexity, probe_all, summarise
from experiments.encoders.stored_frames import (
    Transitions,
    held_out_transitions,
    stored_frames,
    training_rows,
)
from experiments.encoders.variants import SIZES, VARIANTS, Job, Plan, job_config
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config, EnvConfig, NetworkConfig
from smz_jax.envs import make_env, make_spec
from smz_jax.envs.atari.ale_backend import open_emulator
from smz_jax.envs.atari.sticky import (
    _Player,
    course_probs,
    effect,
    play,
    sticky_truth,
)
from smz_jax.learning.learner import total_learner_steps
from smz_jax.model.networks import make_networks
from smz_jax.run.signals import StopSignal

NAMES = ("NOOP", "FIRE", "RIGHT", "LEFT")
SMALL = dataclasses.replace(SIZES["tiny"], lanes=2, transitions=400, eval_size=24, eval_batch=8)


def config_of(sticky=0.25, variant="difference", sizes=SMALL, explicit=None):
    return job_config(Plan("tiny", sizes, (), explicit or {}, Path()), Job(variant, sticky, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def stored(folder):
    path = folder / "frames-sticky0.25-seed3.npz"
    return stored_frames(path, config_of(), 200, SMALL.held_out)


# ---------------------------------------------------------------- what the emulator says


def test_course_probs_by_hand():
    np.testing.assert_allclose(
        course_probs(0.25, 4), [0.75, 0.1875, 0.046875, 0.01171875, 0.00390625]
    )
    np.testing.assert_allclose(course_probs(0.0, 4), [1, 0, 0, 0, 0])


def test_fire_is_noop_in_play():
    assert effect(NAMES).tolist() == [0, 0, 2, 3]
    pong = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    assert effect(pong).tolist() == [0, 0, 2, 3, 2, 3]


def test_truth_is_what_repeated_runs_of_the_emulator_show():
    """Steps are run many times with real sticky actions from one cloned state."""
    player = _Player(EnvConfig(id="Breakout", sticky_prob=0.25), 11, NAMES)
    real = open_emulator("breakout", 0.25, 12)
    actions = list(real.getMinimalActionSet())
    generator = np.random.default_rng(0)
    blank = np.zeros((84, 84), np.uint8)
    player.row(blank, 0, True, False, False)
    runs, distances, certain = 60, [], 0
    for step in range(240):
        action, asked = int(generator.integers(4)), step % 5 == 4
        before, state = player._before, player._ale.cloneState(include_rng=False)
        courses = player.courses(action) if asked else {}
        in_play, changed, outcomes, entropy, _, _ = player.row(blank, action, False, False, asked)
        if not asked or not in_play:
            continue
        shown = collections.Counter()
        for _ in range(runs):
            # A clone does not hold the last action: it is brought in by playing it.
            real.restoreState(state)
            play(real, [actions[before]] * 12)
            real.restoreState(state)
            shown[play(real, [actions[action]] * 4).tobytes()] += 1
        assert outcomes == len(courses)
        assert set(shown) <= set(courses)
        if outcomes == 1:
            assert entropy == 0
            certain += 1
        else:
            assert changed
            assert entropy == pytest.approx(-sum(p * np.log(p) for p in courses.values()))
            distances.append(sum(abs(shown[x] / runs - p) for x, p in courses.items()) / 2)
    assert min(certain, len(distances)) >= 8
    assert np.mean(distances) < 0.1


def test_the_wall_makes_a_changed_action_certain():
    """RIGHT, held until the paddle is at the wall; then NOOP is certain though it changes."""
    player = _Player(EnvConfig(id="Breakout", sticky_prob=0.25), 11, NAMES)
    blank = np.zeros((84, 84), np.uint8)
    player.row(blank, 1, True, False, False)
    for _ in range(8):
        player.row(blank, 2, False, False, False)
    in_play, changed, outcomes, _, paddle, _ = player.row(blank, 0, False, False, True)
    assert in_play
    assert (changed, outcomes, paddle) == (True, 1, 191)


def test_truth_needs_the_very_frames(stored):
    rows = stored.rows
    seed = max(int(np.random.SeedSequence(3).generate_state(2)[0]) % 2**31, 1)
    given = {
        "lane_seed": seed,
        "actions": rows.action[0, :40],
        "is_first": rows.is_first[0, :40],
        "action_names": NAMES,
        "first_row": 30,
    }
    frames = rows.frame[0, :40].copy()
    truth = sticky_truth(config_of().env, frames=frames, **given)
    assert truth.frame_error.max() <= 1
    frames[35, 50, 50] += 30
    with pytest.raises(ConfigError, match="30 grey values off"):
        sticky_truth(config_of().env, frames=frames, **given)


# ---------------------------------------------------------------- stored frames


def test_rows_are_random_play(stored):
    rows = stored.rows
    np.testing.assert_array_equal(rows.action_weights[rows.invalid_actions.sum(-1) == 0], 0.25)
    forced = rows.invalid_actions.sum(-1) > 0
    assert (rows.action[forced] == 1).all()
    counts = np.bincount(rows.action[~forced], minlength=4) / (~forced).sum()
    assert np.abs(counts - 0.25).max() < 0.1
    assert not rows.search_value.any()
    learned = training_rows(stored, 20)
    np.testing.assert_array_equal(learned.action, rows.action[:, :180])


def test_held_out_transitions_are_those_of_the_game(stored):
    """Stacks, actions and lanes against the environment played again."""
    found = held_out_transitions(stored, 20, 4, 1000)
    assert len(found.action) > 10
    env = make_env(config_of().env, seed=3)
    steps = [env.reset()]
    for action in np.asarray(stored.rows.action).T:
        steps.append(env.step(action))
    env.close()
    seen = {}
    for row in range(180, 199):
        for lane in range(2):
            key = (lane, steps[row].observation[lane].tobytes())
            seen[key] = (row, steps[row + 1].observation[lane])
    for i, lane in enumerate(found.lane):
        row, after = seen[(lane, found.before[i].tobytes())]
        np.testing.assert_array_equal(after, found.after[i])
        assert stored.rows.action[lane, row] == found.action[i]
        assert not steps[row + 1].terminated[lane]


def test_stored_frames_are_reused_and_checked(folder, stored):
    path = folder / "frames-sticky0.25-seed3.npz"
    again = stored_frames(path, config_of(), 200, SMALL.held_out)
    jax.tree.map(np.testing.assert_array_equal, again, stored)
    with pytest.raises(ConfigError, match=r"other frames \(other rows\)"):
        stored_frames(path, config_of(), 201, SMALL.held_out)
    damaged = folder / "damaged.npz"
    damaged.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ConfigError, match="damaged"):
        stored_frames(damaged, config_of(), 200, SMALL.held_out)


# ---------------------------------------------------------------- diagnostics


def held_out_of(differs, in_open, lane=None):
    count = len(differs)
    nothing = np.zeros((count, 1, 1, 1), np.uint8)
    return Transitions(
        before=nothing,
        action=np.zeros(count, np.int32),
        after=nothing,
        lane=np.arange(count, dtype=np.int32) if lane is None else np.array(lane, np.int32),
        changed=np.array(differs) | ~np.array(in_open),
        differs=np.array(differs),
        in_open=np.array(in_open),
        entropy=np.where(differs, 0.75, 0.0).astype(np.float32),
    )


def test_summarise_by_hand():
    held_out = held_out_of([True, True, False, False], [True, True, True, False])
    seen = {
        "entropy": np.array([0.75, 0.5, 0.25, 0.6]),
        "code": np.array([0, 0, 1, 1]),
        "likely": np.array([0, 1, 1, 1]),
        "embedding": np.array([[0.0], [2.0], [0.0], [2.0]]),
        "error_real": np.array([1.0, 3.0, 5.0, 5.0]),
        "error_shuffled": np.array([4.0, 12.0, 5.0, 5.0]),
    }
    row = summarise(seen, held_out, 2)
    assert row["code_perplexity"] == pytest.approx(2)
    assert row["agreement"] == 0.75
    assert row["embedding_variance"] == 1
    assert row["entropy_differs"] == pytest.approx(0.625 / np.log(2))
    assert row["roc"] == 0.75  # of the four pairs only (0.5, 0.6) is the wrong way round
    assert row["roc_open"] == 1
    assert row["roc_actions"] == pytest.approx(1.0)  # 0.75, 0.5 and 0.6 above 0.25
    assert row["entropy_error"] == pytest.approx((0 + 0.25 + 0.25) / 3)
    assert row["code_gain"] == 0.75
    assert row["error_real"] == 3.5
    assert perplexity(np.array([3, 3, 3])) == 1


def test_intervals_are_over_lanes():
    """All steps of a lane come together: two lanes give three different resamples."""
    held_out = held_out_of([True] * 6, [True] * 6, lane=[0, 0, 0, 0, 0, 1])
    seen = {
        "entropy": np.array([0.1] * 5 + [0.4]) * np.log(4),
        "code": np.zeros(6, np.int64),
        "likely": np.zeros(6, np.int64),
        "embedding": np.zeros((6, 3)),
        "error_real": np.ones(6),
        "error_shuffled": np.ones(6),
    }
    ends = intervals(seen, held_out, 4)
    assert ends["entropy_low"] == pytest.approx(0.1)
    assert ends["entropy_high"] == pytest.approx(0.4)
    assert np.isnan(ends["roc_low"])


@pytest.mark.parametrize("variant", ["difference", "cosine-embedding"])
def test_probe_against_single_calls(stored, variant):
    config = config_of(variant=variant, explicit={"network.embedding_size": 8})
    networks = make_networks(config.network, make_spec(config.env))
    params = jax.jit(networks.init)(jax.random.key(0))
    generator = np.random.default_rng(0)
    params["params"] = jax.tree.map(  # what starts near 0 would give every batch one code
        lambda x: x + (x.ndim > 1) * generator.normal(0, 0.3, x.shape).astype(np.float32),
        params["params"],
    )
    shape = (10, 4, 84, 84)
    held_out = held_out_transitions(stored, 20, 4, 10)._replace(
        before=generator.integers(0, 256, shape, np.uint8),
        after=generator.integers(0, 256, shape, np.uint8),
    )
    found = probe_all(make_probe(networks, config), params, held_out, 5)
    part = slice(5, 10)
    before, after = held_out.before[part], held_out.after[part]
    state = networks.afterstate_dynamics(
        params, networks.representation(params, before), held_out.action[part]
    )
    probs = np.asarray(jax.nn.softmax(networks.afterstate_prediction(params, state)[0]), np.float64)
    np.testing.assert_allclose(
        found["entropy"][part], -(probs * np.log(probs)).sum(-1), rtol=1e-4, atol=1e-5
    )
    is_frames = config.network.encoder_input == "frames"
    given = after if is_frames else networks.representation(params, after)
    code = np.asarray(networks.encoder(params, given, state)).argmax(-1)
    np.testing.assert_array_equal(found["code"][part], code)
    assert len(set(code)) > 1
    other = np.eye(config.network.codebook_size, dtype=np.float32)[code[[4, 0, 1, 2, 3]]]
    foreseen, _ = networks.dynamics(params, state, other)
    if is_frames:
        target = networks.frame_target(params, after[:, -1], before[:, -1])
        wrong, without = networks.decode(params, foreseen, state)
        expected = np.square(np.asarray(wrong - target)).mean(-1)
        rows = np.square(np.asarray(without - target)).reshape(5, 21, 21)[:, 18:20]
        np.testing.assert_allclose(found["paddle_without"][part], rows.sum((1, 2)) / 441, rtol=1e-4)
    else:
        x = np.asarray(networks.project(params, foreseen, True))
        y = np.asarray(networks.project(params, networks.representation(params, after), False))
        norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
        expected = 1 - (x * y).sum(-1) / norms
    np.testing.assert_allclose(found["error_shuffled"][part], expected, rtol=1e-3, atol=1e-5)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("preset", list(SIZES))
def test_every_variant_fits_every_preset(preset):
    for name in VARIANTS:
        for dispatch in (1, 4):
            explicit = {"learner.updates_per_dispatch": dispatch}
            plan = Plan(preset, SIZES[preset], (), explicit, Path())
            config = job_config(plan, Job(name, 0.25, 0))
            assert total_learner_steps(config) == SIZES[preset].updates
            assert config.env.sticky == 0.25
            assert config.env.noops == 0


def test_flags_win_over_variants_and_some_are_refused():
    config = config_of(explicit={"network.decoder_target": "standardised"})
    assert config.network.decoder_target == "standardised"
    for name, message in (("seed", "--seeds"), ("env.num_envs", "--preset")):
        with pytest.raises(ConfigError, match=message):
            config_of(explicit={name: 4})


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--variants", "diference"], "did you mean difference"),
        (["--sticky", "1"], "sticky = 1.0"),
        (["--sticky", "x"], "sticky = 'x'"),
        (["--seeds", "-1"], "seeds = -1"),
        (["--updates", "0"], "updates = 0"),
        (["--transitions", "5"], "transitions = 5"),
        (["--preset", "large"], "preset"),
        (["--seed", "1"], "--seeds"),
        (["--env.id", "Pong"], "Breakout"),
        (["--loss.comitment", "1"], "did you mean --loss.commitment"),
        (["--resume"], "resume"),
        (["--updates", "30", "--learner.updates_per_dispatch", "20"], "a multiple of"),
    ],
)
def test_a_mistake_is_one_line(argv, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_command(argv)
    assert "\n" not in str(caught.value)


def test_help_names_every_variant(capsys):
    with pytest.raises(SystemExit):
        read_command(["--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in VARIANTS)


# ---------------------------------------------------------------- the comparison


class StopAfter(StopSignal):
    """A signal that comes while the first look after the start is written."""

    def __init__(self, rows):
        super().__init__()
        self.path, self.rows = rows, 2

    def __bool__(self):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return len(lines) >= self.rows


@pytest.fixture
def shared_programs(monkeypatch):
    """Jobs with the same settings share their compiled programs."""

    def shared(make):
        made = {}

        def make_once(*inputs):
            key = next(x for x in inputs if isinstance(x, Config | NetworkConfig))
            if key not in made:
                made[key] = make(*inputs)
            return made[key]

        return make_once

    for name in ("make_networks", "make_replay", "TrainStep", "make_probe"):
        monkeypatch.setattr(comparison, name, shared(getattr(comparison, name)))


@pytest.mark.usefixtures("shared_programs")
def test_a_stopped_comparison_goes_on_as_if_it_had_not(folder, stored, monkeypatch):
    del stored  # its file is used
    job = Job("difference", 0.25, 3)
    explicit = {"loss.commitment": 0.2}
    straight = Plan("tiny", SMALL, (job,), explicit, folder)
    assert compare(straight) is None
    results, rows = collect_results(folder)
    assert [row["updates"] for row in rows] == [0, 4, 8]
    assert results[0]["updates"] == 8
    assert results[0]["entropy"] == rows[-1]["entropy"]
    assert results[0]["transitions_seen"] == 24

    broken = folder / "broken"
    broken.mkdir()
    name = "frames-sticky0.25-seed3.npz"
    (broken / name).symlink_to(folder / name)
    plan = dataclasses.replace(straight, run_dir=broken)
    stopping = StopAfter(plan.folder(job) / "rows.jsonl")
    run = _Training.run
    with monkeypatch.context() as patch:
        patch.setattr(_Training, "run", lambda self, stop: run(self, stopping))
        compare(plan)
    assert collect_results(broken)[0] == []
    assert [x for x, _ in unfinished(plan)] == [job]
    assert compare(plan) is None
    fresh, again = collect_results(broken)[0][0], results[0]
    for key in ("entropy", "roc", "error_real", "train/loss/total", "entropy_high"):
        assert fresh[key] == again[key], key

    kept = (plan.folder(job) / "rows.jsonl").stat().st_mtime_ns
    assert compare(plan) is None
    assert (plan.folder(job) / "rows.jsonl").stat().st_mtime_ns == kept
    with pytest.raises(ConfigError, match=r"other settings \(loss.commitment\)"):
        compare(dataclasses.replace(plan, explicit={"loss.commitment": 0.1}))
    fewer = dataclasses.replace(SMALL, updates=4)
    with pytest.raises(ConfigError, match="may only rise"):
        compare(dataclasses.replace(plan, sizes=fewer))
    more = dataclasses.replace(SMALL, updates=12)
    assert [x for x, _ in unfinished(dataclasses.replace(plan, sizes=more))] == [job]

    table = write_report(broken, "typed")
    assert table == (broken / "table.md").read_text()
    assert json.loads((broken / "results.json").read_text())["command"] == "typed"
    assert (broken / "encoders.png").stat().st_size > 10_000


def result(seed, roc, **more):
    about = {"variant": "difference", "sticky": 0.25, "seed": seed, "updates": 3000}
    return {**about, "roc": roc, **more}


def test_table_by_hand():
    line = markdown_table([result(0, 0.75, roc_low=0.7, roc_high=0.8)]).splitlines()[2]
    assert line.startswith("| difference | how the next frame differs")
    assert "| 0.25 | 1 | 3,000 | 0.750 (0.700 to 0.800) | - | - / - | - |" in line
    two = markdown_table([result(0, 0.75, roc_low=0.7, roc_high=0.8), result(1, 0.85)])
    assert "| 2 | 3,000 | 0.800 |" in two
    three = markdown_table([result(i, x) for i, x in enumerate((0.7, 0.7, 1.0))])
    assert "| 3 | 3,000 | 0.800 (0.700 to 1.000) |" in three


def test_curve_is_averaged_over_seeds():
    rows = [
        {"variant": "difference", "sticky": 0.0, "seed": seed, "updates": at, "roc": value}
        for seed, at, value in ((0, 0, 0.5), (0, 10, 0.7), (1, 0, 0.7), (1, 10, 0.9), (1, 20, 1.0))
    ]
    rows[0]["roc_open"] = None
    x, y = curve(rows, "difference", 0.0, "roc")
    assert list(x) == [0, 10]
    np.testing.assert_allclose(y, [0.6, 0.8])
    assert curve(rows, "difference", 0.25, "roc") == ([], [])
    assert curve(rows, "difference", 0.0, "roc_open") == ([], [])


def test_a_variant_looks_the_same_in_every_figure():
    def rows(*cases):
        return [
            {"variant": name, "sticky": p, "seed": 0, "updates": at, "roc": 0.5, "entropy": 0.5}
            for name, p in cases
            for at in (0, 10)
        ]

    def look(*cases):
        drawn = figure(rows(*cases))
        lines = {x.get_label(): (x.get_color(), x.get_linestyle()) for x in drawn.axes[0].lines}
        return lines, drawn.get_suptitle()

    few, title = look(("difference-embedding", 0.25), ("made-up", 0.25))
    many, both = look(*((name, p) for name in VARIANTS for p in (0.25, 0.0)), ("made-up", 0.25))
    assert few["difference-embedding"] == many["difference-embedding"]
    assert few["made-up"] == many["made-up"]
    assert len({many[name] for name in VARIANTS}) == len(VARIANTS)
    assert "sticky 0.25;" in title and "sticky 0.25 (one panel: also 0);" in both
