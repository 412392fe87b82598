"""Macros played to their end: against a plain loop, in games that end, and not mined."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.acting.actor import Actor
from smz_jax.acting.agent import make_decide
from smz_jax.acting.plans import goes_on, make_follow, no_plans
from smz_jax.config.check import ConfigError
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, NetworkConfig
from smz_jax.config.training import LearnerConfig, MacroConfig, RolloutConfig
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import AfterstatePrediction, Decision, EnvSpec, SearchOutput, Space
from tests.acting import test_rollout as toy
from tests.search import test_macro_search as planning
from tests.support import tabular
from tests.support.search_twin import entropy_of, softmax
from tests.support.toy_env import CatchEnv

STATES, ACTIONS, LONGEST = planning.STATES, planning.ACTIONS, planning.LONGEST
CERTAIN = 0.2


@functools.cache
def tabular_parts():
    """The decision of a search with macros on tables, and what follows it."""
    config = Config(
        search=SearchConfig(
            num_simulations=16, collapse_threshold=planning.THRESHOLD, macros=True, macro_share=0.7
        ),
        network=NetworkConfig(jump_length=LONGEST, gain_slots=planning.SLOTS),
        learner=LearnerConfig(gamma=planning.GAMMA),
        rollout=RolloutConfig(execute_macros=True),
        macro=MacroConfig(play_threshold=CERTAIN),
    )
    shape = "tabular", (1,), 1, np.dtype("float32"), Space(ACTIONS, ("?",) * ACTIONS), 1
    networks = planning.networks_with_gains()
    decide = make_decide(networks, config, EnvSpec(*shape), policy="search")
    return decide, make_follow(networks, config)


def test_what_is_played_is_that_of_a_plain_loop():
    decide, follow = tabular_parts()
    rng = np.random.default_rng(0)
    tables, gain, certain, _ = planning.drawn(2, off=0.0)
    known = np.full((planning.SLOTS, LONGEST), -1, np.int32)
    for slot, actions in enumerate(planning.MACROS):
        known[slot, : len(actions)] = actions
    params = {
        "tables": tabular.as_params(tables),
        "gain": jnp.float32(gain),
        "certain": jnp.asarray(certain),
        "jump": {"gains": {"actions": known, "usable": np.ones(planning.SLOTS, bool)}},
    }
    plans, lanes = no_plans(STATES, LONGEST), [[] for _ in range(STATES)]
    seen = dict.fromkeys(("began", "followed", "ended", "invalid", "uncertain"), 0)
    for step in range(40):
        states = rng.integers(0, STATES, STATES)
        invalid = np.float32(rng.random((STATES, ACTIONS)) < 0.15) * (np.arange(ACTIONS) > 0)
        lasts = rng.random(STATES) < 0.9
        given = tabular.embed(tables, states), np.float32(invalid)
        decision = decide(
            params, jax.random.key(0), np.int32(step), *given, *map(np.float32, (1, 0, 1))
        )
        played, plans = follow(params, plans, decision, given[1], lasts)
        decision, played = jax.device_get((decision, played))
        tree, left = decision.search.tree, np.asarray(plans)
        for b, plan in enumerate(lanes):
            own = int(decision.search.action[b])
            action, entropy = own, float(decision.transition_entropy[b])
            if plan:
                spread = entropy_of(softmax(tables.chance[states[b], plan[0]]))
                why = "ended" if not lasts[b] else "invalid" if invalid[b, plan[0]] else None
                why = why or ("uncertain" if spread >= CERTAIN else "followed")
                seen[why] += 1
            follows = bool(plan) and why == "followed"
            if follows:
                action, entropy, lanes[b] = plan[0], spread, plan[1:]
            else:
                macro = [int(x) for x in tree.embeddings.macro[b, 0] if x >= 0]
                visits = tree.children_visits[b, 0]
                begins = macro and macro[0] == own and visits[ACTIONS] > visits[own]
                lanes[b] = macro[1:] if begins else []
                seen["began"] += bool(begins)
            assert int(played.search.action[b]) == action and bool(played.follows[b]) == follows
            assert float(played.transition_entropy[b]) == pytest.approx(entropy, abs=1e-5)
            assert [x for x in left[b] if x >= 0] == lanes[b]
        weights = played.search.action_weights, decision.search.action_weights
        np.testing.assert_array_equal(*weights)
    assert all(count > 4 for count in seen.values()), seen


class Children(NamedTuple):
    """What is read of a tree: a macro of three actions, its edge taken more often."""

    embeddings: Any
    children_visits: Any


class OfNodes(NamedTuple):
    macro: Any


def catch_actor(decisions, length=14):
    """Plays Catch; each search decides for 1, by the macro 1, 2, 0; all is certain."""
    config = dataclasses.replace(
        toy.toy_config(),
        rollout=RolloutConfig(length=length, execute_macros=True),
        search=SearchConfig(num_simulations=4, macros=True),
        network=NetworkConfig(jump_length=3, gain_slots=2),
        macro=MacroConfig(play_threshold=1.0),
    )
    flat = lambda p, s: AfterstatePrediction(jnp.float32([[9.0, 0.0]] * len(s)), s[:, 0])  # noqa: E731
    networks: Any = SimpleNamespace(
        afterstate_dynamics=lambda p, s, action: s,
        afterstate_prediction=flat,
        value_of=lambda x: x,
        all_values=None,
    )

    def decide(params, key, count, observation, *_):
        lanes = len(observation)
        macro = jnp.broadcast_to(jnp.int32([[1, 2, 0]]), (lanes, 1, 3))
        visits = jnp.broadcast_to(jnp.int32([[0, 1, 0, 3, 0, 0]]), (lanes, 1, 6))
        visits = visits.at[-1, 0, 1].set(3)  # of the last lane, as often by the action alone
        zeros = jnp.zeros(lanes)
        search = SearchOutput(
            jnp.ones(lanes, jnp.int32), jnp.eye(3)[jnp.ones(lanes, jnp.int32)], zeros,
            Children(OfNodes(macro), visits), jnp.zeros(lanes, jnp.int32), zeros > 0,
        )  # fmt: skip
        return Decision(search, jnp.zeros((lanes, 2)), zeros + 0.5)

    watch = lambda *pools: decisions.extend(pools)  # noqa: E731
    given = [CatchEnv(toy.B, 5)], config, decide, jax.random.key(0), PhaseTimers(), watch
    return Actor(*given, follow=make_follow(networks, config))


def test_plans_end_with_games_and_with_rollouts():
    decisions: list[Any] = []
    actor = catch_actor(decisions)
    wanted: list[int] = []
    for rollout in range(3):
        played = actor.next({})
        plan: list[int] = []
        for t in range(14):
            place = (14 * rollout + t) % toy.GAME
            # The final observation, whose action is ignored, and the first one.
            plan = [] if place in (0, toy.GAME - 1) else plan
            plan = plan or [1, 2, 0]
            wanted.append(plan.pop(0))
        follows = np.array(wanted[-14:]) != 1
        lanes = toy.B - 1
        np.testing.assert_array_equal(played.rows.action[:-1], [wanted[-14:]] * lanes)
        np.testing.assert_array_equal(played.follows[:-1], [follows] * lanes)
        assert np.all(played.rows.action[-1] == 1) and not np.any(played.follows[-1])
        share = follows.mean() * lanes / toy.B
        assert float(played.metrics["rollout/macro_steps"]) == pytest.approx(share)
        assert not np.any(played.rows.action_weights[..., [0, 2]])
        expected = np.where(follows, -(0.9999 * np.log(0.9999)) / np.log(2), 0.5)
        np.testing.assert_allclose(played.rows.transition_entropy[0], expected, atol=2e-3)
    assert len(decisions) == 3 * 14 and decisions[1].search.action[0] == 2


def test_a_lost_life_ends_a_plan():
    step = SimpleNamespace(
        is_first=np.array([True, False, False, False]),
        terminated=np.array([False, True, False, False]),
        truncated=np.array([False, False, True, False]),
    )
    np.testing.assert_array_equal(goes_on(step), [False, False, False, True])  # type: ignore


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"search": SearchConfig()}, "search.macros"),
        ({"rollout": RolloutConfig(execute_macros=True, policy="prior")}, "rollout.policy"),
        ({"rollout": RolloutConfig(execute_macros=True, length=1)}, "rollout.length"),
        ({"dataset": "x"}, "dataset"),
    ],
)
def test_where_no_search_has_macros_it_is_refused(changed, name):
    good = {
        "search": SearchConfig(macros=True),
        "network": NetworkConfig(jump_length=3, gain_slots=3),
        "rollout": RolloutConfig(execute_macros=True),
    }
    Config(**good)
    with pytest.raises(ConfigError, match=rf"^{name} = .* where rollout.execute_macros is"):
        Config(**(good | changed))
