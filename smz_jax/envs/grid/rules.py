"""The grid world's exact rules: transition probabilities, values, entropies.

Legend: S states, A = 4 actions, O outcomes of one (state, action). A state is a cell; a coin's cell
is two, "paid" and "took", since the agent sees what the coin did. Goal and pit are states too, with
a way only to themselves and reward 0, so that every row of P adds up to 1. All is float64 NumPy.

Values at a gamma ignore the time limit: a limit truncates, and the learner bootstraps there, so
that they are what a value head should learn. Returns of an evaluation are cut off by the limit:
`finite_horizon` counts the steps that are left.
"""

from typing import NamedTuple

import numpy as np

from smz_jax.config.check import require
from smz_jax.envs.grid.map import GridMap

NUM_ACTIONS = 4
MAX_OUTCOMES = 6  # three ways to move, two of a coin


class GridRules(NamedTuple):
    """What can happen in a map, and how likely it is."""

    grid: GridMap
    place: np.ndarray  # [S, 2] int32, row and column
    paid: np.ndarray  # [S] bool, a coin's cell after it paid
    terminal: np.ndarray  # [S] bool, goal or pit
    start: np.ndarray  # [S] probability of an episode's start
    probability: np.ndarray  # [S, A, O], 0 where there are fewer outcomes
    next_state: np.ndarray  # [S, A, O] int32
    reward: np.ndarray  # [S, A, O]

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.terminal)


def make_rules(grid: GridMap) -> GridRules:
    """The exact rules of a map; outcomes that look the same (same s', r) are one."""
    cells = grid.cells
    states = [
        (y, x, paid)
        for y, x in np.argwhere(cells != "#").tolist()
        for paid in ((False, True) if cells[y, x] == "$" else (False,))
    ]
    index = {state: number for number, state in enumerate(states)}
    kinds = np.array([cells[y, x] for y, x, _ in states])
    shape = (len(states), NUM_ACTIONS, MAX_OUTCOMES)
    probability, reward = np.zeros(shape), np.zeros(shape)
    next_state = np.zeros(shape, np.int32)
    for number, kind in enumerate(kinds):
        for action in range(NUM_ACTIONS):
            outcomes = {(number, 0.0): 1.0}
            if kind not in "GO":
                outcomes = _outcomes(grid, states[number][:2], action, index)
            for slot, ((after, paid), chance) in enumerate(sorted(outcomes.items())):
                next_state[number, action, slot] = after
                reward[number, action, slot] = paid
                probability[number, action, slot] = chance
    is_start = kinds == "S"
    return GridRules(
        grid=grid,
        place=np.array([state[:2] for state in states], np.int32),
        paid=np.array([state[2] for state in states]),
        terminal=np.isin(kinds, ["G", "O"]),
        start=is_start / is_start.sum(),
        probability=probability,
        next_state=next_state,
        reward=reward,
    )


def _outcomes(
    grid: GridMap, place: tuple[int, int], action: int, index: dict[tuple[int, int, bool], int]
) -> dict[tuple[int, float], float]:
    """Probability of each (next state, reward) that is possible."""
    ways = [(action, 1.0)]
    if grid.rows[place[0]][place[1]] == "~":
        aside = grid.slip / 2
        ways = [(action, 1 - grid.slip), ((action - 1) % 4, aside), ((action + 1) % 4, aside)]
    found: dict[tuple[int, float], float] = {}
    for direction, chance in ways:
        after = grid.step(place, direction)
        cell = grid.rows[after[0]][after[1]]
        draws = [(False, {"G": 1.0, "O": -1.0}.get(cell, 0.0), 1.0)]
        if cell == "$":
            lucky = grid.prize_prob
            draws = [(True, grid.prize, lucky), (False, -grid.prize, 1 - lucky)]
        for paid, pays, odds in draws:
            key = (index[(*after, paid)], pays - grid.step_cost)
            found[key] = found.get(key, 0.0) + chance * odds
    return {key: chance for key, chance in found.items() if chance > 0}


def transition_matrix(rules: GridRules) -> np.ndarray:
    """P(s' | s, a) as `[S, A, S]`."""
    states, actions = np.indices(rules.probability.shape)[:2]
    matrix = np.zeros((*rules.probability.shape[:2], rules.num_states))
    np.add.at(matrix, (states, actions, rules.next_state), rules.probability)
    return matrix


def mean_reward(rules: GridRules) -> np.ndarray:
    """E[r | s, a] as `[S, A]`."""
    return np.sum(rules.probability * rules.reward, axis=-1)


def true_entropy(rules: GridRules) -> np.ndarray:
    """Entropy in nats of (s', r) given (s, a), `[S, A]`."""
    safe = np.where(rules.probability > 0, rules.probability, 1.0)
    return -np.sum(safe * np.log(safe), axis=-1)


def is_random(rules: GridRules) -> np.ndarray:
    """Which (s, a) have more than one outcome, `[S, A]` bool."""
    return np.sum(rules.probability > 0, axis=-1) > 1


def reachable(rules: GridRules) -> np.ndarray:
    """States that an episode can be in when an action is chosen: `[S]` bool, no ends."""
    found = newest = rules.start > 0
    while newest.any():
        after = rules.next_state[newest][rules.probability[newest] > 0]
        newest = np.isin(np.arange(rules.num_states), after) & ~found
        found = found | newest
    return found & ~rules.terminal


def state_distributions(rules: GridRules, state: int, actions: np.ndarray) -> np.ndarray:
    """Where an action sequence leads: `[K + 1, S]`, one row for each number of actions taken."""
    matrix = transition_matrix(rules)
    rows = [np.eye(rules.num_states)[state]]
    for action in actions:
        rows.append(rows[-1] @ matrix[:, action])
    return np.stack(rows)


def sample_paths(
    rules: GridRules, generator: np.random.Generator, starts: np.ndarray, actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws what happens along fixed action sequences; past an end nothing happens, at reward 0.

    Args:
        rules: of the map.
        generator: of the draws.
        starts: `[N]` states.
        actions: `[N, K]`.

    Returns:
        States `[N, K + 1]` int32 and rewards `[N, K]`.
    """
    states, rewards = [np.asarray(starts, np.int32)], []
    for action in actions.T:
        chances = np.cumsum(rules.probability[states[-1], action], axis=1)
        draw = generator.random(len(starts))[:, None] * chances[:, -1:]
        slot = np.sum(draw >= chances, axis=1)
        rewards.append(rules.reward[states[-1], action, slot])
        states.append(rules.next_state[states[-1], action, slot])
    return np.stack(states, axis=1), np.stack(rewards, axis=1)


def action_values(rules: GridRules, values: np.ndarray, gamma: float) -> np.ndarray:
    """Q(s, a) = E[r + gamma V(s')], `[S, A]`."""
    after = rules.reward + gamma * values[rules.next_state]
    return np.sum(rules.probability * after, axis=-1)


def optimal_values(
    rules: GridRules, gamma: float, tolerance: float = 1e-10
) -> tuple[np.ndarray, np.ndarray]:
    """V* `[S]` and Q* `[S, A]` by value iteration (Sutton and Barto 2018, section 4.4).

    Args:
        rules: of the map.
        gamma: discount per step, below 1: at 1 the values need not be finite.
        tolerance: V is within this of the fixed point.
    """
    require(0 <= gamma < 1, "gamma", gamma, "in [0, 1)")
    values, change = np.zeros(rules.num_states), np.inf
    while change * gamma > tolerance * (1 - gamma):
        former, values = values, action_values(rules, values, gamma).max(axis=1)
        change = np.abs(values - former).max()
    return values, action_values(rules, values, gamma)


def greedy_policy(action_value: np.ndarray) -> np.ndarray:
    """The policy `[S, A]` that shares its choice evenly among the best actions."""
    best = action_value >= action_value.max(axis=1, keepdims=True) - 1e-9
    return best / best.sum(axis=1, keepdims=True)


def finite_horizon(
    rules: GridRules, horizon: int, *, gamma: float = 1.0, policy: np.ndarray | None = None
) -> np.ndarray:
    """Expected return `[S]` when the game is cut off after `horizon` steps.

    Backward dynamic programming (Puterman 1994, section 4.5): V_0 = 0 and V_h from V_{h-1}.

    Args:
        rules: of the map.
        horizon: steps that are left.
        gamma: discount per step; 1 is the plain sum, as scores are.
        policy: `[S, A]`; unset: the best, which may look at the clock.
    """
    values = np.zeros(rules.num_states)
    for _ in range(horizon):
        choices = action_values(rules, values, gamma)
        values = choices.max(axis=1) if policy is None else np.sum(policy * choices, axis=1)
    return values


def evaluation_returns(rules: GridRules, horizon: int, gamma: float) -> dict[str, float]:
    """Mean evaluation returns (undiscounted, cut off) that scores are compared to.

    Args:
        rules: of the map.
        horizon: steps after which an evaluation game is cut off.
        gamma: what the agent learns with.

    Returns:
        `optimum`: the best possible, by a policy that may look at the clock; `discounted`: the
        policy that is optimal at `gamma`, which is the best that the agent can learn;
        `random`: the random policy.
    """
    _, action_value = optimal_values(rules, gamma)
    policies = {
        "optimum": None,
        "discounted": greedy_policy(action_value),
        "random": np.full(action_value.shape, 1 / NUM_ACTIONS),
    }
    return {
        name: float(rules.start @ finite_horizon(rules, horizon, policy=policy))
        for name, policy in policies.items()
    }
