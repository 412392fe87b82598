"""Rollouts: schedules by hand, rows against the rules of Catch, scores against a plain loop."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from smz_jax.acting.actor import Actor, GameScores, join_rows
from smz_jax.acting.agent import exploration, make_decide, scheduled
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, NetworkConfig
from smz_jax.config.training import RolloutConfig
from smz_jax.model.networks import make_networks
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import Decision, SearchOutput, Timestep
from tests.support.toy_env import CatchEnv

B, T, GAME = 3, 13, 10  # a game of Catch has 10 rows, so that rollouts cut games


def toy_config(**settings) -> Config:
    default = Config()
    network = NetworkConfig(
        family="mlp", embedding_size=8, hidden_size=8, codebook_size=4, value_support=5,
        reward_support=5,
    )  # fmt: skip
    return dataclasses.replace(
        default,
        env=dataclasses.replace(default.env, num_envs=B, frame_stack=1),
        network=network,
        search=SearchConfig(num_simulations=4),
        rollout=RolloutConfig(**{"length": T, **settings}),
        learner=dataclasses.replace(default.learner, updates_per_env_step=0.0),
    )


def random_params(networks):
    """Heads start at zero, which would hide mistakes: every weight gets noise."""
    params = jax.jit(networks.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    noisy = jax.tree.map(
        lambda x: x + rng.normal(0, 0.5, x.shape).astype(np.float32), params["params"]
    )
    return {**params, "params": noisy}


@functools.cache
def toy_networks():
    """With a policy so flat that noise and chance decide, else all games would be alike."""
    networks = make_networks(toy_config().network, CatchEnv(B, 0).spec)

    def softer(params, embedding):
        logits, value = networks.prediction(params, embedding)
        return logits * 0.05, value

    return networks._replace(prediction=softer), random_params(networks)


@functools.cache
def toy_decide(config):
    return make_decide(toy_networks()[0], config, CatchEnv(B, 0).spec, policy=config.rollout.policy)


def play(config, rollouts=2, seeds=(5,), key=None):
    """Rows of some rollouts joined along time, the games, and the decisions; a pool per seed."""
    _, params = toy_networks()
    decisions = []
    actor = Actor(
        [CatchEnv(B, seed) for seed in seeds],
        config,
        toy_decide(config),
        jax.random.key(1) if key is None else key,
        PhaseTimers(),
        lambda *pools: decisions.extend(pools),
    )
    several, games = [], []
    for _ in range(rollouts):
        played = actor.next(params)
        several.append(played.rows)
        games += played.games
    assert actor.count == rollouts * config.rollout.length
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *several), games, decisions


@pytest.fixture(scope="module")
def searched():
    return play(toy_config())


@pytest.mark.parametrize(
    ("start", "end", "progress", "kind", "expected"),
    [
        (1.0, 0.25, 0.0, "linear", 1.0),
        (1.0, 0.25, 0.4, "linear", 0.7),
        (1.0, 0.25, 3.0, "linear", 0.25),
        (1.0, 0.25, -1.0, "linear", 1.0),
        (1.0, 0.25, 0.5, "exponential", 0.5),  # 0.25 ** (1/2)
        (0.8, 0.1, 1 / 3, "exponential", 0.4),  # a factor 1/8 in three halvings
        (1.0, 0.0, 1.0, "exponential", 0.001),
        (0.0, 0.5, 0.5, "exponential", 0.25),
    ],
)
def test_schedule_by_hand(start, end, progress, kind, expected):
    assert scheduled(start, end, progress, kind) == pytest.approx(expected)


def test_exploration_runs_over_its_share_of_the_run():
    settings = RolloutConfig(
        temperature=1.0, temperature_end=0.2, epsilon=0.5, epsilon_end=0.1, schedule_fraction=0.5
    )
    assert exploration(settings, 0.0) == pytest.approx((1.0, 0.5))
    assert exploration(settings, 0.25) == pytest.approx((0.6, 0.3))
    assert exploration(settings, 0.5) == pytest.approx((0.2, 0.1))
    assert exploration(settings, 1.0) == pytest.approx((0.2, 0.1))


def test_rows_follow_the_rules_of_catch(searched):
    """Row 0 of a game is first, row 8's action ends it, row 9 is its final observation."""
    rows, _, _ = searched
    place = np.broadcast_to(np.arange(2 * T) % GAME, (B, 2 * T))
    assert rows.frame.shape == (B, 2 * T, 10, 5) and rows.frame.dtype == np.uint8
    np.testing.assert_array_equal(rows.is_first, place == 0)
    np.testing.assert_array_equal(rows.discount, np.where(place == 8, 0.0, 1.0))
    np.testing.assert_array_equal(rows.reward != 0, place == 8)
    for lane, t in np.argwhere(place == 8)[np.argwhere(place == 8)[:, 1] + 1 < 2 * T]:
        bottom = rows.frame[lane, t + 1, -1]  # ball and paddle meet in one pixel, or in two
        assert rows.reward[lane, t] == (1.0 if (bottom == 255).sum() == 1 else -1.0)


def test_the_action_of_a_row_leads_to_the_next_row(searched):
    rows, _, _ = searched
    moves = 0
    for lane in range(B):
        for t in range(2 * T - 1):
            if t % GAME >= 8:  # on the bottom row the ball hides the paddle; then comes a reset
                continue
            here, there = (int(rows.frame[lane, x, -1].argmax()) for x in (t, t + 1))
            action = int(rows.action[lane, t])
            assert there == min(max(here + action - 1, 0), 4)
            moves += there != here
    assert moves > 5


def test_what_the_search_said_stands_in_its_own_row(searched):
    rows, _, decisions = searched
    assert len(decisions) == 2 * T
    for t, decision in enumerate(decisions):
        np.testing.assert_array_equal(rows.action[:, t], decision.search.action)
        np.testing.assert_array_equal(rows.action_weights[:, t], decision.search.action_weights)
        np.testing.assert_array_equal(rows.search_value[:, t], decision.search.value)
        np.testing.assert_array_equal(rows.search_spread[:, t], decision.search.spread)
        np.testing.assert_array_equal(rows.transition_entropy[:, t], decision.transition_entropy)
    np.testing.assert_allclose(rows.action_weights.sum(-1), 1.0, rtol=1e-6)
    assert ((rows.transition_entropy >= 0) & (rows.transition_entropy <= 1)).all()
    assert rows.transition_entropy.std() > 0.01 and rows.search_value.std() > 0.01


def test_the_entropy_is_that_of_the_played_action(searched):
    rows, _, decisions = searched
    networks, params = toy_networks()
    after = networks.afterstate_dynamics(params, decisions[3].embedding, rows.action[:, 3])
    logits, _ = networks.afterstate_prediction(params, after)
    prob = np.exp(np.asarray(logits, np.float64))
    prob /= prob.sum(-1, keepdims=True)
    expected = -(prob * np.log(prob)).sum(-1) / np.log(4)
    np.testing.assert_allclose(rows.transition_entropy[:, 3], expected, rtol=1e-4)


def test_games_that_ended(searched):
    rows, games, _ = searched
    ended = rows.reward[:, 8::GAME].T.reshape(-1)  # by time, then by lane
    assert games == [(float(score), 9) for score in ended]


def test_game_scores_against_a_plain_loop():
    rng = np.random.default_rng(0)
    lanes, scores = 4, GameScores(4)
    running = [[0.0, 0] for _ in range(lanes)]
    fresh = [True] * lanes
    found, expected = [], []
    for _ in range(200):
        over = (rng.random(lanes) < 0.2) & ~np.array(fresh)
        cut = over & (rng.random(lanes) < 0.5)
        reward = rng.integers(0, 8, lanes).astype(np.float32)
        lost_life = ~over & (rng.random(lanes) < 0.2)  # terminated, but the game goes on
        step = Timestep(
            observation=np.zeros((lanes, 1, 2), np.uint8),
            reward=np.sign(reward),
            raw_reward=reward,
            terminated=(over & ~cut) | lost_life,
            truncated=cut,
            game_over=over,
            is_first=np.array(fresh),
            invalid_actions=np.zeros((lanes, 2), np.float32),
            player=np.zeros(lanes, np.int32),
        )
        found += scores.add(step)
        for lane in range(lanes):
            if fresh[lane]:
                running[lane] = [0.0, 0]
            else:
                running[lane][0] += float(reward[lane])
                running[lane][1] += 1
            if over[lane]:
                expected.append((lane, *running[lane], bool(cut[lane])))
            fresh[lane] = bool(over[lane])
    assert len(expected) > 50 and found == expected


def test_the_discount_of_a_row_says_whose_turn_follows():
    """In lane 0 player 0 moves, 1 moves twice, 0 ends the game; in lane 1 both move twice."""
    players = np.array([[0, 1, 1, 0, 1, 0], [0, 0, 1, 1, 0, 0]], np.int32)  # at each of 6 steps
    over = np.zeros((2, 6), bool)
    over[0, 4] = True
    blank = Timestep(*(np.zeros((2, 1), np.float32),) * 9)
    steps = [
        blank._replace(terminated=over[:, t], player=players[:, t], is_first=over[:, t - 1])
        for t in range(6)
    ]
    search = SearchOutput(*(np.zeros((2, 5)),) * 6)._replace(tree=None)
    rows = join_rows([steps], Decision(search, None, np.zeros((2, 5))), 0)
    # Lane 0: row 3 ends the game; row 4 is its final observation, whose action is ignored.
    np.testing.assert_array_equal(rows.discount[0, :4], [-1, 1, -1, 0])
    np.testing.assert_array_equal(rows.discount[1], [1, -1, 1, -1, 1])


def test_rows_of_three_players_keep_the_rewards_of_all():
    blank = Timestep(*(np.zeros((1, 1), np.float32),) * 9)
    blank = blank._replace(terminated=np.zeros(1, bool), is_first=np.zeros(1, bool))
    gains = np.arange(12, dtype=np.float32).reshape(4, 1, 3)
    steps = [
        blank._replace(
            player=np.array([mover], np.int32), raw_reward=gains[t], reward=gains[t, :, 0]
        )
        for t, mover in enumerate((0, 2, 2, 1))
    ]
    search = SearchOutput(*(np.zeros((1, 3)),) * 6)._replace(tree=None)
    search = search._replace(values=np.full((1, 3, 3), 7.0))
    rows = join_rows([steps], Decision(search, None, np.zeros((1, 3))), 0)
    np.testing.assert_array_equal(rows.player, [[0, 2, 2]])
    np.testing.assert_array_equal(rows.rewards[0], gains[1:, 0])
    np.testing.assert_array_equal(rows.discount, [[-1, 1, -1]])
    np.testing.assert_array_equal(rows.values, search.values)


def test_plain_policy_plays_the_prior():
    """No tree; greedy at temperature 0 without epsilon; uniform at epsilon 1."""
    greedy = toy_config(
        policy="prior", temperature=0.0, temperature_end=0.0, epsilon=0.0, epsilon_end=0.0
    )
    rows, games, decisions = play(greedy)
    assert all(decision.search.tree is None for decision in decisions) and len(games) == 2 * B
    networks, params = toy_networks()
    for step in (0, 7):
        logits, _ = networks.prediction(params, decisions[step].embedding)
        np.testing.assert_array_equal(rows.action[:, step], logits.argmax(-1))
    random = toy_config(policy="prior", epsilon=1.0, epsilon_end=1.0)
    rows, _, _ = play(random, rollouts=8)
    share = np.bincount(rows.action.reshape(-1), minlength=3) / rows.action.size
    assert np.abs(share - 1 / 3).max() < 4 * np.sqrt(2 / 9 / rows.action.size)


def test_the_step_count_picks_the_randomness():
    """A resumed run, whose count goes on, draws other actions than its start did."""
    networks, params = toy_networks()

    def first_actions(count):
        config = toy_config(policy="prior", epsilon=1.0)  # compiles faster than a search
        key = jax.random.key(1)
        actor = Actor(
            [CatchEnv(B, 5)],
            config,
            make_decide(networks, config, CatchEnv(B, 5).spec, policy="prior"),
            key,
            PhaseTimers(),
            watch=lambda decision: None,
        )
        actor.count = count
        return np.asarray(actor.next(params).rows.action)

    np.testing.assert_array_equal(first_actions(0), first_actions(0))
    assert (first_actions(0) != first_actions(26)).any()


def test_one_pool_plays_as_the_plain_loop_does(searched):
    """The loop as it was before there were pools: search, step, search, step; bit for bit."""
    rows, games, _ = searched
    config = toy_config()
    env, scores, expected, ended = CatchEnv(B, 5), GameScores(B), [], []
    _, params = toy_networks()
    now = env.reset()
    for count in range(2 * T):
        if count % T == 0:
            progress = count * B / config.total_env_steps
            temperature, epsilon = exploration(config.rollout, progress)
        decision = toy_decide(config)(
            params,
            jax.random.key(1),
            np.int32(count),
            now.observation,
            now.invalid_actions,
            np.float32(temperature),
            np.float32(epsilon),
            np.float32(1.0),
        )
        after = env.step(np.asarray(decision.search.action))
        ended += [game[1:3] for game in scores.add(after)]
        discount = 1.0 - after.terminated
        expected.append((now.observation[:, -1], decision.search, after.reward, discount, now))
        now = after
    frame, search, reward, discount, seen = zip(*expected, strict=True)
    along = functools.partial(np.stack, axis=1)
    np.testing.assert_array_equal(rows.frame, along(frame))
    for name in ("action", "action_weights"):
        np.testing.assert_array_equal(
            getattr(rows, name), along([getattr(x, name) for x in search])
        )
    np.testing.assert_array_equal(rows.search_value, along([x.value for x in search]))
    np.testing.assert_array_equal(rows.reward, along(reward))
    np.testing.assert_array_equal(rows.discount, along(discount))
    np.testing.assert_array_equal(rows.is_first, along([x.is_first for x in seen]))
    assert games == ended


@pytest.mark.parametrize("policy", ["search", "prior"])
def test_numbers_that_are_not_finite_are_counted(policy):
    networks, params = toy_networks()
    config = toy_config(policy=policy)
    params = jax.tree.map(lambda x: np.nan * x, params)
    spec = CatchEnv(B, 0).spec
    decide = make_decide(networks, config, spec, policy=policy)
    actor = Actor(
        [CatchEnv(B, 1)], config, decide, jax.random.key(0), PhaseTimers(), lambda *pools: None
    )
    rows, _, metrics, *_ = actor.next(params)
    counts = jax.device_get(metrics)
    roots = B * config.rollout.length
    if policy == "prior":  # a root's policy and value, each action's value, the drawn one's chances
        assert counts["search/faults"] == (2 + 3 + 1) * roots
    assert counts["search/faults"] >= 3 * roots
    assert counts["search/all_invalid"] == 0
    of_search = (rows.action_weights, rows.search_value, rows.search_spread)
    for field in (*of_search, rows.transition_entropy):
        assert np.isfinite(field).all()
