"""The ladder: Elo by hand and by brute force, pairs of games, matches of checkpoints."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import optimize

from smz_jax.acting.evaluate import summarise_games
from smz_jax.analysis.requests import EvaluateRequest
from smz_jax.analysis.rules import ladder
from smz_jax.analysis.rules.ladder import elo_table, fit_elo, opened, play_ladder
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import Config, EnvConfig
from smz_jax.config.training import EvalConfig
from smz_jax.envs.turns import pig_rules
from smz_jax.report.data import RunData
from smz_jax.report.matches import has_matches, ladder_table, match_tables
from smz_jax.storage.documents.results_json import LADDER

PIG = EnvConfig(suite="turns", id="Pig", kwargs='{"goal": 8}', frame_stack=1)


def test_elo_of_two_players_by_hand():
    """Three games of four, and the drawn one that is added: 3.5 to 1.5."""
    elo = fit_elo(np.array([[0, 1.0], [3.0, 0]]))
    np.testing.assert_allclose(elo, [0, 400 * np.log10(3.5 / 1.5)], atol=1e-6)


def test_elo_is_the_likeliest():
    points = np.array([[0, 5, 1, 0], [7, 0, 4, 2.5], [9, 6, 0, 4], [8, 5.5, 6, 0]], np.float64)

    def unlikely(free):
        elo = np.append(0, free)
        chance = 1 / (1 + 10 ** ((elo[None, :] - elo[:, None]) / 400))
        won = points + 0.5 - 0.5 * np.eye(4)
        return -(won * np.log(chance)).sum()

    best = optimize.minimize(unlikely, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(fit_elo(points)[1:], best, atol=0.01)
    both = fit_elo(np.stack([points, points.T]))
    np.testing.assert_allclose(both[0], -both[1], atol=1e-6)


def test_intervals_keep_both_sides_of_a_game_together():
    """Where each pair of games is 1 and -1 the mean is 0 whatever is drawn; apart it would not."""
    scores = np.where(np.arange(50) % 3 == 0, 1.0, -1.0)
    games = [(score, 9, False) for score in (*scores, *-scores)]
    found = summarise_games(games, seats=2)
    assert found["mean"] == found["mean_low"] == found["mean_high"] == 0
    apart = summarise_games(games)
    assert apart["mean_low"] < -0.1 and apart["mean_high"] > 0.1
    assert {x: found[x] for x in ("games", "median", "scores")} == {
        x: apart[x] for x in ("games", "median", "scores")
    }
    table = elo_table([np.stack([scores, -scores])])
    assert table["elo"] == table["elo_low"] == table["elo_high"]
    draw = np.random.default_rng(0)
    rising = [np.where(draw.random((2, 60)) < share, -3.0, 2.0) for share in (0.6, 0.8, 0.7)]
    table = elo_table(rising)  # of 0 against 1, 0 against 2, 1 against 2
    assert table["elo"][0] == table["elo_low"][0] == 0
    for low, mean, high in zip(*(table[f"elo{x}"][1:] for x in ("_low", "", "_high")), strict=True):
        assert low < mean < high and mean > 0
    assert table["elo"][1] < 150 < table["elo"][2] < 350


def test_openings_are_the_same_from_both_sides():
    step = SimpleNamespace(invalid_actions=np.zeros((5, 4), np.float32))
    first, second = (opened(lambda timestep, count: 7 + count, 2, 3) for _ in range(2))
    assert [first(step, x).tolist() for x in (0, 1)] == [second(step, x).tolist() for x in (0, 1)]
    assert first(step, 0).tolist() != first(step, 1).tolist() and first(step, 2) == 9


def run_of(monkeypatch, policies, env=PIG):
    """A run whose checkpoints are policies of Pig, each a number for the states of `points`."""
    config = Config(env=env, eval=EvalConfig(num_games=8, num_envs=8, max_steps=400))
    rules = pig_rules.make_rules(8)
    seen = pig_rules.observations(rules)
    store = SimpleNamespace(steps=lambda kind: sorted(policies))

    def agent(functions, store, step):
        def act(timestep, count):
            states = pig_rules.states_of(rules, timestep.observation[:, -1])
            return np.append(policies[step], 0)[states]

        return act

    assert len(seen) == rules.num_states + 1
    monkeypatch.setattr(ladder, "load_model", lambda folder, kind: SimpleNamespace(config=config))
    monkeypatch.setattr(ladder, "make_functions", lambda model, spec: None)
    monkeypatch.setattr(ladder, "CheckpointStore", lambda folder: store)
    monkeypatch.setattr(ladder, "_agent", agent)


def test_checkpoints_that_play_better_stand_higher(monkeypatch, tmp_path):
    """One that holds for ever loses to a coin's, which loses to the best one, by the table."""
    rules, (_, action_value) = pig_rules.make_rules(8), pig_rules.optimal_values(8)
    coin = np.random.default_rng(0).integers(0, 2, rules.num_states)
    run_of(monkeypatch, {64: 0 * coin, 128: coin, 192: action_value.argmax(axis=1)})
    lines = []
    found = play_ladder(tmp_path, games=200, tell=lines.append)
    LADDER.check(found, "ladder.json")
    assert found["env_steps"] == [64, 128, 192] and found["opening"] == 0 and len(lines) == 3
    assert found["elo"][0] == 0 < found["elo_low"][1] and found["elo"][1] < found["elo_low"][2]
    assert [(x["first"], x["second"]) for x in found["matches"]] == [(0, 1), (0, 2), (1, 2)]
    best, coins = np.eye(2)[action_value.argmax(axis=1)], np.eye(2)[coin]
    exact = np.mean(pig_rules.expected_results(rules, coins, best))
    assert found["matches"][2]["mean"] == pytest.approx(exact, abs=0.12)
    assert play_ladder(tmp_path, games=200, tell=lines.append) == found


def test_what_has_no_ladder_is_a_line(monkeypatch, tmp_path):
    run_of(monkeypatch, {64: np.zeros(288, int)})
    with pytest.raises(ConfigError, match="keep_checkpoint_every_env_steps"):
        play_ladder(tmp_path, games=2)
    run_of(monkeypatch, {64: 0, 128: 0}, EnvConfig(suite="grid", id="GridWorld"))
    with pytest.raises(ConfigError, match="two players"):
        play_ladder(tmp_path, games=2)
    for name, value in {"checkpoint": "best", "noise": 0.5, "opponent": "random"}.items():
        with pytest.raises(ConfigError, match="left out with --ladder"):
            EvaluateRequest(tmp_path, ladder=True, **{name: value})


def test_the_page_has_matches_and_ladder(tmp_path):
    run = RunData(tmp_path, "a", [])
    assert not has_matches(run)
    run.summary = {"matches": {"exact": {"mean": -0.5, "games": 8, "won": 1, "drawn": 2}, "x": 3}}
    run.ladder = {"env_steps": [0, 64], "elo": [0, 120.4], "elo_low": [0, 30], "elo_high": [0, 250]}
    run.ladder["matches"] = [{"first": 0, "second": 1, "mean": 0.3, "games": 8, "cut_share": 0}]
    page = match_tables(run)
    assert has_matches(run) and "120 (30 to 250)" in page and "-0.5" in page
    assert "cut off at the step limit:" not in page and "no interval" not in page
    for broken in ({"elo": [0]}, {"elo": ["a", "b"]}, {"env_steps": None}):
        assert LADDER.wrong_parts(run.ladder | broken)


def test_the_page_says_what_no_game_could_tell(monkeypatch, tmp_path):
    """Games that are all cut off are draws; who won all games could be better by any amount."""
    run = RunData(tmp_path, "a", [])
    best = {"mean": 1.0, "mean_low": 1.0, "mean_high": 1.0, "games": 8, "cut_share": 0.0}
    run.summary = {"matches": {"exact": best, "random": best | {"cut_share": 0.25}}}
    page = match_tables(run)
    assert page.count("<td>1.00 (no interval)</td>") == 2
    assert "<td>25.0%</td>" in page and "<td>0.0%</td>" in page
    won = elo_table([np.ones((2, 100))])
    match = {"first": 0, "second": 1, **best}
    page = ladder_table({"env_steps": [0, 64], **won, "matches": [match]}, "steps").to_text()
    assert "0\n" in page and "-1041 (no interval)" in page and "In 1 of 1 matches" in page
    run_of(monkeypatch, {64: np.zeros(288, int), 128: np.zeros(288, int)})  # both hold for ever
    found = play_ladder(tmp_path, games=8, tell=lambda line: None)
    page = ladder_table(found, "steps").to_text()
    assert "0 (no interval)" in page and "100.0% of the games were cut off" in page
