"""What a search does with bad numbers and bad shapes, and which functions it runs at all."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, NetworkConfig
from smz_jax.model.networks import make_networks
from smz_jax.search.candidates import make_edge_actions
from smz_jax.search.control import Control
from smz_jax.search.expansion import Place, make_expand, on_rows
from smz_jax.search.root_search import make_prior_policy, make_search
from smz_jax.types import EnvSpec, Space
from tests.support.search_runs import run_search
from tests.support.tabular import (
    as_params,
    deterministic,
    embed,
    make_tabular_networks,
    random_tables,
)

both_engines = pytest.mark.parametrize("engine", ["batched", "mctx"])
SPEC = EnvSpec("tabular", (1,), 1, np.dtype("float32"), Space(3, ("?",) * 3), 1)


def poisoned(tables, bad, fields):
    """State 4 leads to numbers that are not finite; nothing else leads to state 4."""
    tables = tables._replace(successor=tables.successor % 4)
    for name in fields:
        array = np.array(getattr(tables, name))
        array[4] = bad
        tables = tables._replace(**{name: array})
    return tables


@pytest.mark.parametrize("bad,engine,settings", [
    (np.nan, "mctx", {}),
    (np.inf, "mctx", {}),
    (np.nan, "batched", {}),
    (-np.inf, "batched", {}),
    (np.nan, "batched", {"root": "gumbel", "interior": "gumbel", "row_multiple": 2}),
    (np.nan, "batched", {"collapse_threshold": 0.6, "qtransform": "tree"}),
])  # fmt: skip
def test_a_bad_number_stays_in_its_row_and_is_counted(bad, engine, settings):
    fields = ("prior", "value", "afterstate_value", "chance", "reward")
    good = random_tables(1)._replace(successor=random_tables(1).successor % 4)
    options = {"simulations": 16, "engine": engine, **settings}
    clean = run_search(good, [0, 1, 2], **options)
    output = run_search(poisoned(good, bad, fields), [0, 4, 2], **options)
    for row in (0, 2):
        np.testing.assert_array_equal(output.tree.parents[row], clean.tree.parents[row])
        np.testing.assert_array_equal(output.action_weights[row], clean.action_weights[row])
    assert output.faults[0] == output.faults[2] == 0
    # Root: prior and value; each of its 3 afterstates: logits and value; rewards on the way back.
    assert output.faults[1] >= 2 + 3 * 2
    for leaf in (output.action_weights, output.value, output.tree.node_values):
        assert np.isfinite(leaf).all()
    assert output.action_weights[1].sum() == pytest.approx(1.0)
    assert 0 <= output.action[1] < 3


@both_engines
def test_faults_by_hand(engine):
    """One value of one state is NaN: it counts once for each node of that state, and is 0."""
    tables = random_tables(2)
    tables.successor[:, :, 0] = 3
    tables.value[3] = np.nan
    output = run_search(tables, [0, 1], simulations=30, engine=engine)
    tree = output.tree
    for row in range(2):
        state = tree.embeddings.state[row].argmax(axis=-1) // 3
        is_node = (tree.node_visits[row] > 0) & ~tree.embeddings.is_chance[row]
        bad = is_node & (state == 3)
        assert bad.any()
        assert output.faults[row] == bad.sum()
        assert (tree.raw_values[row][bad] == 0).all()


@both_engines
@pytest.mark.parametrize("simulations", [0, 8])
def test_a_row_without_valid_actions_is_defined(engine, simulations):
    invalid = np.array([[0, 0, 1], [1, 1, 1], [0, 1, 0]], np.float32)
    options = {"simulations": simulations, "engine": engine}
    output = run_search(random_tables(3), [0, 1, 2], invalid=invalid, **options)
    np.testing.assert_array_equal(output.all_invalid, [False, True, False])
    assert np.isfinite(output.action_weights).all()
    np.testing.assert_allclose(output.action_weights.sum(axis=1), 1.0, rtol=1e-6)
    others = run_search(random_tables(3), [0, 1, 2], invalid=invalid * [[1], [0], [1]], **options)
    np.testing.assert_array_equal(output.action_weights[[0, 2]], others.action_weights[[0, 2]])


def test_a_row_without_valid_actions_under_a_gumbel_root():
    invalid = np.array([[0, 0, 1], [1, 1, 1]], np.float32)
    output = run_search(
        random_tables(3), [0, 1], invalid=invalid, simulations=8, engine="batched", root="gumbel"
    )
    assert np.isfinite(output.action_weights).all()
    np.testing.assert_array_equal(output.all_invalid, [False, True])


def test_the_plain_policy_counts_too():
    tables = random_tables(4)
    tables.prior[1] = np.nan
    settings = SearchConfig(q_epsilon=0.1)
    policy = make_prior_policy(make_tabular_networks(5, 3), settings, SPEC.action_space)
    policy = jax.jit(policy)
    invalid = np.array([[0, 0, 0], [0, 0, 0], [1, 1, 1]], np.float32)
    output = policy(
        as_params(tables), jax.random.key(0), embed(tables, [0, 1, 2]), invalid, 1.0, 0.0
    )
    np.testing.assert_array_equal(output.faults, [0, 1, 0])
    np.testing.assert_array_equal(output.all_invalid, [False, False, True])
    assert np.isfinite(output.action_weights).all()


def run_with(networks, *, batch_size=2, actions=3, **search):
    tables = random_tables(5)
    config = Config(search=SearchConfig(num_simulations=4, engine="batched", **search))
    return make_search(
        networks, config, SPEC._replace(action_space=Space(actions, ("?",) * actions))
    )(
        as_params(tables),
        jax.random.key(0),
        embed(tables, [0] * batch_size),
        jnp.zeros((batch_size, actions)),
        jnp.float32(1),
        1.0,
    )


def wrong_codebook(networks):
    """The dynamics want 5 codes; the model gives 2."""

    def dynamics(params, afterstate, code):
        return networks.dynamics(params, afterstate, code @ jnp.ones((5, 2)))

    return networks._replace(dynamics=dynamics)


def wrong_afterstate(networks):
    def afterstate_dynamics(params, embedding, action):
        return networks.afterstate_dynamics(params, embedding, action)[:, :-1]

    return networks._replace(afterstate_dynamics=afterstate_dynamics)


@pytest.mark.parametrize("change,options,message", [
    (None, {"actions": 4}, "policy logits' shape"),
    (None, {"batch_size": 0}, "batch size = 0 .*at least 1"),
    (wrong_codebook, {}, "model: dynamics does not take .*C or A do not fit"),
    (wrong_afterstate, {}, "afterstate"),
])  # fmt: skip
def test_what_does_not_fit_gets_one_line(change, options, message):
    networks = make_tabular_networks(5, 3)
    networks = networks if change is None else change(networks)
    with pytest.raises(ConfigError, match=message) as caught:
        run_with(networks, **options)
    assert "\n" not in str(caught.value)


def test_parameters_of_another_codebook_get_one_line():
    spec = EnvSpec("toy", (5,), 1, np.dtype("float32"), Space(3, ("?",) * 3), 1)
    models = [
        make_networks(
            NetworkConfig(family="mlp", embedding_size=8, hidden_size=8, codebook_size=codes), spec
        )
        for codes in (4, 8)
    ]
    search = make_search(models[0], Config(search=SearchConfig(num_simulations=2)), spec)
    params = jax.jit(models[1].init)(jax.random.key(0))
    with pytest.raises(ConfigError, match=r"model: .* does not take .*C or A do not fit") as caught:
        search(params, jax.random.key(0), jnp.zeros((2, 8)), jnp.zeros((2, 3)), jnp.float32(1), 1.0)
    assert "\n" not in str(caught.value)


@both_engines
def test_a_bad_discount_is_replaced_and_counted(engine):
    """The discount after state 3 is NaN: its edges get discount 0, once counted for each node."""
    tables = random_tables(2)
    tables.successor[:, :, 0] = 3
    output = run_search(
        tables, [0, 1], simulations=30, engine=engine, ended=(0.0, 0.0, 0.0, np.nan, 0.0)
    )
    tree = output.tree
    assert np.isfinite(output.value).all()
    for row in range(2):
        state = tree.embeddings.state[row].argmax(axis=-1) // 3
        is_node = (tree.node_visits[row] > 0) & ~tree.embeddings.is_chance[row]
        bad = is_node & (state == 3)
        bad[0] = False  # nothing leads to the root
        assert bad.any()
        assert output.faults[row] == bad.sum()


@both_engines
def test_huge_numbers_cannot_overflow(engine):
    tables = random_tables(3)
    tables.reward[1:3] = 3e38
    output = run_search(tables, [0, 1, 2], simulations=40, engine=engine)
    assert np.isfinite(output.value).all() and np.isfinite(output.tree.node_values).all()
    assert output.faults.sum() > 0


@pytest.mark.parametrize("field,value,message", [
    ("num_simulations", -1, "search.num_simulations = -1"),
    ("max_depth", 0, "search.max_depth = 0"),
    ("collapse_threshold", 1.5, "search.collapse_threshold = 1.5"),
    ("collapse_threshold", float("nan"), "search.collapse_threshold = nan"),
    ("row_multiple", 0, "search.row_multiple = 0"),
    ("gumbel_considered", 0, "search.gumbel_considered = 0"),
    ("gumbel_value_scale", -1.0, "search.gumbel_value_scale = -1.0"),
    ("engine", "fast", "search.engine = 'fast'"),
    ("interior", "gumbel", "search.interior = 'gumbel'"),
])  # fmt: skip
def test_bad_settings_get_one_line(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SearchConfig(engine="batched"), **{field: value})


@pytest.mark.parametrize("field,value", [
    ("collapse_threshold", 0.1), ("root", "gumbel"), ("qtransform", "tree"),
])  # fmt: skip
def test_the_reference_engine_refuses_what_it_cannot_do(field, value):
    with pytest.raises(ConfigError, match=f"search.{field} = "):
        SearchConfig(engine="mctx", **{field: value})


def test_bfloat16_embeddings():
    networks = make_tabular_networks(5, 3)

    def narrow(function):
        def narrowed(params, x, *rest):
            results = function(params, x.astype(jnp.float32), *rest)
            if isinstance(results, tuple):
                return (results[0].astype(jnp.bfloat16), *results[1:])
            return results.astype(jnp.bfloat16)

        return narrowed

    half = networks._replace(
        afterstate_dynamics=narrow(networks.afterstate_dynamics),
        dynamics=narrow(networks.dynamics),
        prediction=lambda p, x: networks.prediction(p, x.astype(jnp.float32)),
        afterstate_prediction=lambda p, x: networks.afterstate_prediction(p, x.astype(jnp.float32)),
    )
    tables = random_tables(6)
    arguments = (jax.random.key(0), jnp.zeros((3, 3)), jnp.float32(1), 1.0)
    for settings in ({}, {"collapse_threshold": 0.6}, {"row_multiple": 2}):
        config = Config(search=SearchConfig(num_simulations=20, engine="batched", **settings))
        key, invalid, temperature, noise = arguments
        trees = [
            jax.jit(make_search(model, config, SPEC))(
                as_params(tables), key, embed(tables, [0, 1, 2]).astype(dtype), invalid,
                temperature, noise,
            ).tree
            for model, dtype in ((networks, jnp.float32), (half, jnp.bfloat16))
        ]  # fmt: skip
        assert trees[1].embeddings.state.dtype == jnp.bfloat16
        assert trees[1].node_values.dtype == jnp.float32
        np.testing.assert_array_equal(trees[0].parents, trees[1].parents)  # one-hots are exact


# Only what is needed.


@pytest.mark.parametrize("row_multiple", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("needed", ["1000100", "1111111", "0000000", "0000001"])
def test_on_rows_runs_what_is_needed_and_no_more(row_multiple, needed):
    calls = []
    mask = np.array([digit == "1" for digit in needed])
    inputs = jnp.arange(7, dtype=jnp.float32)

    def double(x):
        jax.debug.callback(lambda rows: calls.append(len(rows)), x)
        return 2 * x, x[:, None] + jnp.arange(2.0)

    outputs = (jnp.full(7, -1.0), jnp.full((7, 2), -1.0))
    run = jax.jit(lambda m, x, old: on_rows(double, m, x, old, row_multiple, Control(False)))
    result = run(mask, inputs, outputs)
    jax.effects_barrier()
    np.testing.assert_array_equal(result[0], np.where(mask, 2 * np.arange(7.0), -1.0))
    np.testing.assert_array_equal(
        result[1], np.where(mask[:, None], np.arange(7.0)[:, None] + np.arange(2.0), -1.0)
    )
    multiple = row_multiple or 7
    rows = min(7, -(-int(mask.sum()) // multiple) * multiple)
    assert calls == ([rows] if mask.any() else [])


@pytest.mark.parametrize("kind,collapse,expected", [
    ("decisions", 0.0, ["afterstate"]),
    ("decisions", 0.05, ["afterstate", "dynamics"]),
    ("chances", 0.05, ["dynamics"]),
])  # fmt: skip
def test_a_function_that_no_row_needs_is_not_run(kind, collapse, expected):
    ran = []
    networks = make_tabular_networks(5, 3)

    def watched(name, function):
        def call(*arguments):
            jax.debug.callback(lambda: ran.append(name))
            return function(*arguments)

        return call

    networks = networks._replace(
        afterstate_dynamics=watched("afterstate", networks.afterstate_dynamics),
        dynamics=watched("dynamics", networks.dynamics),
    )
    search = SearchConfig(collapse_threshold=collapse, row_multiple=None)
    choices = make_edge_actions(search, SPEC.action_space)
    expand = make_expand(networks, Config(search=search), choices)
    tables = deterministic(random_tables(7))
    from_chance = jnp.full((4,), kind == "chances")
    jax.jit(expand)(
        as_params(tables),
        jax.random.key(0),
        Place(embed(tables, [0, 1, 2, 3]), None, None, jnp.where(from_chance, 3, 1), from_chance),
        jnp.ones(4, bool),
        jnp.ones(4, bool),
    )
    jax.effects_barrier()
    assert ran == expected
