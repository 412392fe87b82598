"""A model of Pig against the exact table: its dice, its values and its play."""

from typing import Any

import jax
import numpy as np

from smz_jax.analysis.rules.grid_check import pair_entropies, replay_transitions
from smz_jax.analysis.rules.known_rules import rules_check
from smz_jax.analysis.rules.matches import make_choose
from smz_jax.envs.turns import pig_rules
from smz_jax.envs.turns.pig_rules import PigRules
from smz_jax.learning.learner import acting_params
from smz_jax.model import steps

MOST_STEPS = 2000
"""Of a game, in the shares of states."""


def check_dice(parts: Any, state: Any) -> dict[str, float]:
    """The transition entropies against the die's; see `rules_check`. `parts` and `state` of a run.

    The run has single frames, which show the whole state.
    """
    config = parts.config
    rules = pig_rules.make_rules(pig_rules.read_goal(config.env))
    seen = pig_rules.observations(rules)
    visits = np.zeros((rules.num_states + 1, 2), np.int64)
    np.add.at(visits, tuple(replay_transitions(state.replay, seen)[:2]), 1)
    params, frames = state.train.params, seen[:-1, None]
    entropy, _ = jax.device_get(pair_entropies(parts.networks, params, frames, 2))
    return rules_check(
        entropy.astype(np.float64),
        pig_rules.true_entropy(rules),
        reachable=pig_rules.reachable(rules),
        visits=visits[:-1],
        codebook_size=config.network.codebook_size,
    )


def shares_of_states(rules: PigRules, policy: np.ndarray) -> np.ndarray:
    """How often each state is met, `[S]` with sum 1, where both players have `policy [S, 2]`."""
    now, met = np.zeros(rules.num_states + 1), np.zeros(rules.num_states + 1)
    now[0] = 1.0
    for _ in range(MOST_STEPS):
        met += now
        each = (now[:-1, None] * policy)[..., None] / pig_rules.SIDES
        now = np.zeros_like(now)
        np.add.at(now, rules.next_state, np.broadcast_to(each, rules.next_state.shape))
        now[-1] = 0.0
        if now.sum() < 1e-9:
            break
    return met[:-1] / met[:-1].sum()


def judge_policy(goal: int, policy: np.ndarray) -> dict[str, float]:
    """A policy `[S, 2]`, chances of the actions, against the exact table; in chances to win.

    Returns:
        `regret`: what a move loses on average over the states met where both play so; `_reachable`
        over all states; `against_best`: the chance to win against the best play, over both sides.
    """
    rules, (values, action_value) = pig_rules.make_rules(goal), pig_rules.optimal_values(goal)
    best = np.eye(2)[action_value.argmax(axis=1)]
    lost = (values[:-1] - (policy * action_value).sum(axis=1)) / 2
    return {
        "regret": float(lost @ shares_of_states(rules, policy)),
        "regret_reachable": float(lost[pig_rules.reachable(rules)].mean()),
        "against_best": (1 + float(np.mean(pig_rules.expected_results(rules, policy, best)))) / 2,
    }


def check_play(parts: Any, state: Any) -> dict[str, float]:
    """The greedy agent in every state, see `judge_policy`, and the value head.

    Returns:
        Also `value_error`: the mean error of the value head over the states that the agent meets,
        as a chance to win; and `first_wins`, its value for who begins, likewise, with the exact one
        beside it, `first_wins_exactly`.
    """
    goal = pig_rules.read_goal(parts.config.env)
    rules, (values, _) = pig_rules.make_rules(goal), pig_rules.optimal_values(goal)
    frames = pig_rules.observations(rules)[:-1]
    actions = make_choose(parts, state)(frames, np.zeros((len(frames), 2), np.float32))
    policy = np.eye(2)[actions]
    params, networks = acting_params(state.train, parts.config), parts.networks
    embedding = networks.representation(params, frames[:, None])
    own = np.asarray(steps.predict(networks, params, embedding).value)
    errors = np.abs(own - values[:-1]) / 2
    return judge_policy(goal, policy) | {
        "value_error": float(errors @ shares_of_states(rules, policy)),
        "first_wins": (1 + float(own[0])) / 2,
        "first_wins_exactly": (1 + float(values[0])) / 2,
    }
