"""A static search is the same search, and asks its host nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from smz_jax.config.check import ConfigError
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config
from smz_jax.search import control
from smz_jax.search.root_search import make_search
from smz_jax.types import EnvSpec, Space
from tests.support.golden_trees import CASES
from tests.support.search_runs import random_invalid, run_search
from tests.support.tabular import as_params, embed, make_tabular_networks, random_tables

BATCHED = {
    name: {key: x for key, x in options.items() if key != "engine"}
    for name, options in CASES.items()
    if options["engine"] == "batched"
}
SPEC = EnvSpec("tabular", (1,), 1, np.dtype("float32"), Space(3, ("?",) * 3), 1)


def make_settings(**options):
    return SearchConfig(num_simulations=12, **options)


@pytest.mark.parametrize("case", BATCHED)
def test_the_same_trees(case):
    tables = random_tables(7, actions=3, outcomes=4)
    options = {"simulations": 20, "invalid": random_invalid(5, 3, 3), "seed": 5, **BATCHED[case]}
    ends = {"ended": (False, True, False, False, False)}
    plain, static = (
        run_search(tables, [0, 1, 2], static=static, **ends, **options) for static in (False, True)
    )
    for name in ("parents", "action_from_parent", "node_visits", "children_index"):
        np.testing.assert_array_equal(getattr(static.tree, name), getattr(plain.tree, name), name)
    np.testing.assert_allclose(static.tree.node_values, plain.tree.node_values, rtol=1e-5)
    np.testing.assert_array_equal(static.action, plain.action)
    np.testing.assert_allclose(static.action_weights, plain.action_weights, rtol=1e-5)


def test_ties_are_broken_alike():
    """A model in which all actions are worth the same: noise alone decides."""
    tables = random_tables(3, actions=3, outcomes=2)
    silent = tables._replace(**{name: np.zeros_like(x) for name, x in tables._asdict().items()
                                if name in ("prior", "value", "reward")})  # fmt: skip
    plain, static = (run_search(silent, [0, 1], simulations=16, static=x) for x in (False, True))
    np.testing.assert_array_equal(static.tree.node_visits, plain.tree.node_visits)
    assert len(np.unique(plain.tree.parents[0])) > 2


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in core.jaxprs_in_params(equation.params):
            yield from primitives(inner)


@pytest.mark.parametrize("root", ["puct", "gumbel"])
@pytest.mark.parametrize("static", [True, False])
def test_only_a_static_search_has_no_condition_to_read(root, static):
    settings = make_settings(root=root, interior=root, static=static, max_depth=6)
    networks = make_tabular_networks(5, 3)
    search = functools.partial(make_search(networks, Config(search=settings), SPEC), noise=1.0)
    tables = random_tables(7, actions=3, outcomes=4)
    inputs = embed(tables, [0, 1]), np.zeros((2, 3), np.float32), jnp.float32(1)
    jaxpr = jax.make_jaxpr(search)(as_params(tables), jax.random.key(0), *inputs)
    read = {"while", "cond"} & set(primitives(jaxpr.jaxpr))
    assert read == (set() if static else {"while", "cond"})


def test_open_it_follows_the_device(monkeypatch):
    assert control.make_control(make_settings()) == control.Control(False)
    assert control.make_control(make_settings(row_multiple=4)) == control.Control(False)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert control.make_control(make_settings()) == control.Control(True)
    assert control.make_control(make_settings(static=False, row_multiple=4)).static is False
    with pytest.raises(ConfigError, match=r"search.row_multiple = 4 .*accelerators"):
        control.make_control(make_settings(row_multiple=4))


def test_rows_are_not_gathered_in_a_static_search():
    with pytest.raises(ConfigError, match=r"search.row_multiple = 2 .*search.static"):
        control.make_control(make_settings(static=True, row_multiple=2))
    with pytest.raises(ConfigError, match=r"search.static = True .*engine is mctx"):
        make_settings(static=True, engine="mctx")
