"""A jump of one action as the collapsed step: the same tree, and with the gate closed none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, NetworkConfig
from smz_jax.config.training import LearnerConfig, MacroConfig
from smz_jax.macros.mine.windows import tree_windows
from smz_jax.model.steps import normalised_entropy
from smz_jax.search.root_search import make_search
from smz_jax.types import LEAPT, EnvSpec, Space
from tests.support import tabular

GAMMA, THRESHOLD, LONGEST = 0.9, 0.05, 3
STATES, ACTIONS = 5, 3
ENDED = np.array([False, True, False, False, True])
OPEN, CLOSED = {"yes": 6.0, "false_yes": 0.05}, {"yes": 6.0, "false_yes": 0.07}
FIELDS = ("node_visits", "parents", "action_from_parent", "children_index", "children_visits")
NUMBERS = ("node_values", "raw_values", "children_rewards", "children_discounts")


def jumping_networks(off=0.0):
    """The tabular model, and a jump that is right but for `off` in the reward."""
    plain = tabular.with_ends(tabular.make_tabular_networks(STATES, ACTIONS), ENDED)

    def likely_step(tables, state, action):
        after = plain.afterstate_dynamics(tables, state, action)
        logits, _ = plain.afterstate_prediction(tables, after)
        code = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
        return plain.dynamics(tables, after, code), normalised_entropy(logits)

    def jump(params, state, actions):
        assert actions.shape[1] == LONGEST
        total, factor = jnp.zeros(len(state)), 1.0
        for action in actions.T:
            step, _ = likely_step(params["tables"], state, action)
            total = total + jnp.where(action < 0, 0.0, factor * (step.reward_logits[:, 0] + off))
            state = jnp.where((action < 0)[:, None], state, step.embedding)
            factor = factor * GAMMA
        return state, total[:, None]

    def certain(params, state):
        each = [
            likely_step(params["tables"], state, jnp.full(len(state), action))[1] < THRESHOLD
            for action in range(ACTIONS)
        ]
        return jnp.where(jnp.stack(each, axis=1), 0.1, -0.1)

    def of_tables(function):
        return lambda params, *inputs: function(params["tables"], *inputs)

    names = ("prediction", "afterstate_dynamics", "afterstate_prediction", "dynamics", "discount")
    wrapped = {name: of_tables(getattr(plain, name)) for name in names}
    jumps = {"jump": jump, "certain": certain, "reward_sum_of": lambda logits: logits[..., 0]}
    return plain._replace(**wrapped, **jumps)


@functools.cache
def compiled(jumps, root, off=0.0):
    settings = {"num_simulations": 24, "collapse_threshold": THRESHOLD, "root": root}
    config = Config(
        search=SearchConfig(**settings, jump_collapses=jumps),
        network=NetworkConfig(jump_length=LONGEST),
        learner=LearnerConfig(gamma=GAMMA),
    )
    spec = EnvSpec("tabular", (1,), 1, np.dtype("float32"), Space(ACTIONS, ("?",) * ACTIONS), 1)
    return jax.jit(functools.partial(make_search(jumping_networks(off), config, spec), noise=1.0))


def run(tables, counts, *, jumps=True, root="puct", off=0.0):
    return compiled(jumps, root, off)(
        {"tables": tabular.as_params(tables), "jump": counts},
        jax.random.key(3),
        tabular.embed(tables, range(STATES)),
        np.zeros((STATES, ACTIONS), np.float32),
        jnp.float32(1.0),
    )


def half_certain(tables=None):
    """Tables, random ones if unset, whose pairs are certain every second time."""
    if tables is None:
        tables = tabular.random_tables(1, states=STATES, actions=ACTIONS, outcomes=4)
    every = tabular.deterministic(tables).chance
    pick = np.arange(STATES * ACTIONS).reshape(STATES, ACTIONS, 1) % 2 == 0
    return tables._replace(chance=np.where(pick, every, tables.chance))


def check_same(ours, theirs):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(ours.tree, name), getattr(theirs.tree, name))
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(ours.tree, name), getattr(theirs.tree, name), atol=1e-6)
    np.testing.assert_array_equal(ours.action, theirs.action)
    np.testing.assert_allclose(ours.action_weights, theirs.action_weights, atol=1e-6)


@pytest.mark.parametrize("root", ["puct", "gumbel"])
def test_right_jumps_grow_the_tree_of_collapsed_steps(root):
    tables = half_certain()
    ours, theirs = run(tables, OPEN, root=root), run(tables, OPEN, root=root, jumps=False)
    check_same(ours, theirs)
    entropy, wanted = ours.tree.embeddings.entropy, theirs.tree.embeddings.entropy
    edge = theirs.tree.action_from_parent
    follows = (edge >= 0) & (edge < ACTIONS)
    collapsed = np.asarray(follows & (wanted < THRESHOLD))
    assert 10 < collapsed.sum() < np.asarray(follows).sum() - 10
    np.testing.assert_array_equal(entropy, np.where(collapsed, LEAPT, wanted))


def test_with_the_gate_closed_it_is_the_search_without():
    tables = half_certain()
    ours, theirs = run(tables, CLOSED, off=9.0), run(tables, CLOSED, jumps=False)
    jax.tree.map(np.testing.assert_array_equal, ours._replace(usage=None), theirs)
    wrong = run(tables, OPEN, off=9.0)
    assert float(np.abs(wrong.value - theirs.value).min()) > 0.5


def test_nothing_is_mined_of_a_jump():
    tables = tabular.deterministic(half_certain())
    settings = MacroConfig(min_length=2, max_length=3, tree_threshold=1.0)
    counts = []
    for jumps in (True, False):
        tree = run(tables, OPEN, jumps=jumps).tree
        stats = tree_windows(tree, lambda nodes, _: 0 * nodes, settings, ACTIONS)[1]
        counts.append([int(x) for x in stats])
    assert sum(counts[0][1:]) == 0 < sum(counts[1][1:]), counts
