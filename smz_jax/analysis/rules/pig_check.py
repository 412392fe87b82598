"""A model of Pig against the exact table: its dice, its values and its play."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.analysis.rules.grid_check import pair_entropies, replay_transitions
from smz_jax.analysis.rules.known_rules import rules_check
from smz_jax.analysis.rules.matches import make_choose
from smz_jax.envs.turns import pig_rules
from smz_jax.envs.turns.pig_rules import PigRules
from smz_jax.learning.learner import acting_params
from smz_jax.model import steps
from smz_jax.types import Array, Networks, Params

MOST_STEPS = 2000
"""Of a game, in the shares of states."""
MOST_STATES = 4096
"""In which the outcomes of a roll are checked."""


def check_dice(parts: Any, state: Any) -> dict[str, float]:
    """The transition entropies against the die's; see `rules_check`. `parts` and `state` of a run.

    The run has single frames, which show the whole state.

    Returns:
        Also what `check_outcomes` finds where somebody rolled.
    """
    config = parts.config
    rules = pig_rules.make_rules(pig_rules.read_goal(config.env))
    seen = pig_rules.observations(rules)
    visits = np.zeros((rules.num_states + 1, 2), np.int64)
    np.add.at(visits, tuple(replay_transitions(state.replay, seen)[:2]), 1)
    params, frames = state.train.params, seen[:-1, None]
    entropy, _ = jax.device_get(pair_entropies(parts.networks, params, frames, 2))
    rolled = np.random.default_rng(0).permutation(np.flatnonzero(visits[:-1, pig_rules.ROLL]))
    return rules_check(
        entropy.astype(np.float64),
        pig_rules.true_entropy(rules),
        reachable=pig_rules.reachable(rules),
        visits=visits[:-1],
        codebook_size=config.network.codebook_size,
    ) | check_outcomes(parts.networks, params, rules, np.resize(rolled, MOST_STATES))


@functools.partial(jax.jit, static_argnums=0)  # compiled once: a run is checked often
def _chances(
    networks: Networks, params: Params, before: Array, after: Array
) -> tuple[Array, Array]:
    """Of each code `[N, C]`: the model's chance after a roll, and that of the outcomes it tells.

    Args:
        networks: of the model.
        params: its parameters.
        before: `[N, ...]` what is seen where somebody rolls.
        after: `[SIDES, N, ...]` what is seen after each number of the die.
    """
    state = networks.representation(params, before[:, None])
    roll = jnp.full(len(before), pig_rules.ROLL, jnp.int32)
    afterstate = steps.decide(networks, params, state, roll)

    def code(frames: Array) -> Array:
        seen = steps.Seen(frames[:, None], networks.representation(params, frames[:, None]))
        logits = steps.encode(networks, params, seen, afterstate.state)
        return steps.one_hot_code(jnp.argmax(logits, axis=-1), logits.shape[-1])

    return jax.nn.softmax(afterstate.logits), jax.lax.map(code, after).mean(axis=0)


def check_outcomes(
    networks: Networks, params: Params, rules: PigRules, states: np.ndarray
) -> dict[str, float]:
    """The model's chances of a roll's outcomes against the die's, in states `[N]`.

    The encoder gives each outcome a code; outcomes with one code are one to the model.

    Returns:
        `die_distance`: the mean total variation, half of the sum of |model's chance - true chance|
        over the codes; `die_told`: the entropy of the outcomes' codes as a share of that of the
        outcomes, 1 where the encoder tells all of them apart and 0 where it tells nothing.
    """
    seen = pig_rules.observations(rules)
    after = seen[rules.next_state[states, pig_rules.ROLL].T]
    chances, true = map(np.asarray, _chances(networks, params, seen[states], after))
    entropy = -np.where(true > 0, true * np.log(np.where(true > 0, true, 1)), 0).sum(axis=1)
    told = entropy.mean() / pig_rules.true_entropy(rules)[states, pig_rules.ROLL].mean()
    return {
        "die_distance": float(np.abs(chances - true).sum(axis=1).mean() / 2),
        "die_told": float(told),
    }


def shares_of_states(rules: PigRules, policy: np.ndarray) -> np.ndarray:
    """How often each state is met, `[S]` with sum 1, where both players have `policy [S, 2]`."""
    now, met = np.zeros(rules.num_states + 1), np.zeros(rules.num_states + 1)
    now[0] = 1.0
    for _ in range(MOST_STEPS):
        met += now
        each = (now[:-1, None] * policy)[..., None] / pig_rules.SIDES
        each = np.broadcast_to(each, rules.next_state.shape)
        now = np.bincount(rules.next_state.ravel(), each.ravel(), len(now))
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
