"""Pig: its tables against its rules in plain Python, the exact answers, the games."""

import functools
import json

import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import Turn, check_env_id, count_players, make_env, make_spec, opponents_of
from smz_jax.envs.turns import pig_rules
from smz_jax.envs.turns.pig_env import throw
from smz_jax.envs.turns.pig_rules import HOLD, ROLL

GOAL = 6


def pig(goal=GOAL):
    return EnvConfig(suite="turns", id="Pig", kwargs=f'{{"goal": {goal}}}', frame_stack=1)


def move(own, other, turn, action, face, goal=GOAL):
    """The rules: who moves next (1 or -1; 0: nobody, the mover won), and what that one sees."""
    if action == HOLD:
        return -1, (other, own + turn, 0)
    if face == 1:
        return -1, (other, own, 0)
    if own + turn + face >= goal:
        return 0, None
    return 1, (own, other, turn + face)


def test_the_tables_are_the_rules():
    rules, found = pig_rules.make_rules(GOAL), {}
    number = {tuple(points): state for state, points in enumerate(rules.points.tolist())}
    assert number[0, 0, 0] == 0 and len(number) == GOAL**2 * (GOAL + 1) // 2
    for points, state in number.items():
        for action in (HOLD, ROLL):
            outcomes = []
            for face in range(1, 7):
                turn, after = move(*points, action, face)
                place = state, action, face - 1
                assert rules.discount[place] == turn and rules.reward[place] == (turn == 0)
                assert rules.next_state[place] == (number[after] if after else len(number))
                outcomes.append(after)
            shares = np.unique([str(x) for x in outcomes], return_counts=True)[1] / 6
            found[state, action] = -(shares * np.log(shares)).sum()
    entropy = pig_rules.true_entropy(rules)
    np.testing.assert_allclose(entropy, [[found[s, a] for a in (0, 1)] for s in number.values()])


def test_the_exact_answers():
    """0.6156 for who begins at 20 points (Neller and Presser's equations, solved by others)."""
    values, action_value = pig_rules.optimal_values(20)
    assert (values[0] + 1) / 2 == pytest.approx(0.6156, abs=5e-5) and len(values) == 4201
    rules = pig_rules.make_rules(20)
    best, hold = np.eye(2)[action_value.argmax(axis=1)], np.eye(2)[np.zeros(4200, int)]
    first, second = pig_rules.expected_results(rules, best, best)
    assert first == pytest.approx(values[0]) and second == pytest.approx(-values[0])
    assert pig_rules.expected_results(rules, best, hold) == pytest.approx((1, 1))
    assert pig_rules.expected_results(rules, hold, best) == pytest.approx((-1, -1))
    # Recursion over games of at most n moves: at 12 moves little of the value is left to come.
    rules = pig_rules.make_rules(3)

    @functools.cache
    def worth(points, moves):
        if moves == 0:
            return 0.0
        of_action = []
        for action in (HOLD, ROLL):
            turns = [move(*points, action, face, goal=3) for face in range(1, 7)]
            of_action.append(
                sum(1 if t == 0 else t * worth(after, moves - 1) for t, after in turns) / 6
            )
        return max(of_action)

    own = pig_rules.optimal_values(3)[0]
    expected = [worth(tuple(points), 60) for points in rules.points.tolist()]
    np.testing.assert_allclose(own[:-1], expected, atol=1e-6)


def test_a_player_against_another_by_simulation():
    """A coin's play against the best one's, from both sides, by 4,000 games with other code."""
    rules, (_, action_value) = pig_rules.make_rules(GOAL), pig_rules.optimal_values(GOAL)
    best, coin = np.eye(2)[action_value.argmax(axis=1)], np.full((rules.num_states, 2), 0.5)
    draw, wins = np.random.default_rng(0), np.zeros(2)
    number = {tuple(points): state for state, points in enumerate(rules.points.tolist())}
    for seat in (0, 1):
        for _ in range(2000):
            player, points = 0, (0, 0, 0)
            while True:
                policy = coin if player == seat else best
                action = int(draw.random() < policy[number[points], ROLL])
                turn, after = move(*points, action, int(draw.integers(1, 7)))
                if turn == 0:
                    wins[seat] += 1 if player == seat else -1
                    break
                player, points = player ^ (turn < 0), after
    np.testing.assert_allclose(
        pig_rules.expected_results(rules, coin, best), wins / 2000, atol=0.06
    )


def test_expected_results_are_those_of_sweeps_over_all_states():
    """Random policies, mixed and pure ones, by iteration until nothing changes."""
    draw = np.random.default_rng(0)
    for goal in (2, 5, 8):
        rules = pig_rules.make_rules(goal)
        passes, states = rules.discount < 0, rules.num_states
        mixed = 0.1 + 0.8 * draw.dirichlet([1, 1], states)  # so that sweeps come to an end
        pure, hold = np.eye(2)[draw.integers(0, 2, states)], np.tile([1.0, 0.0], (states, 1))
        for pair in ((mixed, pure), (pure, mixed), (mixed, mixed), (hold, mixed)):
            values = np.zeros((2, states + 1))
            for _ in range(1000):
                for side, policy in enumerate(pair):
                    after = np.where(passes, values[1 - side][rules.next_state],
                                     values[side][rules.next_state])  # fmt: skip
                    q = (rules.reward + rules.discount * after).mean(axis=-1)
                    values[side, :-1] = (policy * q).sum(axis=1)
            expected = values[0, 0], -values[1, 0]
            assert pig_rules.expected_results(rules, *pair) == pytest.approx(expected, abs=1e-6)
        assert pig_rules.expected_results(rules, hold, hold) == (0, 0)  # nobody ever wins


def test_games_follow_the_rules_and_say_who_moves():
    env, rules = make_env(pig(), seed=1, num_envs=16), pig_rules.make_rules(GOAL)
    draw, last, faces, ends = np.random.default_rng(0), env.reset(), [], 0
    assert env.spec == make_spec(pig()) and env.spec.players == 2
    assert last.is_first.all() and not last.player.any()
    for _ in range(300):
        actions = draw.integers(0, 2, 16)
        step, before = env.step(actions), pig_rules.states_of(rules, last.observation[:, 0])
        after = pig_rules.states_of(rules, step.observation[:, 0])
        for lane in range(16):
            if last.game_over[lane]:
                assert step.is_first[lane] and after[lane] == 0 and step.player[lane] == 0
                assert step.reward[lane] == step.raw_reward[lane] == 0
                continue
            place = before[lane], actions[lane]
            possible = rules.next_state[place].tolist()
            assert after[lane] in possible
            face = possible.index(after[lane])
            turned = rules.discount[place][face] < 0
            assert step.player[lane] == last.player[lane] ^ turned
            assert step.terminated[lane] == (after[lane] == rules.num_states)
            assert step.reward[lane] == rules.reward[place][face] == step.terminated[lane]
            assert step.raw_reward[lane] == step.reward[lane] * (1, -1)[last.player[lane]]
            ends += step.terminated[lane]
            if actions[lane] == ROLL:
                faces.append(face == 0)
        last = step
    assert ends > 50 and np.mean(faces) == pytest.approx(1 / 6, abs=0.03)
    env.close()


@pytest.mark.parametrize("players", [3, 4])
def test_several_players_by_the_rules(players):
    """Each frame by points kept here; the winner has 1, which the others have lost together."""
    kwargs = json.dumps({"goal": 9, "players": players})
    config = EnvConfig(suite="turns", id="Pig", kwargs=kwargs, frame_stack=1)
    env, draw, ends = make_env(config, seed=1, num_envs=8), np.random.default_rng(0), 0
    assert env.spec.players == env.spec.sides == count_players(config) == players
    assert not opponents_of(config)
    last, banked, turn = env.reset(), np.zeros((8, players), int), np.zeros(8, int)
    for _ in range(200):
        actions = draw.integers(0, 2, 8)
        step = env.step(actions)
        for lane, mover in enumerate(last.player):
            now = step.player[lane]
            if last.game_over[lane]:
                assert step.is_first[lane] and now == 0 and not step.raw_reward[lane].any()
                banked[lane], turn[lane] = 0, 0
                continue
            passed = (now - mover) % players
            assert passed in (0, 1) and (passed == 1 or actions[lane] == ROLL)
            if step.terminated[lane]:
                ends, own = ends + 1, banked[lane, mover] + turn[lane]
                assert actions[lane] == ROLL and own + 6 >= 9 and passed == 0
                expected = np.where(np.arange(players) == mover, 1, -1 / (players - 1))
                np.testing.assert_allclose(step.raw_reward[lane], expected, rtol=1e-6)
                assert step.reward[lane] == 1 and not step.observation[lane].any()
                continue
            shown = step.observation[lane, 0].reshape(players + 1, 9).argmax(axis=1)
            if actions[lane] == HOLD:
                banked[lane, mover] += turn[lane]
                turn[lane] = 0
            else:
                rolled = shown[players] - turn[lane]
                assert passed or 2 <= rolled <= 6
                turn[lane] = 0 if passed else shown[players]
            assert list(shown) == [*np.roll(banked[lane], -now), turn[lane]]
        last = step
    assert ends > 10
    env.close()


def test_what_three_players_are_worth():
    """Max-n of the tables, by recursion over games of at most so many moves."""
    rules = pig_rules.make_rules(3, players=3)
    number = {tuple(points): state for state, points in enumerate(rules.points.tolist())}
    assert len(number) == 3**3 * 2

    @functools.cache
    def worth(points, moves):
        if moves == 0:
            return np.zeros(3)
        own, *others, turn = points
        of_action = []
        for action in (HOLD, ROLL):
            found = []
            for face in range(1, 7):
                if action == HOLD or face == 1:
                    kept = own + turn * (action == HOLD)
                    found.append(np.roll(worth((*others, kept, 0), moves - 1), 1))
                elif own + turn + face >= 3:
                    found.append(np.array([1, -0.5, -0.5]))
                else:
                    found.append(worth((own, *others, turn + face), moves - 1))
            of_action.append(np.mean(found, axis=0))
        return max(of_action, key=lambda x: x[0])

    expected = [worth(points, 45) for points in number]
    np.testing.assert_allclose(pig_rules.values_of_all(rules), expected, atol=1e-4)


def faces_of(lanes, policy, steps=400):
    """What each throw of the games of a policy showed, by lane, game, turn and throw."""
    env = make_env(pig(12), seed=5, num_envs=lanes)
    step, found, place = env.reset(), {}, np.zeros((lanes, 3), int)
    for t in range(steps):
        actions, before = policy(t), step
        step = env.step(actions)
        for lane in range(lanes):
            if before.terminated[lane]:  # its action is not played
                place[lane] = place[lane, 0] + 1, 0, 0
                continue
            turns = [int(x.observation[lane].ravel()[-12:].argmax()) for x in (before, step)]
            passed = step.player[lane] != before.player[lane]
            if actions[lane] == ROLL and not step.terminated[lane]:
                found[lane, *place[lane].tolist()] = 1 if passed else turns[1] - turns[0]
            place[lane] = (
                (place[lane] + [0, 1, 0]) * [1, 1, 0] if passed else place[lane] + [0, 0, 1]
            )
    env.close()
    return found


def test_the_same_dice_whatever_is_played():
    """A throw depends neither on what was played before nor on the other lanes."""
    rng = np.random.default_rng(0)
    bold = faces_of(4, lambda t: np.full(4, ROLL))
    for other in (
        faces_of(4, lambda t: rng.integers(0, 2, 4)),
        faces_of(2, lambda t: np.full(2, ROLL)),
    ):
        both = bold.keys() & other.keys()
        assert len(both) > 100 and max(game for _, game, _, _ in both) > 5
        assert all(bold[key] == other[key] for key in both)


def test_dice_are_fair_and_independent():
    """Counts of the faces, and of pairs of faces of neighbours, within five standard errors."""
    keys = np.random.default_rng(0).integers(0, 2**63, 60, dtype=np.uint64)
    lanes, *numbers = np.indices((60, 10, 10, 10)).reshape(4, -1)
    faces = throw(keys[lanes], np.array(numbers)).reshape(60, 10, 10, 10) - 1
    assert set(faces.ravel().tolist()) == set(range(6))
    for axis in range(4):
        first, second = faces, np.roll(faces, 1, axis)
        for shown, kinds in ((first, 6), (6 * first + second, 36)):
            counts, chance = np.bincount(shown.ravel(), minlength=kinds), 1 / kinds
            error = np.sqrt(faces.size * chance * (1 - chance))
            assert np.abs(counts - faces.size * chance).max() < 5 * error


def test_the_best_player_reads_what_is_seen():
    rules, (_, action_value) = pig_rules.make_rules(42), pig_rules.optimal_values(42)
    frames = pig_rules.observations(rules)
    states = np.append(np.random.default_rng(0).integers(0, rules.num_states, 200), len(frames) - 1)
    np.testing.assert_array_equal(pig_rules.states_of(rules, frames[states]), states)
    best = opponents_of(pig(42))["exact"].make(0)
    states[:100] = np.flatnonzero(action_value.argmax(axis=1) == HOLD)[:100]
    turn = Turn(frames[states[:-1]], np.zeros((200, 2)), np.arange(200))
    np.testing.assert_array_equal(best.act(turn), action_value[states[:-1]].argmax(1))


@pytest.mark.parametrize(
    ("kwargs", "what"),
    [
        ('{"goal": 1}', "goal"),
        ('{"goal": true}', "goal"),
        ('{"players": 5}', "players"),
        ('{"dice": 2}', "env.kwargs"),
    ],
)
def test_wrong_options_are_refused(kwargs, what):
    with pytest.raises(ConfigError, match=what):
        check_env_id(EnvConfig(suite="turns", id="Pig", kwargs=kwargs))
    with pytest.raises(ConfigError, match="Pig where"):
        check_env_id(EnvConfig(suite="turns", id="Sow"))
    assert count_players(pig()) == 2 and count_players(EnvConfig()) == 1
