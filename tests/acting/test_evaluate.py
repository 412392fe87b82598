"""Evaluation: whole games, equally many on each lane; statistics by hand."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smz_jax.acting import evaluate as module
from smz_jax.acting.agent import Agent, make_constant_policy, make_decide, make_random_policy
from smz_jax.acting.evaluate import evaluate, evaluate_baselines, evaluation_row, summarise_games
from smz_jax.analysis.rules import matches
from smz_jax.config.check import ConfigError
from smz_jax.config.search import SearchConfig
from smz_jax.config.seeds import FINAL_SEED, INTERIM_SEED
from smz_jax.config.settings import Config, EnvConfig, NetworkConfig
from smz_jax.config.training import EvalConfig
from smz_jax.envs import GameFault, OpponentFault, Turn, opponents_of
from smz_jax.envs.opponents import Contender
from smz_jax.envs.turns import pig_rules
from smz_jax.model.networks import make_networks
from smz_jax.run.ending import format_summary
from smz_jax.run.evaluate_and_save import FinalScores, evaluate_final, evaluate_interim
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import Decision, EnvSpec, SearchOutput, Space, Timestep
from tests.acting.test_rollout import random_params
from tests.support.toy_env import CatchEnv

SPEC = EnvSpec("Script", (2,), 1, np.dtype(np.uint8), Space(3, ("A", "B", "C")), 1)


class ScriptEnv:
    """Lane i plays games `(score, length, cut)` of its own script in turn, whatever is done.

    The score comes with the last step; `score=None` pays each action's own number instead.
    """

    def __init__(self, scripts):
        self.num_envs, self.spec, self.scripts = len(scripts), SPEC, scripts
        self.closed = False

    def _timestep(self, reward, over, cut, first):
        reward = np.array(reward, np.float32)
        return Timestep(
            observation=np.zeros((self.num_envs, 1, 2), np.uint8),
            reward=np.sign(reward),
            raw_reward=reward,
            terminated=np.array(over) & ~np.array(cut),
            truncated=np.array(cut),
            game_over=np.array(over),
            is_first=np.array(first),
            invalid_actions=np.zeros((self.num_envs, 3), np.float32),
            player=np.zeros(self.num_envs, np.int32),
        )

    def reset(self):
        self.game = [0] * self.num_envs
        self.step_in_game = [0] * self.num_envs
        quiet = [False] * self.num_envs
        return self._timestep([0.0] * self.num_envs, quiet, quiet, [True] * self.num_envs)

    def step(self, actions):
        rows = []
        for lane, script in enumerate(self.scripts):
            score, length, cut = script[self.game[lane] % len(script)]
            if self.step_in_game[lane] == length:  # the step after the end only resets
                self.game[lane] += 1
                self.step_in_game[lane] = 0
                rows.append((0.0, False, False, True))
                continue
            self.step_in_game[lane] += 1
            over = self.step_in_game[lane] == length
            paid = float(actions[lane]) if score is None else score * over
            rows.append((paid, over, over and cut, False))
        return self._timestep(*zip(*rows, strict=True))

    def close(self):
        self.closed = True


@pytest.fixture
def scripted(monkeypatch):
    """Puts a scripted environment in place of Atari; gives what it was asked for."""
    asked = {}

    def use(scripts):
        def make_env(settings, *, seed, num_envs, training):
            asked.update(settings=settings, seed=seed, num_envs=num_envs, training=training)
            asked["env"] = env = ScriptEnv(scripts[:num_envs])
            return env

        monkeypatch.setattr(module, "make_env", make_env)
        return asked

    return use


def eval_config(**settings) -> Config:
    return dataclasses.replace(Config(), eval=EvalConfig(**settings))


def test_each_lane_plays_equally_many_games_and_short_ones_are_not_preferred(scripted):
    short = [(1.0, 1, False), (2.0, 1, False), (3.0, 1, False), (100.0, 1, False)]
    scripted([short, [(10.0, 7, True)]])
    config = eval_config(num_games=5, num_envs=2, max_steps=7)
    result = evaluate(make_constant_policy(0), config, seed=1)
    assert result["games"] == 6  # 5 on 2 lanes are 3 on each; lane 0's fourth and later are left
    assert result["scores"] == [1, 2, 3, 10, 10, 10]
    assert result["mean"] == 6.0 and result["length_mean"] == 4.0 and result["cut_share"] == 0.5
    assert result["iqm"] == pytest.approx((2 + 3 + 10 + 10) / 4)  # int(6 / 4) = 1 off each end


def test_a_time_limit_of_the_environments_own_is_no_cut(scripted):
    scripted([[(10.0, 7, True)]])
    config = eval_config(num_games=1, num_envs=1, max_steps=8)
    assert evaluate(make_constant_policy(0), config, seed=1)["cut_share"] == 0.0


def test_more_lanes_than_games_are_not_opened(scripted):
    asked = scripted([[(1.0, 2, False)]] * 8)
    result = evaluate(make_constant_policy(0), eval_config(num_envs=8), seed=1, num_games=3)
    assert result["games"] == 3 and asked["num_envs"] == 3


def test_the_games_are_those_of_an_evaluation(scripted):
    asked = scripted([[(1.0, 2, False)]])
    config = eval_config(num_games=1, num_envs=1, noop_max=17, max_steps=123)
    evaluate(make_constant_policy(0), config, seed=99)
    settings = asked["settings"]
    assert (settings.noop_max, settings.max_episode_steps, settings.sticky) == (17, 123, 0.0)
    assert (asked["seed"], asked["training"], asked["env"].closed) == (99, False, True)
    evaluate(make_constant_policy(0), config, seed=99, sticky_prob=0.25)
    assert asked["settings"].sticky == 0.25
    sticky = dataclasses.replace(config, env=dataclasses.replace(config.env, mode="stochastic"))
    evaluate(make_constant_policy(0), sticky, seed=99)
    assert asked["settings"].sticky == 0.25


def test_an_evaluation_reports_the_faults_of_its_own_searches(scripted):
    """Step t of the searches has t faults on lane 0, one on lane 1, and no valid action there."""
    scripted([[(1.0, 2, False)]] * 2)
    asked = []

    def decide(params, key, count, observation, invalid, temperature, epsilon, noise):
        asked.append((params, int(count), float(temperature), float(epsilon), float(noise)))
        search = SearchOutput(
            action=jnp.zeros(2, jnp.int32),
            action_weights=jnp.ones((2, 3)),
            value=jnp.zeros(2),
            tree=None,
            faults=jnp.asarray([count, 1]),
            all_invalid=jnp.asarray([False, True]),
        )
        return Decision(search, jnp.zeros((2, 4)), jnp.zeros(2))

    agent = Agent(decide, "params", 3)
    config = eval_config(num_games=4, num_envs=2)
    # Two games of two steps on each lane, and the step between them that only resets: 0 to 4.
    result = evaluate(agent, config, seed=1)
    assert (result["search_faults"], result["search_all_invalid"]) == (0 + 1 + 2 + 3 + 4 + 5, 5)
    assert asked == [("params", count, 0.0, 0.0, 0.0) for count in range(5)]
    again = evaluate(agent, config, seed=1)
    assert again == result  # of this evaluation alone
    row = evaluation_row(result)
    assert (row["eval/search_faults"], row["eval/search_all_invalid"]) == (15, 5)
    assert "eval/search_faults" not in evaluation_row(summarise_games([(1.0, 2, False)]))


@pytest.mark.parametrize("noise", [0.0, 0.75])
def test_noise_reaches_the_search_in_every_evaluation_but_the_greedy_one(scripted, noise):
    """A seed of the run's own where nothing is drawn; else other noise at the end than before."""
    scripted([[(1.0, 2, False)]] * 40)
    seen = []

    def decide(params, key, count, observation, invalid, temperature, epsilon, noise):
        lanes = len(observation)
        seen.append((jax.random.key_data(key).tolist(), lanes, float(temperature), float(noise)))
        search = SearchOutput(
            action=np.zeros(lanes, np.int32), action_weights=None, value=None, tree=None,
            faults=np.zeros(lanes, np.int32), all_invalid=np.zeros(lanes, np.bool_),
        )  # fmt: skip
        return Decision(search, None, None)  # type: ignore[arg-type]

    config = eval_config(num_games=40, num_envs=40, interim_games=3, noise=noise)
    config = dataclasses.replace(
        config, seed=3, eval=dataclasses.replace(config.eval, sticky_column=True)
    )
    parts: Any = SimpleNamespace(
        config=config, agent=functools.partial(Agent, decide), timers=PhaseTimers(),
        steps=lambda iterations: 8 * iterations,
    )  # fmt: skip
    rows = []
    session: Any = SimpleNamespace(
        parts=parts, writer=SimpleNamespace(write=rows.append), stopped=lambda: False
    )
    counters = SimpleNamespace(best=9.0, iteration=5)
    state: Any = SimpleNamespace(train=SimpleNamespace(params="params"), counters=counters)

    def played(evaluate_now):
        seen.clear()
        return evaluate_now(session, state), list(dict.fromkeys(map(repr, seen)))

    def of(seed, lanes, scale):
        return repr((jax.random.key_data(jax.random.key(seed)).tolist(), lanes, 0.0, scale))

    first, last = (3 + INTERIM_SEED, 3 + FINAL_SEED) if noise else (3, 3)
    (_, row), used = played(evaluate_interim)
    assert used == [of(first, 3, noise)] and row["eval/distinct"] == 1
    scores, used = played(evaluate_final)
    assert used == [of(last, 40, noise), *([of(3, 32, 0.0)] if noise else [])]
    assert [x and x["games"] for x in scores[:3]] == [40, 32 if noise else None, 40]
    assert scores.opponent_fault is None
    assert rows[0] == {
        "env_steps": 40, "cpu_seconds": rows[0]["cpu_seconds"], **evaluation_row(scores.evaluation)
    }  # fmt: skip


def test_a_stopped_evaluation_gives_nothing_and_closes(scripted):
    asked = scripted([[(1.0, 5, False)]])
    steps = iter(range(100))
    config = eval_config(num_games=1, num_envs=1)
    stopped = evaluate(
        make_constant_policy(0), config, seed=1, should_stop=lambda: next(steps) == 3
    )
    assert stopped is None and asked["env"].closed


def test_games_that_fail_are_played_again_from_their_beginning(scripted, monkeypatch):
    asked = scripted([[(7.0, 5, False)]])
    config = eval_config(num_games=1, num_envs=1)
    step, failures = ScriptEnv.step, iter([4, 2, 1] + [1] * 9)

    def dying(env, actions):
        env.left = getattr(env, "left", next(failures, 100)) - 1
        if env.left == 0:
            raise OSError("the emulator died\nat once")
        return step(env, actions)

    monkeypatch.setattr(ScriptEnv, "step", dying)
    with pytest.raises(GameFault, match=r"evaluation failed 4 times: the emulator died$"):
        evaluate(make_constant_policy(0), config, seed=1)
    assert asked["env"].closed
    failures = iter([4, 2, 1])
    assert evaluate(make_constant_policy(0), config, seed=1)["mean"] == 7.0


def test_statistics_by_hand():
    games = [(float(s), n, n == 5) for n, s in enumerate([100, 0, 2, 12, 4, 6, 8, 10], start=1)]
    result = summarise_games(games)
    assert (result["mean"], result["median"], result["iqm"]) == (17.75, 7.0, (4 + 6 + 8 + 10) / 4)
    assert (result["min"], result["max"], result["games"]) == (0.0, 100.0, 8)
    assert (result["length_mean"], result["cut_share"]) == (4.5, 1 / 8)
    assert result["distinct"] == 8


def test_games_that_repeat_each_other_are_counted_once():
    """Another length or another score is another game; whether it was cut off is not asked."""
    games = [(5.0, 90, False)] * 14 + [(5.0, 91, False)] * 8 + [(11.0, 90, False), (11.0, 90, True)]
    result = summarise_games(games)
    assert result["distinct"] == 3
    numbers = ("env_steps", "env_frames", "learner_steps", "seconds_total", "seed")
    rates = ("total", "play", "tree", "candidates", "certain_rate_play", "certain_rate_tree")
    rates = (*rates, "transitions")
    summary = {
        **dict.fromkeys(numbers, 0),
        **dict.fromkeys(("baselines", "model_check", *FinalScores._fields)),
        "experiment": "breakout",
        "seconds": {},
        "macros": dict.fromkeys(rates, 0.0),
    }
    both = (games, "24 games, 3 different, 4% cut"), (games[13:15], "2 games, 2 different, 0%")
    for played, text in both:
        assert text in format_summary({**summary, "evaluation": summarise_games(played)}, Config())
    columns = {**summary, **dict.fromkeys(FinalScores._fields[:3], result)}
    lines = format_summary(columns, eval_config(noise=0.5)).splitlines()[1:4]
    assert [line.split(": ")[0] for line in lines] == [
        "score, noise 0.5", "score, greedy", "score, noise 0.5, sticky actions 0.25"
    ]  # fmt: skip
    assert evaluation_row(result)["eval/distinct"] == 3


def test_intervals_of_copies_against_a_plain_cluster_bootstrap():
    """Resamples the distinct games in the order of their first game, each with its copies."""
    games = [(float(s), n, False) for s, n in [(3, 9), (11, 8), (0, 5), (3, 7), (6, 8), (2, 4)]]
    copies = [4, 1, 2, 2, 1, 3]
    played = games + [game for game, n in zip(games, copies, strict=True) for _ in range(n - 1)]
    result = summarise_games(played, 5, copies=True)
    draws = np.random.default_rng(5).integers(0, 6, (2000, 6))
    found = {"mean": [], "iqm": []}
    for row in draws:
        scores = sorted(games[i][0] for i in row for _ in range(copies[i]))
        middle = scores[len(scores) // 4 : len(scores) - len(scores) // 4]
        found["mean"].append(sum(scores) / len(scores))
        found["iqm"].append(sum(middle) / len(middle))
    for name, values in found.items():
        values.sort()
        for share, end in ((0.025, "low"), (0.975, "high")):
            below, part = divmod(share * 1999, 1)
            first, second = values[int(below) : int(below) + 2]
            assert result[f"{name}_{end}"] == pytest.approx(first + part * (second - first))
    assert (result["games"], result["distinct"]) == (13, 6)
    assert result["mean"] == sum(game[0] for game in played) / 13  # of all games
    assert result["mean_high"] - result["mean_low"] > 1.3 * (
        (plain := summarise_games(played, 5))["mean_high"] - plain["mean_low"]
    )
    rng = np.random.default_rng(1)
    different = [(x, n, False) for n, x in enumerate(rng.gamma(2.0, 3.0, 40).tolist())]
    assert summarise_games(different, 5, copies=True) == summarise_games(different, 5)
    one = summarise_games([(7.0, 3, False)] * 5, copies=True)
    assert one["distinct"] == 1 and one["mean_low"] == one["mean_high"] == one["iqm_high"] == 7.0


def test_equal_games_are_copies_only_where_nothing_is_drawn(scripted):
    """Neither sticky actions nor another suite, nor a policy that draws its actions."""
    lanes = [[(5.0, 3, False)]] * 9 + [[(0.0, 2, False)]]
    scripted(lanes)
    config = eval_config(num_games=10, num_envs=10)
    games = [script[0] for script in lanes]
    copies, plain = (summarise_games(games, 1, copies=x) for x in (True, False))
    assert (copies["mean_low"], copies["mean_high"]) == (0.0, 5.0) and plain["mean_low"] > 2.0
    cartpole = EnvConfig(suite="gym", id="CartPole-v1")
    for settings, options, expected in (
        (config, {}, copies),
        (config, {"draws_actions": True}, plain),
        (config, {"sticky_prob": 0.25}, plain),
        (dataclasses.replace(config, env=cartpole), {}, plain),
    ):
        assert evaluate(make_constant_policy(0), settings, seed=1, **options) == expected
    assert evaluate_baselines(config, SPEC, seed=1) == {
        "random": plain, "constant": dict.fromkeys("ABC", copies)
    }  # fmt: skip


@pytest.mark.parametrize("atari", [True, False])
def test_a_constant_action_that_repeats_itself_plays_one_game_a_lane(scripted, atari):
    scripted([[(1.0, 2, False)]] * 2)
    config = eval_config(num_games=6, num_envs=2)
    if not atari:
        config = dataclasses.replace(config, env=EnvConfig(suite="gym", id="CartPole-v1"))
    found = evaluate_baselines(config, SPEC, seed=1)
    assert found["random"]["games"] == 6
    assert {x["games"] for x in found["constant"].values()} == {2 if atari else 6}


def test_intervals_against_a_plain_bootstrap():
    scores = np.random.default_rng(1).gamma(2.0, 3.0, 40)
    result = summarise_games([(s, 1, False) for s in scores])
    rng = np.random.default_rng(2)
    resampled = np.sort(scores[rng.integers(0, 40, (20_000, 40))], axis=1)
    for name, values in (("mean", resampled.mean(1)), ("iqm", resampled[:, 10:30].mean(1))):
        low, high = np.quantile(values, [0.025, 0.975])
        slack = 0.1 * (high - low)
        assert result[f"{name}_low"] == pytest.approx(low, abs=slack)
        assert result[f"{name}_high"] == pytest.approx(high, abs=slack)
    assert summarise_games([(s, 1, False) for s in scores]) == result  # the seed is fixed


@pytest.mark.parametrize("scores", [[3.0], [3.0, 3.0, 3.0]])
def test_without_spread_the_interval_is_the_mean(scores):
    result = summarise_games([(s, 1, False) for s in scores])
    names = ("mean", "mean_low", "mean_high", "iqm", "iqm_low", "iqm_high")
    assert {result[name] for name in names} == {3.0}


def test_random_policy_is_uniform_over_the_valid_actions():
    env = ScriptEnv([[(1.0, 5, False)]] * 6000)
    step = env.reset()
    step.invalid_actions[:3000, 1] = 1.0
    actions = make_random_policy(3)(step, 0)
    assert actions.dtype == np.int32
    half = np.bincount(actions[:3000], minlength=3) / 3000
    third = np.bincount(actions[3000:], minlength=3) / 3000
    assert half[1] == 0 and abs(half[0] - 0.5) < 0.04
    assert np.abs(third - 1 / 3).max() < 0.04
    np.testing.assert_array_equal(actions, make_random_policy(3)(step, 0))
    assert (actions != make_random_policy(4)(step, 0)).any()


def test_baselines_name_every_constant_action(scripted):
    scripted([[(None, 4, False)]] * 2)  # each step pays its action's number
    config = eval_config(num_games=2, num_envs=2)
    result = evaluate_baselines(config, SPEC, seed=1)
    means = {name: part["mean"] for name, part in result["constant"].items()}
    assert means == {"A": 0.0, "B": 4.0, "C": 8.0}
    assert 0 <= result["random"]["mean"] <= 8
    stopped = evaluate_baselines(config, SPEC, seed=1, should_stop=lambda: True)
    assert stopped == {"random": None, "constant": {}}


def test_the_agent_is_greedy_and_repeatable(monkeypatch):
    """Whole games of Catch last nine steps and score +1 or -1; no noise: another seed, same act."""
    network = NetworkConfig(
        family="mlp", embedding_size=8, hidden_size=8, codebook_size=4, value_support=5,
        reward_support=5,
    )  # fmt: skip
    config = dataclasses.replace(
        eval_config(num_games=4, num_envs=4),
        network=network,
        search=SearchConfig(num_simulations=4),
    )
    spec = CatchEnv(4, 0).spec
    networks = make_networks(network, spec)
    params = random_params(networks)
    decide = make_decide(networks, config, spec, policy="search")
    agent = functools.partial(Agent, decide)
    step = CatchEnv(4, 0).reset()
    np.testing.assert_array_equal(agent(params, 1)(step, 0), agent(params, 2)(step, 50))
    even = jax.tree.map(jnp.zeros_like, params)  # a network that prefers nothing
    exploring = Agent(decide, even, 1, temperature=9.0, noise=1.0)
    drawn = [exploring(step, count).tolist() for count in range(30)]
    assert len({tuple(actions) for actions in drawn}) > 1
    asked = jax.random.key(1), np.int32(3), step.observation, step.invalid_actions
    same = decide(even, *asked, np.float32(9), np.float32(0), np.float32(1))
    assert same.search.action.tolist() == drawn[3]
    monkeypatch.setattr(
        module, "make_env", lambda settings, *, seed, num_envs, training: CatchEnv(num_envs, seed)
    )
    result = evaluate(agent(params, 1), config, seed=7)
    assert result["length_mean"] == 9.0 and set(result["scores"]) <= {1.0, -1.0}
    assert evaluate(agent(params, 1), config, seed=7) == result


def pig_matches(opponent, num_games=64):
    """Settings of matches of Pig, and the best player as the agent."""
    env = EnvConfig(suite="turns", id="Pig", frame_stack=1)
    settings = EvalConfig(num_games=num_games, num_envs=512, max_steps=2000, opponent=opponent)
    config = Config(env=env, eval=settings)
    best = opponents_of(env)["exact"].make(0)

    def act(timestep, count):
        lanes = np.arange(len(timestep.player))
        return best.act(Turn(timestep.observation[:, -1], timestep.invalid_actions, lanes))

    return config, act


def test_both_sides_of_a_match_are_played_with_the_same_dice():
    """The best player against itself: a game lost from one side is won from the other."""
    config, act = pig_matches("exact")
    result = evaluate(act, config, seed=3)
    assert result["games"] == 64 and result["mean"] == 0
    scores = np.array(result["scores"])
    np.testing.assert_array_equal(scores[:32], -scores[32:])  # as player 0, then as player 1
    assert set(scores) == {-1, 1}


def test_a_match_is_scored_from_the_agents_side():
    """The best player against a random one, from both sides, by the exact table."""
    rules, (_, action_value) = pig_rules.make_rules(20), pig_rules.optimal_values(20)
    coin, best = np.full((4200, 2), 0.5), np.eye(2)[action_value.argmax(axis=1)]
    config, act = pig_matches("random", 1000)
    expected = pig_rules.expected_results(rules, best, coin)
    result = evaluate(act, config, seed=3)
    halves = np.reshape(result["scores"], (2, 500)).mean(axis=1)
    np.testing.assert_allclose(halves, expected, atol=0.1)
    # And the other way around: the random policy as the agent.
    config, _ = pig_matches("exact", 1000)
    result = evaluate(make_random_policy(0), config, seed=3)
    halves = np.reshape(result["scores"], (2, 500)).mean(axis=1)
    np.testing.assert_allclose(halves, pig_rules.expected_results(rules, coin, best), atol=0.1)
    assert expected[0] > expected[1] + 0.05 > 0.3
    config, _ = pig_matches("alpha_beta")
    with pytest.raises(ConfigError, match="one of random, exact in Pig"):
        evaluate(act, config, seed=3)


class Quitter:
    """An opponent that cannot play on; counts."""

    asked = closed = 0

    def act(self, turn):
        self.asked += 1
        assert len(turn.frames) == len(turn.invalid) == len(turn.lanes) > 0
        raise OpponentFault("it died")

    def close(self):
        self.closed += 1


def test_an_opponent_that_fails_ends_the_match_and_not_the_run(monkeypatch, capsys):
    """It is not asked for the same games again, it is closed, and the rest of a run goes on."""
    config, act = pig_matches("exact")
    quitter = Quitter()
    for where in (module, matches):
        monkeypatch.setattr(
            where, "opponents_of", lambda env: {"exact": Contender(lambda seed: quitter)}
        )
    with pytest.raises(OpponentFault, match="it died"):
        evaluate(act, config, seed=3)
    assert quitter.asked == quitter.closed == 1
    config, _ = pig_matches("random")
    state = SimpleNamespace(train=SimpleNamespace(params=None))
    parts = SimpleNamespace(config=config, agent=lambda params, seed: act)
    assert matches.matches_at_the_end(parts, state, None) == {"matches": {}}
    assert "no matches against exact: it died" in capsys.readouterr().out


def test_an_opponent_is_shown_its_own_lanes_alone(monkeypatch):
    config, act = pig_matches("exact", 16)
    best, shown = opponents_of(config.env)["exact"].make(0), []

    class Watched:
        def act(self, turn):
            shown.append(turn)
            return best.act(turn)

        def close(self):
            pass

    found = {"exact": Contender(lambda seed: Watched())}
    monkeypatch.setattr(module, "opponents_of", lambda env: found)
    evaluate(act, config, seed=3)
    goal, lanes = 20, {lane for turn in shown for lane in turn.lanes.tolist()}
    assert lanes == set(range(8)) and any(len(turn.lanes) < 8 for turn in shown)
    # A game that is over shows nothing: nobody moves there.
    assert all(turn.frames.reshape(-1, 3 * goal).any(axis=1).all() for turn in shown)


def test_the_agent_has_each_of_three_seats():
    """Who always rolls wins more than a third of the games to 12 against two who toss coins."""
    env = EnvConfig(suite="turns", id="Pig", kwargs='{"goal": 12, "players": 3}', frame_stack=1)
    settings = EvalConfig(num_games=90, num_envs=30)
    seats = set()

    def roll(timestep, count):
        seats.update(np.unique(timestep.player))
        return np.ones(len(timestep.player), np.int32)

    result = evaluate(roll, Config(env=env, eval=settings), seed=3)
    assert result is not None and result["games"] == 90 and seats == {0, 1, 2}
    assert set(result["scores"]) == {1.0, -0.5} and result["mean"] > 0.25
    idle = evaluate(lambda timestep, _: 0 * timestep.player, Config(env=env, eval=settings), seed=3)
    assert idle is not None and set(idle["scores"]) == {-0.5}
