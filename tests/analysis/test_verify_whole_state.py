"""The test of the whole state on Breakout's emulator: who must fail it, and who must pass it."""

import dataclasses
import functools

import numpy as np
import pytest

from smz_jax.analysis.verify import emulator_world
from smz_jax.analysis.verify.emulator_world import EmulatorWorld
from smz_jax.analysis.verify.played import StartState, play_emulator
from smz_jax.analysis.verify.probe import MEMORY, RIDGE, Look, fit_probe, fit_probes, truth
from smz_jax.analysis.verify.session import try_libraries
from smz_jax.analysis.verify.tried_libraries import Library
from smz_jax.analysis.verify.whole_state import DELAYS, is_whole, later_starts, moments
from tests.analysis.test_verify_emulator import CONFIG, Oracle, Player, flat, opened

LEFT, RIGHT = 3, 2
MACROS = ((2, 2), (3, 3, 2), (0, 2, 3, 3), (1, 0, 0, 0, 0))
PADDLE = slice(76, 78)
"""Rows of a frame that the paddle alone fills."""
NAMES = ("everything", "agent", "still")


class Follower(Player):
    """Follows the ball by the memory, and errs now and then."""

    def __init__(self):
        super().__init__(self.choose)

    def choose(self, count):
        rng, ram = np.random.default_rng(count), opened().ram().astype(int)
        away = ram[99] - ram[72]
        return (
            rng.integers(4)
            if rng.random() < 0.2
            else RIGHT
            if away > 10
            else LEFT
            if away < 2
            else 0
        )


def agent_alone(seen):
    """The paddle of every frame, as `[N, F * 2 * 84]`: bright runs as long as it, not the ball."""
    bright = seen[..., PADDLE, :] > 60
    runs = np.lib.stride_tricks.sliding_window_view(bright, 5, axis=-1).all(axis=-1)
    kept = np.zeros_like(bright)
    for shift in range(5):
        kept[..., shift : shift + (84 - 5 + 1)] |= runs
    return flat(kept)


def coarse(seen):
    """Means of 2 x 2 pixels, which are compared faster."""
    rows = seen.reshape(*seen.shape[:-2], 42, 2, 42, 2)
    return flat(rows.mean(axis=(-3, -1)))


def ball_stays(end, start):
    """The end's paddle in the picture of the start."""
    found = start.copy()
    found[:, PADDLE] = end[:, PADDLE]
    return found


@functools.cache
def played():
    agent = Follower()
    return play_emulator(agent, opened(), CONFIG, games=3, max_steps=140, keep=8, seed=1, looks=999)  # type: ignore[arg-type]


@functools.cache
def tried():
    emulator, starts = opened(), played().starts
    oracles = (
        Oracle(emulator, starts, space=coarse),
        Oracle(emulator, starts, space=agent_alone),
        Oracle(emulator, starts, sees=ball_stays, space=coarse),
    )
    models = [oracle.model() for oracle in oracles]
    world = EmulatorWorld(emulator, starts, Player(lambda _: 0), models[0], CONFIG, 8, 1, 9)  # type: ignore[arg-type]
    libraries = [Library(name, MACROS, ("sound",) * len(MACROS)) for name in NAMES]
    found = try_libraries(world, list(zip(libraries, models, strict=True)))
    return dict(zip(NAMES, found, strict=True))


@pytest.fixture(autouse=True)
def small_pools(monkeypatch):
    pool = emulator_world.draw_pool
    monkeypatch.setattr(emulator_world, "draw_pool", lambda *args: pool(*args)[:6])


def share(name, key="whole"):
    rows = [x for x in tried()[name].trials if x.counts_whole and x.counts]
    assert len(rows) >= 24 and np.mean([x.moments for x in rows if not x.ended]) > 12
    return float(np.mean([getattr(x, key) for x in rows]))


def test_who_knows_everything_passes_and_who_knows_the_agent_alone_fails():
    assert share("everything") >= 0.99
    assert share("agent") <= 0.1 and share("still") <= 0.3
    # The other test is of the effect of the actions: there the agent alone is enough.
    assert share("agent", "nearest") >= 0.99 and share("still", "nearest") >= 0.95


def test_a_lost_life_is_a_failure_unless_it_was_foreseen():
    emulator = opened()
    steps, clones = [emulator.reset(3)], [emulator.clone()]
    while steps[-1].lives == 5:
        steps.append(emulator.step(0))
        clones.append(emulator.clone())
    start = StartState(clones[-4], 0, 0)  # the third action loses the life
    library = Library("macros", ((0, 0), (0, 0, 0), (0, 0, 0, 0)), ("sound",) * 3)
    for ends in (True, False):
        model = Oracle(emulator, [start], space=agent_alone, ends=ends).model()
        world = EmulatorWorld(emulator, [start], Player(lambda _: 0), model, CONFIG, 1, 1, 9)  # type: ignore[arg-type]
        (found,) = try_libraries(world, [(library, model)])
        two, three, four = found.trials
        assert not two.ended and not two.cut and not two.end_foreseen
        for trial in (three, four):
            assert trial.ended and trial.counts_whole and trial.moments == 0
            assert trial.whole is trial.end_foreseen is ends
        assert four.cut and not three.cut
    own = dataclasses.make_dataclass("Own", ["over", "ends"])
    # (it ended, at step), step by the model, nearer: expected
    for over, ends, told, nearer, expected in (
        (True, 2, 2, False, True),
        (True, 2, 3, True, False),
        (True, 2, 1, True, False),
        (False, 4, 3, True, False),
        (False, 4, 9, True, True),
        (False, 4, 9, False, False),
    ):
        assert is_whole(own(over, ends), told, nearer) is expected  # type: ignore[arg-type]


def test_rivals_are_real_ends_of_other_moments():
    emulator = opened()
    starts = [x for x in played().starts if len(x.since) == 4]
    start, macro = starts[0], (RIGHT, 0, LEFT)

    def play(state, actions):
        step, lives, ended = emulator.restore(state, seed=5), state.step.lives, False
        seen = [step.observation]
        for action in actions:
            step = emulator.step(action)
            ended = ended or step.lives < lives
            seen.append(step.observation)
        return seen, ended

    seen, ended = play(start.back, (*start.since, *macro, 0, 0, 0, 0))
    assert not ended and (seen[4] == start.state.step.observation).all()
    expected = [seen[7 - x] for x in (1, 2, 4)] + [seen[7 + x] for x in (1, 2, 4)]
    late = [play(start.back, (*[0] * x, *start.since, *macro)) for x in DELAYS]
    expected += [x[-1] for x, ended in late if not ended]
    others = [play(x.state, macro) for x in starts[1:3]]
    expected += [x[-1] for x, ended in others if not ended]
    expected = [x for x in expected if (x[-1] != seen[7][-1]).any()]
    later = later_starts(emulator, start, 5, CONFIG)
    found = moments(emulator, start, later, starts[1:3], macro, 5, CONFIG)
    np.testing.assert_array_equal(found.seen, expected)
    assert set(found.kinds) == {0, 1, 2} and list(found.kinds) == sorted(found.kinds)
    assert found.hidden == sum(ended for _, ended in late + others)


def test_the_probe_is_ridge_regression_and_reads_games_that_it_was_not_fitted_on():
    rng = np.random.default_rng(0)
    rows, told = rng.normal(3, [1, 2, 5], (40, 3)), rng.normal(size=(40, 2))
    told[7] = np.nan
    probe, kept = fit_probe(rows, told), np.arange(40) != 7
    x = (rows[kept] - rows[kept].mean(0)) / rows[kept].std(0)
    # Ridge is least squares with rows of sqrt(penalty) below.
    below = np.sqrt(RIDGE * 39) * np.eye(3)
    y = np.concatenate([told[kept] - told[kept].mean(0), np.zeros((3, 2))])
    weights = np.linalg.lstsq(np.concatenate([x, below]), y, rcond=None)[0]
    np.testing.assert_allclose(probe.read(rows[kept]), x @ weights + told[kept].mean(0))
    ram = np.zeros((6, 128), np.uint8)
    ram[:, [72, 99, 101]] = rng.integers(1, 200, (6, 3))
    looks = [Look(np.zeros(1), ram[i], i) for i in range(6)]
    even, odd = fit_probes(rows[:6], looks, MEMORY["Breakout"])
    values = truth(MEMORY["Breakout"], ram)
    np.testing.assert_array_equal(values, ram[:, [99, 101, 72]])
    np.testing.assert_allclose(even.offset, values[1::2].mean(0))
    np.testing.assert_allclose(odd.offset, values[::2].mean(0))
    ram[2, 101] = 0
    assert (
        np.isnan(truth(MEMORY["Breakout"], ram)).all(axis=1).tolist()
        == [False] * 2 + [True] + [False] * 3
    )


def test_errors_of_the_probe_by_length():
    def profile(seen):
        """Sums over columns and rows of the part below the bricks."""
        part = seen[:, -1, 40:, 5:79].astype(np.float32)
        return np.concatenate([part.sum(axis=1), part.sum(axis=2)], axis=1)

    emulator, starts, looks = opened(), played().starts[:3], played().looks[::4]
    assert len({x.game for x in looks}) > 1
    seers = (lambda end, start: end), ball_stays
    models = [Oracle(emulator, starts, sees=x, space=profile).model() for x in seers]
    acting = Player(lambda _: 0)
    world = EmulatorWorld(emulator, starts, acting, models[0], CONFIG, 3, 1, 9, looks)  # type: ignore[arg-type]
    library = Library("macros", ((2, 2), (3, 3, 2, 2)), ("sound",) * 2)
    sure, wrong = try_libraries(world, [(library, x) for x in models])
    rows, others = sure.probe(), wrong.probe()
    assert rows is not None and others is not None and [x["length"] for x in rows] == [2, 4]
    for row, other in zip(rows, others, strict=True):
        assert row["foreseen"] == row["real"] == other["real"] != other["foreseen"]
    kept = [x for x in sure.trials if x.errors]
    for trial in kept:
        emulator.restore(starts[trial.state].state)
        before = emulator.ram().astype(int)
        for action in library.macros[trial.macro]:
            emulator.step(action)
        moved = np.abs(emulator.ram().astype(int) - before)[[99, 101, 72]]
        np.testing.assert_array_equal(trial.errors[2], moved)
    own = [x.errors[0] for x in kept if x.macro == 1]
    assert rows[1]["trials"] == len(own)
    np.testing.assert_allclose(rows[1]["foreseen"], np.mean(own, axis=0))
