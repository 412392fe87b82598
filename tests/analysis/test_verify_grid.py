"""Macros in the grid world: an exact model, one that holds everything to be certain, and a run."""

import dataclasses
import functools
import itertools
import json
import shutil

import numpy as np
import pytest

from experiments import verify as command
from smz_jax.analysis.verify import grid_world as counting
from smz_jax.analysis.verify.foresight import Model, make_foresight
from smz_jax.analysis.verify.grid_world import (
    GridWorld,
    count_pairs,
    follow,
    pair_shares,
    states_of,
)
from smz_jax.analysis.verify.session import try_libraries
from smz_jax.analysis.verify.tried_libraries import WITH_HEAD, Library
from smz_jax.config.check import ConfigError
from tests.analysis import test_grid_check as exact
from tests.support.verify_parts import read_verification

RULES = exact.RULES
CONFIG = dataclasses.replace(
    exact.CONFIG,
    macro=dataclasses.replace(exact.CONFIG.macro, max_length=4),
    loss=dataclasses.replace(exact.CONFIG.loss, consistency=0.0),
)
WORLD = GridWorld(CONFIG)
MACROS = ((1, 3), (0, 1), (2, 1, 1), (3, 3, 3, 3), (1, 1), (2, 2, 1, 1))


@functools.cache
def model_of(**changes):
    return Model(make_foresight(exact.exact_networks(**changes), CONFIG, 4), exact.PARAMS)


def paths(state, actions):
    """Every way that a sequence can go, as (probability, states, rewards): plain recursion.

    None where a way without chance goes on past an end.
    """
    if not actions:
        return [(1.0, [], [])]
    found = []
    for slot in range(RULES.probability.shape[2]):
        chance = RULES.probability[state, actions[0], slot]
        if chance > 0:
            after, reward = (
                RULES.next_state[state, actions[0], slot],
                RULES.reward[state, actions[0], slot],
            )
            found += [
                (chance * p, [int(after), *states], [reward, *rewards])
                for p, states, rewards in paths(after, actions[1:])
            ]
    return found


def truth(state, actions):
    """`None` past an end, else whether the sequence is deterministic, by plain stepping."""
    for action in actions:
        if RULES.terminal[state]:
            return None
        ways = np.flatnonzero(RULES.probability[state, action])
        if len(ways) > 1:
            return False
        state = int(RULES.next_state[state, action, ways[0]])
    return True


def test_all_pairs_of_an_exact_model_and_a_plain_recount():
    pairs, starts = count_pairs(model_of(), WORLD, WORLD.starts, np.random.default_rng(0))
    assert starts == len(WORLD.starts) > 5
    for found in pairs:
        sequences = itertools.product(range(4), repeat=found.length)
        told = [truth(int(s), x) for x in sequences for s in WORLD.starts]
        assert found == (found.length, told.count(True), 0, 0)
    assert pair_shares(pairs) == {"precision": 1.0, "recall": 1.0}


def test_states_are_known_by_what_is_seen_of_them():
    some = WORLD.starts[[4, 1, 4]]
    assert states_of(WORLD, WORLD.observations[some]).tolist() == sorted(set(some.tolist()))
    blank = np.full_like(WORLD.observations[:1], 9)
    assert not states_of(WORLD, blank).size


def test_a_model_that_holds_everything_to_be_certain_is_found_out(monkeypatch):
    model = model_of(certain=True)
    pairs, _ = count_pairs(model, WORLD, WORLD.starts, np.random.default_rng(0))
    for found in pairs:
        sequences = itertools.product(range(4), repeat=found.length)
        told = [truth(int(s), x) for x in sequences for s in WORLD.starts]
        assert (found.both, found.missed) == (told.count(True), 0)
        assert found.wrongly == told.count(False)
    assert pair_shares(pairs)["precision"] < 0.1
    # With too many pairs some start states are drawn.
    monkeypatch.setattr(counting, "MAX_PAIRS", 3 * 340)
    fewer, starts = count_pairs(model, WORLD, WORLD.starts, np.random.default_rng(0))
    assert starts == 3 and 0 < fewer[0].wrongly < pairs[0].wrongly
    assert pair_shares([]) == {"precision": None, "recall": None}


def test_following_a_macro_equals_plain_recursion():
    gamma = CONFIG.learner.gamma
    for macro in MACROS:
        path = follow(WORLD, macro)
        for row, state in enumerate(WORLD.starts):
            told = truth(int(state), macro)
            assert path.possible[row] == (told is not None)
            if told is None:
                continue
            ways = paths(state, macro)
            assert path.alone[row] == told == (len(ways) == 1)
            worth = sum(
                p * (sum(gamma**i * r for i, r in enumerate(rewards))
                     + gamma ** len(macro) * WORLD.values[states[-1]])
                for p, states, rewards in ways
            )  # fmt: skip
            assert path.gain[row] == pytest.approx(worth - WORLD.values[state])
            if told:
                assert path.end[row] == ways[0][1][-1]
                assert path.reward[row] == pytest.approx(sum(ways[0][2]))


def tried(**changes):
    library = Library("macros", MACROS, ("sound",) * 6)
    (found,) = try_libraries(WORLD, [(library, model_of(**changes))])
    return found, found.tally()


def test_every_application_of_an_exact_model_holds():
    found, sums = tried()
    expected = {
        (index, number)
        for index, macro in enumerate(MACROS)
        for number, state in enumerate(WORLD.starts)
        if truth(int(state), macro)
    }
    assert {(x.macro, x.state) for x in found.trials if x.applies} == expected
    assert found.applied.sum() == len(expected) == sums["held"]["trials"] > 5
    assert all(x.holds == x.applies for x in found.trials)
    assert (
        sums["held"]["mean"] == sums["nearest"]["mean"] == 1.0
        and sums["held_anywhere"]["mean"] < 0.7
    )
    possible = sum(truth(int(s), m) is not None for m in MACROS for s in WORLD.starts)
    assert len(found.trials) == possible == sums["held_anywhere"]["trials"]


def test_models_that_are_wrong_in_a_known_way_fail():
    _, wrong = tried(certain=True)
    _, right = tried()
    assert wrong["held"]["high"] < right["held"]["low"] and wrong["nearest"]["mean"] < 0.5
    found, shifted = tried(reward_shift=0.3)
    assert shifted["nearest"]["mean"] == 1.0 and shifted["held"]["mean"] == 0.0
    assert not any(x.paid for x in found.trials)


def test_a_run_from_end_to_end(tiny_run, tmp_path, capsys):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    asked = ["--macros", "4", "--max_steps", "30", "--seed", "1", "--any_status"]
    assert command.main([str(run), *asked]) == 0
    told = capsys.readouterr().out
    document = read_verification(run / "verify.json")
    plain = [x for x in document["libraries"] if not x["name"].endswith(WITH_HEAD)]
    assert [x["name"] for x in plain] == [
        "macros", "macros, certain only", "shuffled play", "shuffled macros", "random",
        "untrained network",
    ]  # fmt: skip
    assert {len(x["macros"]) for x in plain} == {4}
    assert all(x["totals"]["whole"] == x["totals"]["nearest"] for x in document["libraries"])
    assert document["ceiling"]["saved"]["bits_per_action"] >= 0
    assert document["checkpoint"] == "last"
    assert document["gate"]["closed"] in told and "verify.md" in told
    assert "## untrained network" in (run / "verify.md").read_text()
    assert document["play"]["games"] == 64 and document["play"]["held_out"] > 0
    # All is under the threshold of 1: the rules alone decide how precise that is.
    reached, every, untrained = document["pairs"]
    assert 0 < reached["starts"] <= every["starts"] and untrained["starts"] == reached["starts"]
    lengths = reached["lengths"]
    assert [x["length"] for x in lengths] == [2, 3] and lengths[0]["missed"] == 0


def another_schema(run):
    path = run / "macros.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))


def another_suite(run):
    path = run / "config.yaml"
    text = path.read_text().replace("suite: grid", "suite: gym").replace("GridWorld", "CartPole-v1")
    path.write_text(text)


@pytest.mark.parametrize(
    ("harm", "flags", "words"),
    [
        (another_schema, (), ("macros.json", "schema = 99")),
        (lambda run: (run / "macros.json").write_text('{"schema'), (), ("macros.json",)),
        (
            lambda run: shutil.rmtree(run / "checkpoints"),
            (),
            ("holds no checkpoint", "what would work"),
        ),
        (
            lambda run: shutil.rmtree(run / "checkpoints" / "best"),
            ("--checkpoint", "best"),
            ("--checkpoint = 'best'", "last (the only one that the run has)"),
        ),
        (
            lambda run: shutil.rmtree(run / "checkpoints" / "last"),
            (),
            ("--checkpoint = 'last'", "best (the only one that the run has)"),
        ),
        (another_suite, (), ("env.suite = 'gym'", "atari", "grid")),
        (shutil.rmtree, (), ("run",)),
        (lambda run: None, ("--games", "1"), ("games = 1", "in 2..1024")),
        (lambda run: None, ("--gamse", "2"), ("--gamse",)),
    ],
)
def test_what_cannot_be_verified_is_one_line(tiny_run, tmp_path, harm, flags, words):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    harm(run)
    with pytest.raises(ConfigError) as caught:
        command.main([str(run), *flags])
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text
    assert not (run / "verify.json").exists()


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_played(tiny_run, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=r"FOLDER = .*a folder that can be written"):
        command.main([str(tiny_run)])
