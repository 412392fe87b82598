"""The rules of Pig as tables, and their exact answers; importing this loads no JAX.

Two to four players in turn. Who moves rolls a die, or holds. A 1 loses the points of the turn and
passes it; 2 to 6 add to them, and the same player moves on. To hold banks them and passes the turn.
Who has the goal in points, banked and of the turn, has won: 1, and the others share a loss of 1.
(Knizia 1999, "Dice Games Properly Explained"; Neller and Presser 2004, "Optimal Play of the Dice
Game Pig".)

States are told from the mover's side; `env.kwargs` takes `goal`, the points to win with, and
`players`. Tables are for games of two players, and for small ones of three.
"""

import functools
from typing import NamedTuple

import numpy as np

from smz_jax.config.check import require
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.opponents import ByFrames, Contender, Opponent

ACTION_NAMES = ("HOLD", "ROLL")
HOLD, ROLL = 0, 1
SIDES = 6
TOLERANCE = 1e-10
"""Of the values; each sweep comes nearer by a constant factor."""
MOST_PLAYERS = 4


class PigRules(NamedTuple):
    """Every state, and what each roll of the die makes of it."""

    goal: int
    points: np.ndarray  # [S, P + 1] int, banked by the mover and by those after, and of the turn
    next_state: np.ndarray  # [S, 2, SIDES] int32; S once the game is won
    reward: np.ndarray  # [S, 2, SIDES] float64, of who moves
    discount: (
        np.ndarray
    )  # [S, 2, SIDES] float64, 0 once it is won, -1 where the turn passes, else 1

    @property
    def num_states(self) -> int:
        """S; the game begins in state 0."""
        return len(self.points)

    @property
    def players(self) -> int:
        """P."""
        return self.points.shape[1] - 1


def check_id(config: EnvConfig) -> None:
    """Raises ConfigError in one line unless `config` names the game."""
    require(config.id == "Pig", "env.id", config.id, "Pig where env.suite is turns")
    read_goal(config)


def count_players(config: EnvConfig) -> int:
    """Players of the game, of `env.kwargs`."""
    return config.options.get("players", 2)


def read_goal(config: EnvConfig) -> int:
    """The goal of `env.kwargs`; raises ConfigError in one line if something is wrong with them."""
    options = config.options
    allowed = '\'{"goal": 20, "players": 2}\' at most'
    require(set(options) <= {"goal", "players"}, "env.kwargs", config.kwargs, allowed)
    for name, usual, low, high in (("goal", 20, 2, 60), ("players", 2, 2, MOST_PLAYERS)):
        value = options.get(name, usual)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        require(fits, f"env.kwargs: {name}", value, f"a whole number in {low}..{high}")
    return options.get("goal", 20)


@functools.lru_cache(maxsize=4)
def make_rules(goal: int, players: int = 2) -> PigRules:
    """The tables of a goal: (goal + 1) / 2 * goal^P states."""
    pairs = np.argwhere(np.add.outer(np.arange(goal), np.arange(goal)) < goal)  # mover's, turn's
    rest = np.array([*np.ndindex((goal,) * (players - 1))])
    own, turn = (np.repeat(x, len(rest)) for x in pairs.T)
    others = np.tile(rest.T, len(pairs))  # [P - 1, S]
    number = np.full((goal,) * (players + 1), -1, np.int32)
    number[(own, *others, turn)] = states = np.arange(len(own), dtype=np.int32)
    shape = (len(states), 2, SIDES)
    next_state = np.full(shape, len(states), np.int32)
    reward, discount = np.zeros(shape), np.zeros(shape)
    next_state[:, HOLD] = number[(*others, own + turn, 0)][:, None]
    next_state[:, ROLL, 0] = number[(*others, own, 0)]
    discount[:, HOLD] = discount[:, ROLL, 0] = -1
    for face in range(2, SIDES + 1):
        wins, last = own + turn + face >= goal, face - 1
        reward[wins, ROLL, last] = 1
        on = ~wins
        next_state[on, ROLL, last] = number[(own[on], *others[:, on], turn[on] + face)]
        discount[on, ROLL, last] = 1
    return PigRules(goal, np.stack([own, *others, turn], axis=1), next_state, reward, discount)


def action_values(rules: PigRules, values: np.ndarray) -> np.ndarray:
    """Q `[S, 2]` of who moves, given the values `[S + 1]` of those who move next."""
    return (rules.reward + rules.discount * values[rules.next_state]).mean(axis=-1)


def values_of_all(rules: PigRules) -> np.ndarray:
    """Expected results of all players `[S, P]` from the mover on, where each plays for itself.

    Max-n (Luckhardt and Irani 1986): who moves takes the action that is best for it, the first of
    two that are as good. By sweeps over all states until no value changes.
    """
    players, passes = rules.players, rules.discount < 0
    values = np.zeros((rules.num_states + 1, players))
    gains = np.where(np.arange(players) == 0, 1.0, -1.0 / (players - 1)) * rules.reward[..., None]
    while True:
        after = values[rules.next_state]
        # Entry i is of who sits i seats on: after a pass the next one's entry P - 1 is the mover's.
        after = np.where(passes[..., None], np.roll(after, 1, axis=-1), after)
        action_value = (gains + after).mean(axis=2)
        best = action_value[..., 0].argmax(axis=1)
        before, values = values, np.zeros_like(values)
        values[:-1] = action_value[np.arange(rules.num_states), best]
        if np.abs(values - before).max() < TOLERANCE:
            return values[:-1]


@functools.lru_cache(maxsize=4)
def optimal_values(goal: int) -> tuple[np.ndarray, np.ndarray]:
    """V* `[S + 1]` and Q* `[S, 2]`: expected results in [-1, 1] of who moves, without discount."""
    rules = make_rules(goal)
    values = np.zeros(rules.num_states + 1)
    while True:
        action_value = action_values(rules, values)
        before, values = values, np.append(action_value.max(axis=1), 0.0)
        if np.abs(values - before).max() < TOLERANCE:
            return values, action_value


def expected_results(rules: PigRules, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """The expected results of a policy against another: as player 0, who begins, and as player 1.

    Policies `[S, 2]` are chances of the actions. A game that never ends counts 0.

    Points that are banked are never lost. So the positions of a pair of points depend on one
    another (a turn may bring nothing) and on those of more points, and are solved from the goal
    down, exactly: within a turn a value is `a + b y`, y that of the other one who begins a turn.
    """
    goal = rules.goal
    start = np.zeros((2, goal, goal))  # of who begins a turn, we or they, by own and other's points
    chances = np.zeros((2, goal, goal, goal, 2))
    for side, policy in enumerate((ours, theirs)):
        chances[(side, *rules.points.T)] = policy
    for total in range(2 * (goal - 1), -1, -1):
        own = np.arange(max(0, total - goal + 1), min(total, goal - 1) + 1)
        first = _turn(chances[0], start[1], own, total - own)
        second = _turn(chances[1], start[0], own, total - own)
        (a, b), (c, d) = first, (x[::-1] for x in second)  # of (i, j) and of (j, i)
        ends = 1 - b * d > 1e-12
        value = np.where(ends, (a + b * c) / np.where(ends, 1 - b * d, 1), 0)
        start[0, own, total - own] = value
        start[1, total - own, own] = np.where(ends, c + d * value, 0)
    return float(start[0, 0, 0]), float(-start[1, 0, 0])


def _turn(
    chances: np.ndarray, after: np.ndarray, own: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A turn that begins at points `own`, `other` `[N]`: its value `a + b y`, see above.

    `chances [goal, goal, goal, 2]` are the mover's, `after [goal, goal]` what the other one's turns
    are worth to that one, known where the mover has banked something.
    """
    goal = len(after)
    a, b = np.ones((goal + SIDES, len(own))), np.zeros((goal + SIDES, len(own)))
    for turn in range(goal - 1, -1, -1):
        goes_on = own + turn < goal  # else it is won
        banked = np.minimum(own + turn, goal - 1)
        hold, roll = chances[own, other, turn].T
        later = slice(turn + 2, turn + SIDES + 1)
        held = -after[other, banked] if turn else 0.0
        value = hold * held + roll * a[later].sum(axis=0) / SIDES
        slope = roll * (b[later].sum(axis=0) - 1) / SIDES - (hold if turn == 0 else 0.0)
        a[turn], b[turn] = np.where(goes_on, value, 1.0), np.where(goes_on, slope, 0.0)
    return a[0], b[0]


def true_entropy(rules: PigRules) -> np.ndarray:
    """H `[S, 2]` in nats of the next state: several rolls may win alike."""
    ways = rules.next_state[..., None] == rules.next_state[..., None, :]
    return np.log(SIDES / ways.sum(axis=-1)).mean(axis=-1)


def reachable(rules: PigRules) -> np.ndarray:
    """`[S]` bool, states that some play leads to."""
    found = np.zeros(rules.num_states + 1, np.bool_)
    found[0], count = True, 0
    while count != found.sum():
        count = found.sum()
        found[rules.next_state[found[:-1]].ravel()] = True
    return found[:-1]


def show(points: np.ndarray, goal: int) -> np.ndarray:
    """What is seen of points `[B, P + 1]`, from the mover's side: one-hots, `[B, (P + 1) goal]`."""
    return np.eye(goal, dtype=np.uint8)[points].reshape(len(points), -1) * np.uint8(255)


def observations(rules: PigRules) -> np.ndarray:
    """What is seen in each state, uint8 `[S + 1, (P + 1) goal]`; all 0 once it is won."""
    return np.pad(show(rules.points, rules.goal), ((0, 1), (0, 0)))


def states_of(rules: PigRules, frames: np.ndarray) -> np.ndarray:
    """The states `[B]` that frames `[B, 3 goal]` show; S where the game is won."""
    size = rules.goal
    number = np.full((size, size, size), rules.num_states, np.int32)
    number[tuple(rules.points.T)] = np.arange(rules.num_states)
    own, other, turn = frames.reshape(len(frames), 3, size).argmax(axis=2).T
    return np.where(frames.any(axis=1), number[own, other, turn], rules.num_states)


def opponents_of(config: EnvConfig) -> dict[str, Contender]:
    """The best of two players, by its name."""
    goal = read_goal(config)
    if count_players(config) > 2:
        return {}

    def make_exact_player(seed: int) -> Opponent:
        del seed
        rules, (_, action_value) = make_rules(goal), optimal_values(goal)
        best = np.append(action_value.argmax(axis=1), HOLD)
        return ByFrames(lambda frames: best[states_of(rules, frames)])

    return {"exact": Contender(make_exact_player)}
