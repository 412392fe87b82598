"""Checks of models of games in turn: every line of tic-tac-toe, Pig's exact table."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.analysis.rules.matches import every_line, make_choose
from smz_jax.analysis.rules.pig_check import check_outcomes, judge_policy, shares_of_states
from smz_jax.config.settings import Config
from smz_jax.config.training import EvalConfig
from smz_jax.envs import Turn
from smz_jax.envs.pgx.board_players import make_tic_tac_toe_player
from smz_jax.envs.turns import pig_rules
from smz_jax.types import Networks


def test_exact_play_loses_no_line_and_a_poor_one_does():
    """The lowest free cell, by recursion over all replies with other code."""
    exact = make_tic_tac_toe_player(0)
    found = every_line(lambda frames, invalid: exact.act(Turn(frames, invalid, np.arange(0))))
    assert found["lost"] == 0 and found["won"] > 0 and found["drawn"] > 0
    lines = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]
    counts, known = {"won": 0, "drawn": 0, "lost": 0}, set()

    def follow(own, other):
        if (own, other) in known:
            return
        known.add((own, other))
        free = [x for x in range(9) if x not in own | other]
        own = own | {free[0]}
        if any(own >= set(line) for line in lines) or len(free) == 1:
            counts["won" if any(own >= set(line) for line in lines) else "drawn"] += 1
            return
        for cell in free[1:]:
            replied = other | {cell}
            if any(replied >= set(line) for line in lines) or len(free) == 2:
                counts["lost" if any(replied >= set(line) for line in lines) else "drawn"] += 1
            else:
                follow(own, replied)

    follow(frozenset(), frozenset())
    for cell in range(9):
        follow(frozenset(), frozenset([cell]))
    found = every_line(lambda frames, invalid: invalid.argmin(axis=1))
    assert found == {"positions": len(known), **counts} and counts["lost"] > 0


def test_a_choice_is_of_its_own_row_whatever_the_batch():
    config = Config(eval=EvalConfig(num_games=8, num_envs=8))

    def decide(params, key, count, observation, invalid, *greedy):
        assert observation.shape == (4, 1, 3) and greedy == (0, 0, 0)  # half of the games at once
        search = SimpleNamespace(action=observation[:, 0, 0] + invalid.argmin(axis=1))
        return SimpleNamespace(search=search)

    train = SimpleNamespace(params=None, target_params=None)
    spec = SimpleNamespace(players=2)
    parts = SimpleNamespace(config=config, spec=spec, decide=decide)
    choose = make_choose(parts, SimpleNamespace(train=train))
    frames, invalid = np.arange(33).reshape(11, 3), np.zeros((11, 2))
    invalid[4, 0] = 1
    expected = np.arange(0, 33, 3) + (np.arange(11) == 4)
    np.testing.assert_array_equal(choose(frames, invalid), expected)


@pytest.mark.parametrize("tells", [True, False])
def test_chances_of_the_dies_outcomes_by_hand(tells):
    """An encoder that tells the next turn's points, or nothing; a model that is right, or not."""
    rules, codes = pig_rules.make_rules(6), 8
    states = np.array([0, 5, 17, 40, 125])
    number = np.zeros((6, 6, 6), int)
    number[tuple(rules.points.T)] = np.arange(rules.num_states)

    def code_of(frames):  # the other one's turn, or one's own points of the turn; 7: it is won
        points = frames.reshape(*frames.shape[:-1], 3, 6).argmax(axis=-1)[..., 2]
        return jnp.where(frames.any(axis=-1), points, 7) * tells

    def state_of(frames):
        own, other, turn = jnp.moveaxis(frames.reshape(-1, 3, 6).argmax(axis=-1), -1, 0)
        return jnp.asarray(number)[own, other, turn]

    networks = Networks(**dict.fromkeys(Networks._fields))._replace(
        representation=lambda table, seen: seen[:, -1],
        afterstate_dynamics=lambda table, state, action: state + 0 * action[:, None],
        afterstate_prediction=lambda table, after: (
            table[state_of(after)], jnp.zeros((len(after), 1))
        ),
        value_of=lambda logits: logits[:, 0],
        encoder=lambda table, after, afterstate: jax.nn.one_hot(code_of(after), codes),
        encoder_input="embedding",
    )  # fmt: skip
    true = np.zeros((rules.num_states, codes))
    entropy, of_outcomes = [], []
    for state, (own, _, turn) in enumerate(rules.points.tolist()):
        ends = [0] + [7 if own + turn + face >= 6 else turn + face for face in range(2, 7)]
        for end in ends:
            true[state, end * tells] += 1 / 6
        if state in states:
            shares = np.array([x for x in true[state] if x])
            entropy.append(-(shares * np.log(shares)).sum())
            shares = np.unique(ends, return_counts=True)[1] / 6
            of_outcomes.append(-(shares * np.log(shares)).sum())
    right = jnp.asarray(np.log(true + 1e-30), jnp.float32)
    found = check_outcomes(networks, right, rules, states)
    assert found["die_distance"] == pytest.approx(0, abs=1e-5)
    assert found["die_told"] == pytest.approx(np.mean(entropy) / np.mean(of_outcomes))
    assert found["die_told"] == pytest.approx(float(tells), abs=1e-6)
    found = check_outcomes(networks, jnp.zeros_like(right), rules, states)
    distance = np.mean([np.maximum(true[x] - 1 / codes, 0).sum() for x in states])
    assert found["die_distance"] == pytest.approx(distance, rel=1e-5) and distance > 0.1


def test_policies_of_pig_against_the_table():
    rules, (_, action_value) = pig_rules.make_rules(10), pig_rules.optimal_values(10)
    best = np.eye(2)[action_value.argmax(axis=1)]
    found = judge_policy(10, best)
    assert found["regret"] == pytest.approx(0) == found["regret_reachable"]
    assert found["against_best"] == pytest.approx(0.5)
    held = judge_policy(10, np.eye(2)[np.zeros(rules.num_states, int)])
    assert held["against_best"] == pytest.approx(0, abs=1e-9)
    # Two who hold for ever meet the first state alone: what holding loses there.
    lost = (action_value[0].max() - action_value[0, 0]) / 2
    assert held["regret"] == pytest.approx(lost) and lost > 0.05
    coin = np.full((rules.num_states, 2), 0.5)
    shares, met = shares_of_states(rules, coin), np.zeros(rules.num_states + 1)
    draw = np.random.default_rng(0)
    state = np.zeros(4000, int)
    for _ in range(60):
        np.add.at(met, state, 1)
        alive = state < rules.num_states
        place = np.where(alive, state, 0), draw.integers(0, 2, 4000), draw.integers(0, 6, 4000)
        state = np.where(alive, rules.next_state[place], rules.num_states)
    met = met[:-1] / met[:-1].sum()
    assert shares.sum() == pytest.approx(1) and np.abs(shares - met).max() < 0.01
