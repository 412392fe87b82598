"""Rules of the grid world: by hand, by brute force, by linear algebra, by Monte Carlo."""

import functools
import json
import re
import time

import numpy as np
import pytest
from scipy import ndimage

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import check_env_id
from smz_jax.envs.grid.map import (
    MAPS,
    GridMap,
    generate_map,
    generate_maze,
    map_from_kwargs,
    read_map,
)
from smz_jax.envs.grid.rules import (
    evaluation_returns,
    finite_horizon,
    greedy_policy,
    is_random,
    make_rules,
    mean_reward,
    optimal_values,
    reachable,
    sample_paths,
    state_distributions,
    transition_matrix,
    true_entropy,
)

UP, RIGHT, DOWN, LEFT = range(4)
LN2, LN3 = 0.6931471805599453, 1.0986122886681098


def state_at(rules, y, x, paid=False):
    found = (rules.place == (y, x)).all(axis=1) & (rules.paid == paid)
    (state,) = np.flatnonzero(found)
    return int(state)


def outcomes(rules, state, action):
    """What may follow, as {(row, column, paid, reward): probability}."""
    found = {}
    for slot, chance in enumerate(rules.probability[state, action]):
        if chance > 0:
            after = rules.next_state[state, action, slot]
            key = (*map(int, rules.place[after]), bool(rules.paid[after]))
            found[(*key, round(float(rules.reward[state, action, slot]), 9))] = chance
    return found


# --- maps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAPS)
def test_text_round_trip(name):
    grid = read_map(name)
    assert read_map(grid.text) == grid == read_map(grid.text.replace("\n", "/"))
    assert grid.text == MAPS[name].strip()


def test_deterministic_is_the_same_map_without_chance():
    slippery, twin = read_map("slippery"), read_map("deterministic")
    assert slippery.text.replace("~", ".") == twin.text
    assert is_random(make_rules(slippery)).any() and not is_random(make_rules(twin)).any()
    certain = make_rules(read_map("slippery", slip=0.0))
    np.testing.assert_array_equal(transition_matrix(certain), transition_matrix(make_rules(twin)))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"map": "S../.."}, "lines of equal length: line 1 has 3 cells, line 2 2"),
        ({"map": "S.\nXG"}, "line 2 has 'X'"),
        ({"map": "S../..."}, "a map with a goal G"),
        ({"map": "../.G"}, "a map with a start S"),
        ({"map": "S#G"}, "open from (0, 0) to a goal"),
        ({"map": "SOG"}, "open from (0, 0) to a goal"),
        ({"map": "slipery"}, "one of generated, maze, slippery, deterministic"),
        ({"map": ""}, "lines of cells, or one of"),
        ({"map": "S" * 65 + "G"}, "at most 64 x 64 cells"),
        ({"map": 3}, "text"),
        ({"slip": 1.5}, "in [0, 1]"),
        ({"slip": True}, "a number"),
        ({"prize": float("nan")}, "a JSON object"),
        ({"walls": 0.1}, "one of map, observation, slip"),
        ({"map": "generated", "walls": 0.9, "pits": 0.2}, "add up to at most 1"),
        ({"map": "generated", "size": 1}, "env.kwargs.size = 1 is not allowed: it must be a whole"),
        ({"map": "generated", "seed": 5, "size": 2.0}, "env.kwargs.size = 2.0"),
        ({"map": "generated", "seed": True}, "env.kwargs.seed = True"),
        ({"map": "generated", "size": 4, "walls": 1.0, "slippery": 0, "pits": 0}, "no map of seed"),
        ({"map": "generated", "slip": -1}, "in [0, 1]"),
        ({"map": "maze", "size": 8}, "env.kwargs.size = 8 is not allowed: it must be an odd"),
        ({"map": "maze", "loops": 2}, "env.kwargs.loops = 2"),
        ({"map": "maze", "pits": 0.1}, "one of map, observation, slip"),
        ({"observation": "sound"}, "one of vector, image"),
    ],
)
def test_what_cannot_be_played_is_answered_in_one_line(kwargs, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        config = EnvConfig(suite="grid", id="GridWorld", kwargs=json.dumps(kwargs))
        check_env_id(config)
    assert "\n" not in str(caught.value)


def test_other_ids_are_refused():
    with pytest.raises(ConfigError, match="GridWorld"):
        check_env_id(EnvConfig(suite="grid", id="Breakout"))


def test_mazes_join_all_rooms_and_follow_their_shares():
    wanted = {"map": "maze", "seed": 3, "size": 15, "slip": 0.5}
    assert generate_maze(3, 15, slip=0.5) == map_from_kwargs(wanted) != generate_maze(4, 15)
    for seed in range(5):
        plain = generate_maze(seed, 11, loops=0.0, starts=0.0)
        cells = plain.cells != "#"
        # A tree: 36 rooms, joined by 35 openings, and no way is closed.
        assert np.all(cells[::2, ::2]) and cells.sum() == 71 and not np.any(cells[1::2, 1::2])
        assert ndimage.label(cells)[1] == 1
        assert plain.find("S") == [(0, 0)] and plain.find("G") == [(10, 10)]
    texts = [generate_maze(s, 15, loops=0.3, slippery=0.2, starts=0.1).text for s in range(30)]
    shares = [sum(text.count(cell) for text in texts) / 30 for cell in "#.~S"]
    # 225 cells: 64 rooms, 63 openings and 0.3 of the other 49 walls between rooms.
    floor = 64 + 63 + 0.3 * 49
    expected = [225 - floor, 0.8 * 0.9 * floor, 0.2 * 0.9 * floor, 0.1 * floor]
    np.testing.assert_allclose(shares, expected, atol=3)


def test_generated_maps_follow_their_seed_and_shares():
    grid = generate_map(3, 12, slippery=0.3, pits=0.1, walls=0.1, coins=0.1, slip=0.5)
    assert grid == generate_map(3, 12, slippery=0.3, pits=0.1, walls=0.1, coins=0.1, slip=0.5)
    assert grid != generate_map(4, 12, slippery=0.3, pits=0.1, walls=0.1, coins=0.1, slip=0.5)
    assert grid == map_from_kwargs(
        {"map": "generated", "seed": 3, "size": 12, "slippery": 0.3}
        | {"pits": 0.1, "walls": 0.1, "coins": 0.1, "slip": 0.5}
    )
    assert grid.slip == 0.5 and grid.find("S") == [(0, 0)] and grid.find("G") == [(11, 11)]
    texts = [generate_map(seed, 12, slippery=0.3, coins=0.1).text for seed in range(30)]
    share = np.mean([text.count("~") / 144 for text in texts])
    assert abs(share - 0.3) < 0.02
    assert abs(np.mean([text.count("$") / 144 for text in texts]) - 0.1) < 0.02
    for seed in range(30):
        rules = make_rules(generate_map(seed, 6))
        goal = state_at(rules, 5, 5)
        reach = np.linalg.matrix_power(
            transition_matrix(rules).max(axis=1) + np.eye(rules.num_states), 36
        )
        assert reach[state_at(rules, 0, 0), goal] > 0


# --- probabilities and entropies ------------------------------------------------------------------


@pytest.mark.parametrize("name", MAPS)
def test_probabilities_add_up(name):
    rules = make_rules(read_map(name))
    np.testing.assert_allclose(transition_matrix(rules).sum(axis=-1), 1.0, rtol=1e-12)
    assert rules.start.sum() == pytest.approx(1.0)
    ends = np.flatnonzero(rules.terminal)
    assert (transition_matrix(rules)[ends, :, ends] == 1).all()
    assert (rules.reward[ends] == 0).all()


def test_outcomes_by_hand():
    """A slippery cell with a wall on its left, a coin above, a goal to its right, a pit below."""
    rules = make_rules(read_map("S$./#~G/.O.", prize=0.3, prize_prob=0.25, step_cost=0.1, slip=0.4))
    middle = state_at(rules, 1, 1)
    lucky, unlucky = (0, 1, True, 0.2), (0, 1, False, -0.4)
    assert outcomes(rules, middle, UP) == pytest.approx(
        {lucky: 0.6 * 0.25, unlucky: 0.6 * 0.75, (1, 1, False, -0.1): 0.2, (1, 2, False, 0.9): 0.2}
    )
    assert outcomes(rules, middle, LEFT) == pytest.approx(
        {lucky: 0.05, unlucky: 0.15, (1, 1, False, -0.1): 0.6, (2, 1, False, -1.1): 0.2}
    )
    # A certain cell; beside the coin's own cell, where a bump into the border draws again.
    start = state_at(rules, 0, 0)
    assert outcomes(rules, start, UP) == {(0, 0, False, -0.1): 1.0}
    assert outcomes(rules, start, RIGHT) == {lucky: 0.25, unlucky: 0.75}
    assert outcomes(rules, state_at(rules, 0, 1, True), UP) == {lucky: 0.25, unlucky: 0.75}
    goal = state_at(rules, 1, 2)
    assert outcomes(rules, goal, LEFT) == {(1, 2, False, 0.0): 1.0}
    assert mean_reward(rules)[start, RIGHT] == pytest.approx(0.25 * 0.2 - 0.75 * 0.4)


def test_entropy_by_hand():
    rules = make_rules(read_map("...../.~~$G/S...."))
    at = functools.partial(state_at, rules)
    entropy, random = true_entropy(rules), is_random(rules)
    # From (1, 1): three cells with 1/3 each. From (1, 2) to the right: the coin's 1/3 is halved.
    assert entropy[at(1, 1), UP] == pytest.approx(LN3)
    assert entropy[at(1, 2), RIGHT] == pytest.approx(LN3 + LN2 / 3)
    assert entropy[at(1, 3), RIGHT] == 0 and not random[at(1, 3), RIGHT]
    assert entropy[at(0, 3), DOWN] == pytest.approx(LN2) and random[at(0, 3), DOWN]
    # Outcomes that cannot be told apart are one: both ways aside are blocked.
    corner = make_rules(read_map("S~G"))
    state = state_at(corner, 0, 1)
    assert entropy[at(2, 0)].max() == 0
    assert true_entropy(corner)[state, RIGHT] == pytest.approx(LN3 - 2 / 3 * LN2)
    # A coin that pays nothing still shows its side; one that always pays is certain.
    assert not is_random(make_rules(read_map("S$G", prize_prob=1.0))).any()


def test_reachable_states():
    """What lies behind the goal is not reached: the game is over there."""
    rules = make_rules(read_map("S.#./..G./###./...."))
    places = {tuple(map(int, place)) for place in rules.place[reachable(rules)]}
    assert places == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_reachable_states_of_the_largest_map():
    """In far less than a second, where products of S x S matrices took minutes."""
    grid = generate_map(0, 64, slippery=0.0, pits=0.15, walls=0.2, coins=0.05)
    found, queue = set(grid.find("S")), grid.find("S")
    for place in queue:  # grows as it is walked
        after = {grid.step(place, way) for way in range(4)} - found
        found |= after
        queue += [(y, x) for y, x in after if grid.rows[y][x] not in "OG"]
    rules = make_rules(grid)
    start = time.process_time()
    reached = reachable(rules)
    assert time.process_time() - start < 1
    assert sorted({tuple(map(int, place)) for place in rules.place[reached]}) == sorted(queue)
    assert 1000 < len(queue) < len(set(map(tuple, rules.place.tolist()))) - 100


def test_state_distributions_by_monte_carlo():
    rules = make_rules(read_map("tiny"))
    actions = np.array([RIGHT, DOWN, DOWN, RIGHT])
    exact = state_distributions(rules, 0, actions)
    count = 40_000
    states, rewards = sample_paths(
        rules, np.random.default_rng(0), np.zeros(count, int), np.tile(actions, (count, 1))
    )
    for step in range(5):
        seen = np.bincount(states[:, step], minlength=rules.num_states) / count
        np.testing.assert_allclose(seen, exact[step], atol=0.01)
    means = np.sum(exact[:-1] * mean_reward(rules)[:, actions].T, axis=1)
    np.testing.assert_allclose(rewards.mean(axis=0), means, atol=0.01)


# --- values ---------------------------------------------------------------------------------------


def brute_force(rules, state, steps, gamma, policy=None):
    """Expectimax over the whole tree of what may happen."""
    if steps == 0 or rules.terminal[state]:
        return 0.0
    found = []
    for action in range(4):
        total = 0.0
        for slot, chance in enumerate(rules.probability[state, action]):
            if chance > 0:
                after = int(rules.next_state[state, action, slot])
                rest = brute_force(rules, after, steps - 1, gamma, policy)
                total += chance * (rules.reward[state, action, slot] + gamma * rest)
        found.append(total)
    return max(found) if policy is None else float(policy[state] @ found)


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_finite_horizon_against_expectimax(gamma):
    rules = make_rules(read_map("S~/$G", prize_prob=0.4, step_cost=0.05))
    policy = np.random.default_rng(0).dirichlet(np.ones(4), rules.num_states)
    best = finite_horizon(rules, 4, gamma=gamma)
    mean = finite_horizon(rules, 4, gamma=gamma, policy=policy)
    for state in range(rules.num_states):
        assert best[state] == pytest.approx(brute_force(rules, state, 4, gamma))
        assert mean[state] == pytest.approx(brute_force(rules, state, 4, gamma, policy))


def policy_values(rules, policy, gamma):
    """V of a policy, `[S]`: solves (I - gamma P_pi) V = r_pi."""
    matrix = np.einsum("sa,sat->st", policy, transition_matrix(rules))
    rewards = np.sum(policy * mean_reward(rules), axis=1)
    return np.linalg.solve(np.eye(rules.num_states) - gamma * matrix, rewards)


@pytest.mark.parametrize("name", MAPS)
def test_optimal_values_solve_their_linear_system(name):
    rules = make_rules(read_map(name, step_cost=0.01))
    values, action_value = optimal_values(rules, 0.95)
    greedy = greedy_policy(action_value)
    np.testing.assert_allclose(policy_values(rules, greedy, 0.95), values, atol=1e-8)
    # No policy is better anywhere; the long horizon's value is the same.
    for seed in range(3):
        other = np.random.default_rng(seed).dirichlet(np.ones(4), rules.num_states)
        assert (policy_values(rules, other, 0.95) <= values + 1e-9).all()
    np.testing.assert_allclose(finite_horizon(rules, 600, gamma=0.95), values, atol=1e-8)


def test_values_of_a_corridor_by_hand():
    rules = make_rules(read_map("S..G", step_cost=0))
    values, action_value = optimal_values(rules, 0.5)
    np.testing.assert_allclose(values, [0.25, 0.5, 1.0, 0.0])
    np.testing.assert_allclose(action_value[1], [0.25, 0.5, 0.25, 0.125])
    # Two steps: the goal is out of reach. At random from the cell beside it: 1/4 a step.
    assert finite_horizon(rules, 2)[0] == 0 and finite_horizon(rules, 3)[0] == 1
    assert finite_horizon(rules, 1, policy=np.full((4, 4), 1 / 4))[2] == 0.25
    with pytest.raises(ConfigError, match="gamma"):
        optimal_values(rules, 1.0)


def test_evaluation_returns_by_monte_carlo():
    rules = make_rules(GridMap(("S~.O", ".~$.", "#..G"), step_cost=0.02))
    returns = evaluation_returns(rules, 12, 0.9)
    generator = np.random.default_rng(1)
    actions = generator.integers(0, 4, (20_000, 12))
    _, rewards = sample_paths(rules, generator, np.zeros(20_000, int), actions)
    scores = rewards.sum(axis=1)
    assert returns["random"] == pytest.approx(scores.mean(), abs=4 * scores.std() / 20_000**0.5)
    assert returns["random"] < returns["discounted"] <= returns["optimum"]
