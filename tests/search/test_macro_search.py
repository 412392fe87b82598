"""Macro edges: the tree of a plain-Python twin, and with no macro that may be used none."""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, NetworkConfig
from smz_jax.config.training import LearnerConfig, MacroConfig
from smz_jax.macros.mine.windows import tree_windows
from smz_jax.model.steps import imagine
from smz_jax.search.root_search import make_search
from smz_jax.types import LEAPT, EnvSpec, NodeEmbedding, Space
from tests.search.test_jump_search import ENDED, GAMMA, THRESHOLD, half_certain, jumping_networks
from tests.support import tabular
from tests.support.macro_search_twin import MACRO, MacroTwin

STATES, ACTIONS, OUTCOMES, SLOTS, LONGEST = 5, 3, 4, 6, 3
MACROS = [(0, 1), (1, 1, 1), (2, 0), (0, 2, 1), (2, 2), (1, 0)]
SIMULATIONS, AGREEMENT = 24, 0.3
RULES = [("puct", "puct", "siblings"), ("puct", "puct", "tree"), ("gumbel", "puct", "siblings"),
         ("gumbel", "gumbel", "siblings")]  # fmt: skip


def networks_with_gains():
    """The tabular model with a right jump, and a head that reads a table."""

    def gains(params, state):
        row = jnp.argmax(state, axis=-1) // ACTIONS
        return params["gain"][row], jnp.where(params["certain"][row], 9.0, 2.0)

    return jumping_networks()._replace(gains=gains)


@functools.cache
def compiled(rules, macros=True, simulations=SIMULATIONS):
    root, interior, qtransform = rules
    config = Config(
        search=SearchConfig(
            num_simulations=simulations, collapse_threshold=THRESHOLD, root=root,
            interior=interior, qtransform=qtransform, macros=macros, macro_agreement=AGREEMENT,
        ),
        network=NetworkConfig(jump_length=LONGEST, gain_slots=SLOTS),
        learner=LearnerConfig(gamma=GAMMA),
    )  # fmt: skip
    spec = EnvSpec("tabular", (1,), 1, np.dtype("float32"), Space(ACTIONS, ("?",) * ACTIONS), 1)
    search = make_search(networks_with_gains(), config, spec)
    return jax.jit(functools.partial(search, noise=0.0))


def run(tables, gain, certain, invalid, rules, usable=True, **options):
    owners = np.full((SLOTS, LONGEST), -1, np.int32)
    for slot, actions in enumerate(MACROS):
        owners[slot, : len(actions)] = actions
    known = {"actions": jnp.asarray(owners), "usable": jnp.full((SLOTS,), usable)}
    params = {
        "tables": tabular.as_params(tables),
        "gain": jnp.float32(gain),
        "certain": jnp.asarray(certain),
        "jump": {"gains": known},
    }
    state = tabular.embed(tables, range(STATES))
    given = jax.random.key(3), state, np.float32(invalid), jnp.float32(0.0)
    return compiled(rules, **options)(params, *given)


def jumps_of(tables):
    def jump(state, actions):
        total, factor = 0.0, 1.0
        for action in actions:
            place = state, action, int(tables.chance[state, action].argmax())
            total, factor = total + factor * tables.reward[place], factor * GAMMA
            state = int(tables.successor[place])
        return state, total, factor * (1 - ENDED[state])

    return jump


def right_gains(tables):
    gain, jump = np.zeros((STATES, SLOTS)), jumps_of(tables)
    for state in range(STATES):
        for slot, actions in enumerate(MACROS):
            end, total, discount = jump(state, actions)
            gain[state, slot] = total + discount * tables.value[end] - tables.value[state]
    return gain


def drawn(seed, off):
    """Tables, some of whose pairs are certain, and what is foretold of macros: `off` by so much."""
    rng = np.random.default_rng(seed)
    tables = tabular.random_tables(seed, states=STATES, actions=ACTIONS, outcomes=OUTCOMES)
    certain = tabular.deterministic(tables, seed).chance
    tables = tables._replace(chance=certain if seed % 2 else half_certain(tables).chance)
    gain = right_gains(tables)
    gain += off * rng.normal(size=gain.shape)
    invalid = np.arange(ACTIONS) == rng.integers(0, ACTIONS, (STATES, 1))
    invalid &= rng.random((STATES, 1)) < 0.5
    return tables, gain, rng.random(gain.shape) < 0.7, invalid


def check_usage(twin, usage):
    """The calls by function, and the ways of the simulations, by walking up from each node."""
    calls = {"calls_afterstate": 0, "calls_dynamics": 0, "calls_jump": twin.refused}
    through = depth = 0
    made = [entry for entry in twin.nodes[1:] if entry]
    for node, parent, edge in made:
        from_chance = twin.nodes[parent][0].is_chance
        calls["calls_jump"] += edge == MACRO
        calls["calls_afterstate"] += edge != MACRO and not from_chance
        calls["calls_dynamics"] += edge != MACRO and not node.is_chance
        on_macro, steps = False, 0
        while parent >= 0:
            above = twin.nodes[parent][0]
            on_macro |= edge == MACRO
            length = len(MACROS[above.macro]) if edge == MACRO else 1
            steps += 0 if node.is_chance else length
            node, parent, edge = twin.nodes[parent]
        through, depth = through + on_macro, depth + steps
    expected = calls | {"macro_simulations": through / len(made), "depth": depth / len(made)}
    assert usage == pytest.approx(expected)


def alone(tree):
    """Whether the root's macro matters to how far apart the actions are, and how far they are.

    A macro's visits and values are its first action's.
    """
    visits, own = tree.children_visits[0, : ACTIONS + 1], slice(0, ACTIONS)
    q = tree.children_rewards[0] + tree.children_discounts[0] * tree.children_values[0]
    sums, counts = (visits * q[: ACTIONS + 1])[own], visits[own].copy()
    tried = counts > 0
    without = np.ptp(q[own][tried]) if tried.any() else 0.0
    if visits[ACTIONS]:
        first = tree.embeddings.macro[0, 0]
        sums[first] += visits[ACTIONS] * q[ACTIONS]
        counts[first] += visits[ACTIONS]
    tried = counts > 0
    spread = np.ptp(sums[tried] / counts[tried]) if tried.any() else 0.0
    return abs(spread - without) > 1e-5, spread


@pytest.mark.parametrize("rules", RULES)
def test_the_tree_is_that_of_plain_python(rules):
    root, interior, qtransform = rules
    seen = macros = refused = 0
    spreads = {True: 0, False: 0}
    for seed in range(12):
        tables, gain, certain, invalid = drawn(seed, off=0.25)
        found = run(tables, gain, certain, invalid, rules)
        for state in range(STATES):
            twin = MacroTwin(
                tables, state, macros=MACROS, gains=gain, certain=certain, jump=jumps_of(tables),
                agreement=AGREEMENT, root=root, interior=interior, qtransform=qtransform,
                simulations=SIMULATIONS, gamma=GAMMA, invalid=invalid[state], threshold=THRESHOLD,
                ended=ENDED,
            )  # fmt: skip
            if twin.margin < 1e-4:
                continue
            seen, refused = seen + 1, refused + twin.refused
            tree = jax.tree.map(lambda x, row=state: np.asarray(x[row]), found.tree)
            for index, entry in enumerate(twin.nodes):
                if entry is None:
                    assert tree.node_visits[index] == 0 and tree.parents[index] == -1
                    continue
                node, parent, edge = entry
                assert tree.node_visits[index] == node.visits
                assert tree.node_values[index] == pytest.approx(node.value, abs=1e-4)
                if parent < 0:
                    continue
                assert tree.parents[index] == parent
                from_chance = twin.nodes[parent][0].is_chance
                if edge == MACRO:
                    macros += 1
                    edge = ACTIONS
                    assert tree.embeddings.entropy[index] == LEAPT
                elif from_chance:
                    edge += ACTIONS + 1
                assert tree.action_from_parent[index] == edge
                place = parent, edge
                assert tree.children_rewards[place] == pytest.approx(node.reward, abs=1e-5)
                assert tree.children_discounts[place] == pytest.approx(node.discount, abs=1e-6)
            check_usage(twin, {name: float(x[state]) for name, x in found.usage.items()})
            weights = np.asarray(found.action_weights[state])
            np.testing.assert_allclose(weights, twin.decide(), atol=1e-4)
            assert not weights[invalid[state]].any()
            spreads[alone(tree)[0]] += 1
            assert float(found.spread[state]) == pytest.approx(alone(tree)[1], abs=1e-5)
    assert compiled(rules)._cache_size() == 1
    assert seen > 40 and macros > 40 and refused > 20, (seen, macros, refused)
    assert min(spreads.values()) > 0, spreads


def test_a_right_jump_is_as_many_collapsed_steps():
    """The end, the rewards and the discount of each macro's node, by the model's own steps."""
    tables = drawn(1, off=0.0)[0]
    tables = tables._replace(successor=np.array([0, 2, 2, 3, 3])[tables.successor])  # no ends
    gain, all_certain = right_gains(tables), np.ones((STATES, SLOTS), bool)
    tree = run(tables, gain, all_certain, np.zeros((STATES, ACTIONS)), RULES[1]).tree
    tree = jax.device_get(tree)
    row, node = np.nonzero(tree.action_from_parent == ACTIONS)
    parent = tree.parents[row, node]
    macro, state = tree.embeddings.macro[row, parent], tree.embeddings.state
    params, root = {"tables": tabular.as_params(tables)}, jnp.asarray(state[row, parent])
    stepped = imagine(networks_with_gains(), params, root, jnp.maximum(macro.T, 0)).steps
    length = np.sum(macro >= 0, axis=1)
    assert len(node) > 20 and set(length) == {2, 3}
    for i, (b, at, count) in enumerate(zip(row, node, length, strict=True)):
        rewards = np.asarray(stepped.reward[:count, i])
        place = b, parent[i], ACTIONS
        total = sum(GAMMA**k * float(reward) for k, reward in enumerate(rewards))
        assert tree.children_rewards[place] == pytest.approx(total, abs=1e-5)
        assert tree.children_discounts[place] == pytest.approx(GAMMA ** int(count), abs=1e-6)
        np.testing.assert_array_equal(state[b, at], stepped.state[count - 1, i])


def action_values(tables):
    """By dynamic programming `[n, A]`, of games without chance that are over after two steps."""
    likely = tables.chance.argmax(-1)[..., None]
    reward, successor = (
        np.take_along_axis(x, likely, axis=2)[..., 0] for x in (tables.reward, tables.successor)
    )
    values = reward
    for _ in range(2):
        values = reward + GAMMA * values.max(axis=1)[successor]
    return values


def best_of_tree(tree, row):
    """The root's value by the best edge of every node, where that of a leaf is the network's."""
    count = len(tree.parents[row])
    best = np.full(count, -np.inf)
    for node in range(count - 1, 0, -1):
        value = best[node] if np.isfinite(best[node]) else tree.raw_values[row, node]
        place = row, tree.parents[row, node], tree.action_from_parent[row, node]
        returned = tree.children_rewards[place] + tree.children_discounts[place] * value
        best[place[1]] = max(best[place[1]], returned)
    return best[0]


def test_root_values_are_those_of_dynamic_programming_with_and_without_macros():
    """Games whose every node is reached: the best way is the best there is, and it is found."""
    errors = {True: [], False: []}
    for seed in range(6):
        tables = tabular.random_tables(seed, states=STATES, actions=ACTIONS, layered=True)
        tables = tabular.deterministic(tables, seed)
        tables.successor[tables.successor == 1] = 3  # which is no end
        wanted = action_values(tables)
        given = right_gains(tables), np.ones((STATES, SLOTS), bool), np.zeros((STATES, ACTIONS))
        for macros, error in errors.items():
            found = run(tables, *given, RULES[1], macros=macros, simulations=400)
            tree, output = jax.device_get((found.tree, found._replace(tree=None)))
            for state in (0, 2, 3):
                best = wanted[state].max()
                assert best_of_tree(tree, state) == pytest.approx(best, abs=1e-5)
                assert int(output.action_weights[state].argmax()) == int(wanted[state].argmax())
                error.append(abs(float(output.value[state]) - best))
            assert not macros or float(output.usage["macro_simulations"][0]) > 0.5
    # What is left is of the visits to other actions, in a mean over 400.
    assert max(map(np.mean, errors.values())) < 0.15, errors


@pytest.mark.parametrize("rules", RULES)
def test_where_no_macro_may_be_used_it_is_the_search_without(rules):
    tables, gain, certain, invalid = drawn(1, off=9.0)
    theirs = run(tables, gain, certain, invalid, rules, macros=False)
    for usable, sure in ((False, certain), (True, np.zeros_like(certain))):
        ours = run(tables, gain, sure, invalid, rules, usable=usable)
        check_without(ours, theirs)


def check_without(ours, theirs):
    assert np.all(ours.tree.embeddings.macro == -1)
    for name in ("children_index", "children_visits", "children_values", "children_prior_logits"):
        without = np.delete(np.asarray(getattr(ours.tree, name)), ACTIONS, axis=-1)
        np.testing.assert_array_equal(without, getattr(theirs.tree, name))
    for name in ("node_visits", "node_values", "parents"):
        np.testing.assert_array_equal(getattr(ours.tree, name), getattr(theirs.tree, name))
    for name in ("action", "action_weights", "value"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_what_is_refused_leaves_nothing_behind():
    """All jumps are refused: no mean knows of them, and each row has as many simulations fewer."""
    tables, gain, certain, invalid = drawn(1, off=0.0)
    rules = RULES[-1]
    found = run(tables, gain + 10.0, certain, invalid, rules)
    assert not np.any(np.asarray(found.tree.action_from_parent) == ACTIONS)
    done = np.asarray(found.tree.node_visits[:, 0]) - 1
    empty = np.sum(np.asarray(found.tree.node_visits) == 0, axis=1)
    np.testing.assert_array_equal(done + empty, SIMULATIONS)
    assert empty.sum() > 0


def test_what_is_mined_is_what_is_without_the_parts_that_macros_led_to():
    tables, gain, certain, invalid = drawn(1, off=0.0)
    found = run(tables, gain, certain, invalid, RULES[1], simulations=400)
    tree = jax.device_get(found.tree)
    settings = MacroConfig(min_length=1, max_length=3, tree_threshold=1.0)
    visits, parents = tree.node_visits.copy(), tree.parents.copy()
    below = 0
    for row, node in np.ndindex(*parents.shape):
        above = tree.parents[row, node]
        by_macro = above >= 0 and tree.action_from_parent[row, node] == ACTIONS
        assert not by_macro or not tree.embeddings.is_chance[row, above]
        if by_macro or (above >= 0 and parents[row, above] < 0 < above):
            visits[row, node], parents[row, node] = 0, -1
            below += not by_macro
    cut = tree.replace(node_visits=visits, parents=parents)
    ours, theirs = (tree_windows(x, lambda nodes, _: nodes, settings, ACTIONS) for x in (tree, cut))
    jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])
    there = np.asarray(theirs[0].key_high) != 0
    for one, two in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_array_equal(np.asarray(one)[there], np.asarray(two)[there])
    np.testing.assert_array_equal(ours[0].key_high, theirs[0].key_high)
    assert below > 5 and int(ours[1].transitions_tree) > 20


def test_nothing_is_mined_however_far_below_a_macro():
    """A way of 40 steps whose first one is a macro."""
    nodes, none = 41, np.full((1, 41, LONGEST), -1)
    edge = np.where(np.arange(nodes) == 1, ACTIONS, 0)[None]
    tree: Any = SimpleNamespace(
        parents=np.arange(-1, nodes - 1)[None], action_from_parent=edge,
        node_visits=np.ones((1, nodes), int), children_rewards=np.zeros((1, nodes, ACTIONS + 1)),
        children_discounts=np.ones((1, nodes, ACTIONS + 1)),
        embeddings=NodeEmbedding(
            None, np.zeros((1, nodes), bool), np.where(edge == ACTIONS, LEAPT, 0.0), macro=none
        ),
    )  # fmt: skip
    tree = jax.tree.map(jnp.asarray, vars(tree))
    settings = MacroConfig(min_length=1, max_length=3)
    given = lambda nodes, _: nodes, settings, ACTIONS
    assert int(tree_windows(SimpleNamespace(**tree), *given)[1].transitions_tree) == 0
    tree["embeddings"] = tree["embeddings"]._replace(macro=None)
    assert int(tree_windows(SimpleNamespace(**tree), *given)[1].transitions_tree) == nodes - 2


@pytest.mark.parametrize("rules", RULES[:3])
def test_the_target_is_the_one_without_macros_where_both_ways_are_worth_the_same(rules):
    """Rewards that make up for all values: what an action of the root is worth is known exactly."""
    tables = tabular.deterministic(drawn(1, off=0.0)[0])
    successor = np.array([2, 3, 2, 3, 2])[tables.successor]  # neither an end nor the root
    gained = tables.value[:, None, None] - GAMMA * tables.value[successor]
    gained[0] += np.array([0.3, 0.9, -0.5])[:, None]
    tables = tables._replace(successor=successor, reward=gained)
    given = np.ones((STATES, SLOTS), bool), np.zeros((STATES, ACTIONS))
    ours = run(tables, right_gains(tables), *given, rules)
    theirs = run(tables, right_gains(tables), *given, rules, macros=False)
    assert float(ours.usage["macro_simulations"][0]) > 0.1
    np.testing.assert_allclose(ours.action_weights[0], theirs.action_weights[0], atol=1e-5)
    assert float(np.sum(ours.action_weights[0])) == pytest.approx(1.0)
    assert int(ours.action[0]) == int(theirs.action[0])
    assert float(ours.value[0]) == pytest.approx(float(theirs.value[0]), abs=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"network": NetworkConfig(jump_length=3)}, "network.gain_slots"),
        ({"network": NetworkConfig(gain_slots=3)}, "network.jump_length"),
        ({"macro": MacroConfig(head_learning_rate=0.0)}, "macro.head_learning_rate"),
        ({"macro": MacroConfig(slots=2)}, "network.gain_slots"),
        ({"macro": MacroConfig(min_length=4)}, "network.jump_length"),
    ],
)
def test_what_does_not_go_together_is_refused(changed, message):
    good = {
        "search": SearchConfig(macros=True),
        "network": NetworkConfig(jump_length=3, gain_slots=3),
    }
    Config(**good)
    with pytest.raises(ConfigError, match=message):
        Config(**(good | changed))
