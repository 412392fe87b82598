"""Three players: the batched engine against a plain-Python twin and against max-n by brute force.

The twin tells every node from the side of its own mover and turns vectors around at each edge; the
engine adds them up by seat. mctx has no vectors.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config
from smz_jax.config.training import LearnerConfig
from smz_jax.search.root_search import make_search
from smz_jax.types import EnvSpec, Space
from tests.support.search_twin import Node, TwinSearch, softmax
from tests.support.tabular import as_params, embed, make_tabular_networks, random_tables

STATES, ACTIONS, OUTCOMES, PLAYERS, GAMMA, SIMULATIONS = 9, 3, 2, 3, 0.9, 100
TURN = np.array([0, 1, 2, 0, 1, 2, 1, 0, 0])
"""How many seats on the mover sits, by the state that is come to."""
ENDED = np.array([0, 0, 0, 0, 0, 0, 1, 0, 0])


def of_three(seed, **options):
    """A random game whose values and rewards are vectors from the mover on, their own axis last."""
    tables = random_tables(seed, states=STATES, actions=ACTIONS, **options)
    draw = np.random.default_rng(seed + 1000)

    def each(x):
        return np.stack([x, *(draw.permutation(x.ravel()).reshape(x.shape) for _ in "ab")], axis=-1)

    kept = {"value": each(tables.value), "afterstate_value": each(tables.afterstate_value)}
    reward = each(tables.reward)
    reward[-1] = tables.reward[-1][..., None] if options.get("layered") else reward[-1]
    return tables._replace(**kept, reward=reward)


@functools.cache
def search_of_three(engine="batched", root="puct", threshold=0.0):
    plain = make_tabular_networks(STATES, ACTIONS)

    def state_of(embedding):
        return jnp.argmax(embedding, axis=-1) // ACTIONS

    def prediction(t, embedding):
        return plain.prediction(t, embedding)._replace(
            value_logits=t.value[state_of(embedding)][..., None]
        )

    def afterstate_prediction(t, after):
        index = jnp.argmax(after, axis=-1)
        found = t.afterstate_value[index // ACTIONS, index % ACTIONS]
        return plain.afterstate_prediction(t, after)._replace(value_logits=found[..., None])

    def dynamics(t, after, code):
        index, outcome = jnp.argmax(after, axis=-1), jnp.argmax(code, axis=-1)
        found = t.reward[index // ACTIONS, index % ACTIONS, outcome]
        return plain.dynamics(t, after, code)._replace(reward_logits=found[..., None])

    def discount(t, embedding):
        state = state_of(embedding)
        return (1.0 - jnp.array(ENDED)[state]) * jnp.where(jnp.array(TURN)[state] == 0, 1.0, -1.0)

    of_all = lambda logits: logits[..., 0]  # noqa: E731
    of_mover = lambda logits: logits[..., 0, 0]  # noqa: E731
    networks = plain._replace(
        prediction=prediction,
        afterstate_prediction=afterstate_prediction,
        dynamics=dynamics,
        discount=discount,
        value_of=of_mover,
        reward_of=of_mover,
        all_values=of_all,
        all_rewards=of_all,
        turn=lambda t, embedding: jnp.array(TURN, jnp.int32)[state_of(embedding)],
    )
    kind = {"engine": engine, "root": root, "collapse_threshold": threshold}
    search = SearchConfig(num_simulations=SIMULATIONS, **kind)
    config = Config(search=search, learner=LearnerConfig(gamma=GAMMA))
    space = Space(ACTIONS, ("?",) * ACTIONS)
    spec = EnvSpec("Three", (1,), 1, np.dtype(np.float32), space, 1, players=PLAYERS)
    return jax.jit(make_search(networks, config, spec))


def search(tables, roots, **kind):
    jax.config.update("jax_disable_most_optimizations", True)
    invalid = np.zeros((len(roots), ACTIONS), np.float32)
    given = as_params(tables), jax.random.key(0), embed(tables, roots), invalid
    return jax.device_get(search_of_three(**kind)(*given, jnp.float32(0.0), jnp.float32(0.0)))


@dataclass
class Seat(Node):
    """A node whose value is a vector from its own mover on."""

    turn: int = 0

    @property
    def worth(self):
        """What the edge is worth to each, from the parent's mover on."""
        return self.reward + self.discount * np.roll(self.value, self.turn)

    @property
    def q(self):
        return self.worth[0]


class TwinOfThree(TwinSearch):
    """See `TwinSearch`; each choice reads the mover's entry, a backup carries all."""

    def decision_node(self, state, **edge):
        priors = softmax(self.tables.prior[state])
        return Seat((state,), self.tables.value[state].copy(), priors, **edge)

    def after_outcome(self, place, outcome, **edge):
        state = int(self.tables.successor[(*place, outcome)])
        edge |= {"reward": self.tables.reward[(*place, outcome)], "turn": int(TURN[state])}
        return self.decision_node(state, discount=self.gamma * (1 - ENDED[state]), **edge)

    def chance_node(self, place, sigma, entropy):
        value = self.tables.afterstate_value[place].copy()
        return Seat(place, value, sigma, reward=np.zeros(PLAYERS), entropy=entropy)

    def action_score(self, node, edge):
        whole, node.value = node.value, node.value[0]
        try:
            return super().action_score(node, edge)
        finally:
            node.value = whole

    def back_up(self, path):
        returned = path[-1].value
        for parent, child in zip(path[-2::-1], path[:0:-1], strict=True):
            returned = child.reward + child.discount * np.roll(returned, child.turn)
            parent.value = (parent.value * parent.visits + returned) / (parent.visits + 1)
            parent.visits += 1


@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_the_tree_is_the_twins(threshold):
    roots, same, turned, collapsed = [0, 1, 2, 3, 4], 0, 0, 0
    for seed in range(20):
        tables = of_three(seed)
        found = search(tables, roots, threshold=threshold)
        for row, root in enumerate(roots):
            kind = {"simulations": SIMULATIONS, "gamma": GAMMA, "threshold": threshold}
            twin = TwinOfThree(tables, root, **kind)
            parents = [-1, *(parent for _, parent, _ in twin.nodes[1:])]
            edges = [
                edge + ACTIONS * twin.nodes[parent][0].is_chance if parent >= 0 else -1
                for _, parent, edge in twin.nodes
            ]
            tree = found.tree
            if parents != list(tree.parents[row]) or edges != list(tree.action_from_parent[row]):
                assert twin.margin < 1e-5  # two scores were nearly equal
                continue
            same += 1
            nodes = [node for node, *_ in twin.nodes]
            values = [node.value[0] for node in nodes]
            np.testing.assert_allclose(tree.node_values[row], values, atol=1e-5)
            np.testing.assert_array_equal(tree.node_visits[row], [node.visits for node in nodes])
            # Q of every edge, as whoever reads the tree has it; and that the turn passed.
            each = tree.children_rewards + tree.children_discounts * tree.children_values
            for node, parent, edge in zip(nodes[1:], parents[1:], edges[1:], strict=True):
                assert each[row, parent, edge] == pytest.approx(node.q, abs=1e-5)
                passes = node.turn != 0 and node.discount > 0
                assert (tree.children_discounts[row, parent, edge] < 0) == passes
                turned += passes
                collapsed += node.steps == 2
            # The root's value of all players is the mean over its visits, each edge's Q theirs.
            children = twin.root.children.values()
            mean = tables.value[root] + sum(x.visits * x.worth for x in children)
            mean /= 1 + sum(x.visits for x in children)
            np.testing.assert_allclose(found.values[row], mean, atol=1e-5)
            assert found.values[row, 0] == pytest.approx(found.value[row], abs=1e-6)
    assert same >= 98 and turned > 1000 and (collapsed > 1000) == (threshold > 0)


@pytest.mark.parametrize("root", ["puct", "gumbel"])
def test_the_best_move_is_that_of_max_n(root):
    """Two moves, then it is over: whoever moves second takes what is best for it alone."""
    best = two_sided = 0
    for seed in range(40):
        tables = of_three(seed, layered=True)
        assert not tables.reward[-1].any()

        def worth(state, tables=tables):
            probs = np.exp(tables.chance[state])
            probs /= probs.sum(axis=-1, keepdims=True)
            later = np.zeros((ACTIONS, OUTCOMES, PLAYERS))
            if state == 0:
                for place in np.ndindex(ACTIONS, OUTCOMES):
                    then = tables.successor[0][place]
                    of_each = worth(then)
                    chosen = of_each[of_each[:, 0].argmax()]
                    later[place] = (1 - ENDED[then]) * GAMMA * np.roll(chosen, TURN[then])
            return (probs[..., None] * (tables.reward[state] + later)).sum(axis=1)

        found, own = search(tables, [0] * 5, root=root), worth(0)[:, 0]
        assert found.values[0, 0] == pytest.approx(found.value[0], abs=1e-6)
        best += int(found.action[0]) == own.argmax()
        two_sided += np.ptp(own) > 0.3
    assert best >= 34 and two_sided > 20  # of two that are near, 100 simulations may take either


def test_mctx_has_no_vectors():
    with pytest.raises(ConfigError, match=r"search.engine.*batched in a game of more than two"):
        search_of_three("mctx")
