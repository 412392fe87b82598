"""Macros in Breakout's emulator, judged of models that play: they foresee what really happens."""

import dataclasses
import functools
import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from smz_jax.analysis.load import fit_params
from smz_jax.analysis.requests import VerifyRequest
from smz_jax.analysis.verify import emulator_world
from smz_jax.analysis.verify.document import tally
from smz_jax.analysis.verify.emulator_world import EmulatorWorld, chance_seeds, same_actions
from smz_jax.analysis.verify.foresight import (
    NEVER,
    Foreseen,
    Foresight,
    Measure,
    Model,
    make_foresight,
)
from smz_jax.analysis.verify.played import StartState, play_emulator
from smz_jax.analysis.verify.session import check_library_of, try_libraries, verify
from smz_jax.analysis.verify.tried_libraries import Library
from smz_jax.config.check import ConfigError
from smz_jax.config.experiment import Experiment, resolve
from smz_jax.config.settings import Config, EnvConfig
from smz_jax.envs.atari.emulator import Emulator, play_sequence
from smz_jax.model.networks import make_networks
from smz_jax.storage.documents.verify_json import VERIFICATION
from smz_jax.storage.export import Exported
from smz_jax.storage.weights import named_weights
from tests.support.verify_parts import library_of, macro_entry

FIRE, RIGHT, LEFT = 1, 2, 3
MIRROR = {0: 0, 1: 1, RIGHT: LEFT, LEFT: RIGHT}
CONFIG = Config()
GAMMA = CONFIG.learner.gamma


@functools.cache
def opened(**settings):
    return Emulator(EnvConfig(**settings))


class Player:
    """Acts by the number of the step."""

    def __init__(self, act):
        self.act = act
        self.decision = SimpleNamespace(transition_entropy=np.array([0.25], np.float32))

    def __call__(self, timestep, count):
        assert timestep.observation.shape == (1, 4, 84, 84)
        return np.array([self.act(count)], np.int32)


def random_action(count):
    return int(np.random.default_rng(count).integers(4))


def worth(observations):
    """What the models below hold observations to be worth."""
    return np.asarray(observations, np.float64).reshape(len(observations), -1).mean(axis=1) / 255


def flat(seen):
    return seen.reshape(len(seen), -1).astype(np.float32)


class Oracle:
    """Foresees by playing; an embedding is the observation. `mirrored` takes LEFT for RIGHT.

    `sees` is what it foresees of an end; ends are compared in a `space`; `ends`: also lost lives.
    """

    def __init__(
        self, emulator, starts, mirrored=False, shift=0.0, sees=None, space=flat, ends=True
    ):
        self.emulator, self.mirrored, self.shift = emulator, mirrored, shift
        self.sees, self.space, self.ends = sees or (lambda end, start: end), space, ends
        self.known = {x.state.step.observation.tobytes(): x.state for x in starts}
        self.memory = {}

    def model(self):
        return Model(
            Foresight(
                look=lambda params, seen: np.asarray(seen),
                place=lambda params, seen: self.space(seen),
                value=lambda params, seen: worth(seen),
                foresee=self.foresee,
                applies=lambda params, seen, actions: actions[:, 0] != FIRE,
                expand=None,  # type: ignore[arg-type]
            ),
            object(),
        )

    def foresee(self, params, seen, actions):
        found = [
            self.one(x.tobytes(), tuple(row[row >= 0]))
            for x, row in zip(seen, actions, strict=True)
        ]
        ends, rewards, over = zip(*found, strict=True)
        return Foreseen(np.stack(ends), np.array(rewards, np.float32), np.array(over))

    def one(self, start, actions):
        if (start, actions) not in self.memory:
            step = self.emulator.restore(self.known[start], seed=0)
            total, over, first = self.shift, NEVER, step
            for number, action in enumerate(actions, 1):
                lives = step.lives
                step = self.emulator.step(int(MIRROR[action] if self.mirrored else action))
                total += np.sign(step.reward)
                if self.ends and over == NEVER and (step.terminated or step.lives < lives):
                    over = number
                if step.terminated:
                    break
            end = self.space(self.sees(step.observation, first.observation)[None])[0]
            self.memory[start, actions] = end, total, over
        return self.memory[start, actions]


def moves_the_paddle(state):
    """Not where it is far beyond a wall, and what is played shows in nothing, or FIRE is due."""
    emulator, ends = opened(), set()
    now = emulator.clone()
    for actions in ([RIGHT] * 2, [LEFT] * 2, [0, 0]):
        (run,) = play_sequence(emulator, state, actions, [0])
        ends.add(run.frames[-1].tobytes())
    emulator.restore(now)
    return len(ends) == 3 and not state.step.invalid_actions.any()


@functools.cache
def rewarding_start():
    """A state before a brick is hit, and the three actions that hit it."""
    emulator = opened()
    for seed in range(20):
        emulator.reset(seed)
        clones, actions = [], []
        for count in range(150):
            clones.append(emulator.clone())
            actions.append(random_action(1000 * seed + count))
            step = emulator.step(actions[-1])
            if step.reward > 0 and moves_the_paddle(clones[-3]):
                return StartState(clones[-3], 0, count - 2), tuple(actions[-3:])
            if step.terminated:
                break
    raise AssertionError("no brick was hit")


@functools.cache
def some_starts():
    played = play_emulator(
        Player(random_action), opened(), CONFIG, games=1, max_steps=60, keep=3, seed=4
    )  # type: ignore[arg-type]
    return [rewarding_start()[0], *played.starts]


def macros():
    return ((RIGHT, RIGHT), (LEFT, LEFT), rewarding_start()[1], (LEFT, 0, LEFT), (FIRE, RIGHT))


@functools.cache
def tried(mirrored=False, shift=0.0):
    emulator, starts = opened(), some_starts()
    model = Oracle(emulator, starts, mirrored, shift).model()
    world = EmulatorWorld(
        emulator, starts, Player(lambda count: RIGHT), model, CONFIG, 2, 2, 9  # type: ignore[arg-type]
    )  # fmt: skip
    library = Library("macros", macros(), ("sound",) * 5)
    (found,) = try_libraries(world, [(library, model)])
    return found


def short_pool(length, num_actions, rng):
    return list(itertools.product(range(num_actions), repeat=length))[::-1][:30]


@pytest.fixture(autouse=True)
def known_pools(monkeypatch):
    monkeypatch.setattr(emulator_world, "draw_pool", short_pool)


def plainly(start, actions):
    """Steps of a sequence: (frame, learned reward, lives), and where the episode ended, or None."""
    emulator = opened()
    step, rows, over = emulator.restore(start.state), [], None
    for number, action in enumerate(actions):
        lives = step.lives
        step = emulator.step(action)
        rows.append((step.observation, float(np.sign(step.reward)), step.lives))
        if over is None and (step.terminated or step.lives < lives):
            over = number
    return rows, over


def test_games_are_what_the_agent_played_and_states_lie_on_the_way():
    emulator = opened()
    played = play_emulator(
        Player(random_action), emulator, CONFIG, games=2, max_steps=110, keep=5, seed=3
    )  # type: ignore[arg-type]
    rng, count = np.random.default_rng(3), 0
    starts = {(x.game, x.step): x.state for x in played.starts}
    assert len(starts) == 5
    for game in range(2):
        noops, seed = int(rng.integers(31)), int(rng.integers(2**32))
        step, score = emulator.reset(seed, noops), 0.0
        expected: list[list[int]] = [[]]
        for number in range(110):
            if (game, number) in starts:
                found = starts.pop((game, number)).step.observation
                np.testing.assert_array_equal(found, step.observation)
                assert not step.invalid_actions.any()
            lives = step.lives
            expected[-1].append(random_action(count))
            step, count = emulator.step(random_action(count)), count + 1
            score += step.reward
            if step.lives < lives:
                expected.append([])
        assert score == played.scores[game]
        ours = [x.actions.tolist() for x in played.pieces if x.game == game]
        assert ours == [x for x in expected if x]
    assert len(played.pieces) > 2 and not starts


def test_all_trials_of_a_model_that_foresees_everything_hold():
    found = tried()
    counted = [x for x in found.trials if x.counts]
    assert len(counted) >= 8 and all(x.nearest and x.told_apart and x.paid for x in counted)
    sums = tally(found.trials, found.applied)
    assert sums["held"]["mean"] == sums["held_anywhere"]["mean"] == 1.0
    assert sums["repeats"]["mean"] == 1.0 and sums["paid_rewarded"]["trials"] >= 1


def test_trials_equal_a_plain_recount():
    found, starts = tried(), some_starts()
    assert found.applied.tolist() == [[m[0] != FIRE] * len(starts) for m in macros()]
    for index in range(len(macros())):
        # Two states for all; those two are enough where the macro applies.
        assert [x.state for x in found.trials if x.macro == index] == [0, 1]
    for trial in found.trials:
        macro, start = macros()[trial.macro], starts[trial.state]
        rows, over = plainly(start, macro)
        last = len(macro) - 1
        assert trial.cut == (over is not None and over < last)
        assert trial.lives == start.state.step.lives - rows[-1][2]
        lived = rows if over is None else rows[: over + 1]
        rewards = [row[1] for row in lived]
        assert trial.rewarded == any(rewards)
        value = 0.0 if over is not None else worth(rows[-1][0][None])[0]
        mine = sum(GAMMA**i * r for i, r in enumerate(rewards)) + GAMMA ** len(rewards) * value
        greedy, ended = plainly(start, [RIGHT] * len(macro))
        greedy = greedy if ended is None else greedy[: ended + 1]
        value = 0.0 if ended is not None else worth(greedy[-1][0][None])[0]
        theirs = sum(GAMMA**i * row[1] for i, row in enumerate(greedy))
        assert trial.gain == pytest.approx(mine - theirs - GAMMA ** len(greedy) * value, abs=1e-6)
        frame = rows[-1][0][-1]
        others = [x for x in short_pool(len(macro), 4, None) if x != macro]
        elsewhere = sum((plainly(start, x)[0][-1][0][-1] != frame).any() for x in others)
        assert trial.rivals == min(elsewhere, 19)
        assert (trial.applies, trial.drawn) == (macro[0] != FIRE, True)
    assert any(x.rivals == 14 for x in found.trials)  # NOOP, RIGHT ends as FIRE, RIGHT
    rewarded = [x for x in found.trials if x.macro == 2 and x.state == 0]
    assert [x.rewarded for x in rewarded] == [True]


def test_models_that_are_wrong_in_a_known_way_fail():
    moves = [x for x in tried(mirrored=True).trials if x.macro in (0, 1) and x.counts]
    right = [x for x in tried().trials if x.macro in (0, 1) and x.counts]
    assert len(moves) == len(right) >= 3 and sum(x.nearest or x.told_apart for x in moves) <= 1
    shifted = [x for x in tried(shift=0.3).trials if x.counts]
    assert all(x.nearest and not x.paid for x in shifted)


def test_under_sticky_actions_each_run_has_chance_of_its_own():
    emulator, start = opened(sticky_prob=0.25), rewarding_start()[0]
    config = dataclasses.replace(CONFIG, env=EnvConfig(sticky_prob=0.25))
    model = Oracle(emulator, [start]).model()
    world = EmulatorWorld(
        emulator, [start], Player(lambda count: RIGHT), model, config, 1, 4, 9  # type: ignore[arg-type]
    )  # fmt: skip
    macro = (LEFT, RIGHT, LEFT)
    (found,) = try_libraries(world, [(Library("macros", (macro,), ("sound",)), model)])
    seeds = chance_seeds(9, 0, 4)
    ends = []
    for seed in seeds:
        emulator.restore(start.state, seed=seed)
        for action in macro:
            step = emulator.step(action)
        ends.append((step.observation[-1].tobytes(), emulator.ram().tobytes()))
    assert len(found.trials) == 4 and len({ram for _, ram in ends}) > 1
    assert all(x.repeats is False for x in found.trials)
    # Runs that really end alike are judged alike, and the oracle foresees one end only.
    emulator.restore(start.state, seed=0)
    for action in macro:
        foreseen = emulator.step(action).observation[-1].tobytes()
    for trial, (frame, _) in zip(found.trials, ends, strict=True):
        assert trial.nearest or frame != foreseen


def test_under_sticky_actions_deterministic_is_what_ends_in_the_same_memory():
    emulator, starts = opened(sticky_prob=0.25), some_starts()
    config = dataclasses.replace(CONFIG, env=EnvConfig(sticky_prob=0.25))
    model = Oracle(emulator, starts).model()
    sizes = (len(starts), 3, 9)
    world = EmulatorWorld(emulator, starts, Player(lambda count: RIGHT), model, config, *sizes)  # type: ignore[arg-type]
    tried, expected = [(0, FIRE), (0, 0, 0), (RIGHT, LEFT), (LEFT, LEFT)], []
    for macro in tried:
        same = 0
        for state, start in enumerate(starts):
            ends = set()
            for seed in chance_seeds(9, state, 3):
                emulator.restore(start.state, seed=seed)
                for action in macro:
                    emulator.step(action)
                ends.add(emulator.ram().tobytes())
            same += len(ends) == 1
        expected.append(same >= 0.9 * len(starts))
    assert world.are_deterministic(tried) == expected and not expected[2]
    plain = EmulatorWorld(emulator, starts, Player(lambda count: RIGHT), model, CONFIG, *sizes)  # type: ignore[arg-type]
    assert plain.are_deterministic(tried) == [True] * 4


@functools.cache
def tiny_model():
    """A Breakout model that was never trained; acts by its prior, which compiles fast."""
    changes = {"search.num_simulations": 0, "eval.noop_max": 3, "macro.play_threshold": 1.0}
    config = resolve(Experiment("breakout"), "tiny", {}, changes)
    networks = make_networks(config.network, opened().spec)
    params = jax.jit(networks.init)(jax.random.key(5))
    about = {
        "experiment": "breakout", "seed": 0, "checkpoint": "best", "env_steps": 128,
        "action_names": list(opened().spec.action_names),
    }  # fmt: skip
    library = library_of(macro_entry((2, 2), "refuted"), macro_entry((3, 3, 1), "refuted"))
    return Exported(config, named_weights(params), about, [], library)


def test_from_end_to_end_with_a_gate_that_closed(tmp_path):
    request = VerifyRequest(tmp_path, macros=3, states=1, games=2, max_steps=12)
    said = []
    document = verify(tiny_model(), request, said.append)
    VERIFICATION.check(document, tmp_path)
    real, *others = document["libraries"]
    assert real["macros"] == [] and document["gate"]["closed"] == "repeatability"
    for library in others:
        assert sorted(len(x["actions"]) for x in library["macros"]) == [2, 3], library["name"]
        assert library["totals"]["held_anywhere"]["trials"] >= 1
        assert library["totals"]["repeats"]["mean"] in (None, 1.0)
    assert document["play"]["actions"] == 24 and len(said) == 3


def test_told_apart_is_nearest_the_other_way_round():
    """A model that is wrong here and there, against cosines that NumPy takes one by one."""

    class Noisy(Oracle):
        def one(self, start, actions):
            end, *others = super().one(start, actions)
            noise = np.random.default_rng(actions).normal(0, 250, end.shape)
            return (end + noise).astype(np.float32), *others

    starts = some_starts()
    oracle = Noisy(opened(), starts)
    model = oracle.model()
    world = EmulatorWorld(
        opened(), starts, Player(lambda count: RIGHT), model, CONFIG, 2, 1, 9  # type: ignore[arg-type]
    )  # fmt: skip
    (found,) = try_libraries(world, [(Library("macros", macros(), ("sound",) * 5), model)])
    centre = np.mean([x.state.step.observation.ravel() for x in starts], axis=0, dtype=np.float64)

    def cosine(x, y):
        x, y = x.ravel() - centre, y.ravel() - centre
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y)

    answers = set()
    for trial in found.trials:
        macro, start = macros()[trial.macro], starts[trial.state]
        ends = {x: plainly(start, x)[0][-1][0] for x in short_pool(len(macro), 4, None)}
        own = ends[macro] if macro in ends else plainly(start, macro)[0][-1][0]
        rivals = [x for x, end in ends.items() if (end[-1] != own[-1]).any()][:19]
        key = start.state.step.observation.tobytes()
        foreseen = {x: oracle.one(key, x)[0] for x in (macro, *rivals)}
        told = all(cosine(foreseen[macro], own) > cosine(foreseen[macro], ends[x]) for x in rivals)
        near = all(cosine(foreseen[macro], own) > cosine(foreseen[x], own) for x in rivals)
        assert (trial.told_apart, trial.nearest) == (told, near)
        answers.add((told, near))
    assert any(told != near for told, near in answers)


def test_actions_that_do_the_same():
    """In flight FIRE does nothing; LEFT and RIGHT do."""
    starts = [x for x in some_starts() if moves_the_paddle(x.state)]
    assert same_actions(opened(), starts, CONFIG, 3) == [0, 0, RIGHT, LEFT]
    assert same_actions(opened(), [], CONFIG, 3) == [0, 1, 2, 3]


def test_a_foreseen_end_does_not_depend_on_what_else_is_asked():
    """The projection holds batch norms: alone, or beside anything, a row comes to the same."""
    model, rng = tiny_model(), np.random.default_rng(0)
    networks = make_networks(model.config.network, opened().spec)
    assert model.config.loss.consistency > 0
    params = fit_params(networks, model.weights)
    foresight = make_foresight(networks, model.config, 4)
    among = rng.random((12, model.config.network.embedding_size), np.float32)
    measure = Measure(params, among)
    rows, actions = among[:7], rng.integers(0, 4, (7, 3)).astype(np.int32)
    together = foresight.foresee(measure, rows, actions).end
    placed = foresight.place(measure, rows)
    for row in (0, 3, 6):
        alone = foresight.foresee(measure, rows[row : row + 1], actions[row : row + 1]).end
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            foresight.place(measure, rows[row : row + 1])[0], placed[row], rtol=1e-4, atol=1e-4
        )
    # The states of play themselves are placed as a batch of training is.
    whole = networks.project(params, among, False)
    np.testing.assert_allclose(foresight.place(measure, among), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m._replace(macros=None), ("no macros.json",)),
        (
            lambda m: m._replace(macros={**m.macros, "action_names": ["UP", "DOWN"]}),
            ("action_names", "UP", "NOOP, FIRE, RIGHT, LEFT"),
        ),
        (
            lambda m: m._replace(macros=library_of(macro_entry((2,) * 7))),
            ("length = 7", "macro.max_length = 3"),
        ),
        (
            lambda m: m._replace(
                config=dataclasses.replace(
                    m.config, env=dataclasses.replace(m.config.env, suite="pgx", id="2048")
                )
            ),
            ("env.suite = 'pgx'", "atari", "grid"),
        ),
    ],
)
def test_models_that_cannot_be_verified(change, words):
    with pytest.raises(ConfigError) as caught:
        check_library_of(change(tiny_model()))
    text = str(caught.value)
    assert all(word in text for word in words) and "\n" not in text


def test_a_game_that_ale_does_not_have(tmp_path):
    model = tiny_model()
    env = dataclasses.replace(model.config.env, id="Breakot")
    model = model._replace(config=dataclasses.replace(model.config, env=env))
    with pytest.raises(ConfigError, match="did you mean Breakout"):
        verify(model, VerifyRequest(tmp_path))
