"""One chance code in games of two players: MuZero's own search, and tic-tac-toe by its rules."""

import jax
import jax.numpy as jnp
import mctx
import numpy as np

from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config
from smz_jax.config.training import LearnerConfig
from smz_jax.envs.pgx.board_players import LINES, best_moves, has_line
from smz_jax.search.root_search import make_search
from smz_jax.types import AfterstatePrediction, DynamicsOutput, EnvSpec, Prediction, Space
from tests.search.test_engine import ENDED, differing_rows
from tests.support.search_runs import random_invalid, run_mctx, run_search
from tests.support.tabular import make_tabular_networks, random_tables


def test_of_two_players_it_is_muzeros_search():
    """Ends, turns that pass and turns that do not: the trees of `mctx.muzero_policy`."""
    turned = 0
    for seed in range(20):
        tables = random_tables(seed, actions=3, outcomes=1)
        options = {"seed": seed, "simulations": 40, "invalid": random_invalid(seed, 5, 3)}
        options["ended"] = np.array(ENDED)
        ours = run_search(tables, range(5), engine="batched", collapse_threshold=0.1, **options)
        theirs = run_mctx(tables, range(5), policy=mctx.muzero_policy, **options)
        assert not differing_rows(ours.tree, theirs.search_tree, 3).any()
        np.testing.assert_array_equal(ours.action, theirs.action)
        np.testing.assert_allclose(ours.action_weights, theirs.action_weights, atol=1e-6)
        assert not ours.tree.embeddings.is_chance.any()
        turned += (ours.tree.children_discounts < 0).sum()
    assert turned > 500


def tic_tac_toe():
    """The rules as a model that knows no values: `[B, 19]`, the mover's stones, the other's, over.

    An afterstate has the move made and the same sides; the one code turns the board around.
    """
    lines = np.eye(9, dtype=np.float32)[LINES].sum(axis=1)

    def afterstate_dynamics(params, state, action):
        return state.at[:, :9].add(jax.nn.one_hot(action, 9) * (1 - state[:, 18:]))

    def dynamics(params, after, code):
        own, other = after[:, :9], after[:, 9:18]
        won = (own @ lines.T == 3).any(axis=1, keepdims=True) & (after[:, 18:] == 0)
        over = won | (own + other).all(axis=1, keepdims=True) | (after[:, 18:] > 0)
        state = jnp.concatenate([other, own, over], axis=1)
        return DynamicsOutput(state, won.astype(jnp.float32))

    return make_tabular_networks(1, 9)._replace(
        prediction=lambda params, state: Prediction(
            -1e3 * (state[:, :9] + state[:, 9:18]), jnp.zeros((len(state), 1))
        ),
        afterstate_dynamics=afterstate_dynamics,
        afterstate_prediction=lambda params, after: AfterstatePrediction(
            jnp.zeros((len(after), 1)), jnp.zeros((len(after), 1))
        ),
        dynamics=dynamics,
        discount=lambda params, state: state[:, 18] - 1.0,
    )


def test_tic_tac_toe_by_its_rules_is_played_as_minimax_plays_it():
    draw, places = np.random.default_rng(0), []
    while len(places) < 64:
        cells = draw.permutation(9)[: draw.integers(3, 8)]
        sides = [int(sum(1 << int(x) for x in cells[y::2])) for y in (0, 1)]
        own, other = sides[:: 1 if len(cells) % 2 == 0 else -1]
        if has_line(own) or has_line(other):
            continue
        places.append((own, other, *best_moves(own, other)))
    stones = np.array([[side >> x & 1 for side in p[:2] for x in range(9)] for p in places])
    root = np.pad(stones, ((0, 0), (0, 1))).astype(np.float32)
    settings = SearchConfig(num_simulations=400, engine="batched", collapse_threshold=0.1)
    config = Config(search=settings, learner=LearnerConfig(gamma=1.0))
    spec = EnvSpec("tic_tac_toe", (19,), 1, np.dtype("float32"), Space(9, ("?",) * 9), 1, players=2)
    search = jax.jit(make_search(tic_tac_toe(), config, spec))
    invalid = (stones[:, :9] + stones[:, 9:]).astype(np.float32)
    zero = jnp.float32(0.0)
    found = jax.device_get(search({}, jax.random.key(0), root, invalid, zero, zero))
    for row, (_, _, best, moves) in enumerate(places):
        assert found.action[row] in moves
        assert abs(found.value[row] - best) < 0.5
    assert {p[2] for p in places} == {-1, 0, 1}
