"""The comparison with PPO: its games, its marks, the table; without PPO but for one slow test."""

import json
from typing import Any

import numpy as np
import pytest

from experiments.peer import __main__ as command_line
from experiments.peer.comparison import compare, draw, make_table, read_runs, score_at
from experiments.peer.games import MOST_FORCED, LaneGames
from experiments.peer.training import Measurement
from smz_jax.config.check import ConfigError
from smz_jax.envs import GameFault
from smz_jax.report.data import RunData
from smz_jax.storage.documents.results_json import PEER
from smz_jax.storage.metrics import read_metrics
from smz_jax.types import Timestep
from tests.support.house import ROOT
from tests.support.toy_env import CatchEnv

NOOP, FIRE, RIGHT = 0, 1, 2


def lane_step(seen, reward=0.0, *, life=False, over=False, cut=False, first=False, fire=False):
    """A step of a lane with three actions, whose observation is a number."""
    invalid = np.array([[fire, 0, fire]], np.float32)
    flags = [np.array([x]) for x in (life or over, cut, over or cut, first)]
    reward = np.array([reward], np.float32)
    return Timestep(np.array([[seen]]), np.sign(reward), reward, *flags, invalid, np.zeros(1))


class ScriptedLane:
    """Gives the steps of a list and keeps the actions sent."""

    def __init__(self, *steps: Timestep) -> None:
        self.left, self.actions = list(steps), []

    def reset(self) -> Timestep:
        return self.left.pop(0)

    def send(self, actions) -> None:
        self.actions.append(int(actions[0]))

    def recv(self) -> Timestep:
        return self.left.pop(0)

    def step(self, actions) -> Timestep:
        self.send(actions)
        return self.recv()


def lane_games(*lanes) -> LaneGames:
    return LaneGames(lanes)  # type: ignore[arg-type]


def step(games: LaneGames, *actions):
    seen, rewards, ended, infos = games.step(np.array(actions))
    return seen[:, 0].tolist(), rewards.tolist(), ended.tolist(), infos


def test_a_lost_life_ends_the_episode_and_fire_is_no_transition_of_the_learner():
    lane = ScriptedLane(
        lane_step(10, first=True),
        lane_step(11, 7.0),
        lane_step(12, life=True, fire=True),
        lane_step(13, 1.0),
        lane_step(14),
    )
    games = lane_games(lane)
    assert games.reset().tolist() == [[10]]
    assert step(games, RIGHT) == ([11], [1.0], [False], [{}])
    lost = {"terminal_observation": np.array([12]), "TimeLimit.truncated": False}
    assert step(games, RIGHT) == ([13], [0.0], [True], [lost])
    assert step(games, NOOP) == ([14], [0.0], [False], [{}])
    assert lane.actions == [RIGHT, RIGHT, FIRE, NOOP]


def test_a_game_that_ends_begins_anew_at_once_and_alone():
    """The other lane makes its own step and no more; scores are raw, over all lives."""
    ends = ScriptedLane(
        lane_step(0, first=True),
        lane_step(1, 4.0),
        lane_step(2, 3.0, over=True),
        lane_step(3, first=True, fire=True),
        lane_step(4),
        lane_step(5),
    )
    other = ScriptedLane(*(lane_step(20 + i, first=not i) for i in range(4)))
    games = lane_games(ends, other)
    assert games.reset()[:, 0].tolist() == [0, 20]
    assert step(games, RIGHT, NOOP)[0] == [1, 21]
    seen, rewards, ended, infos = step(games, RIGHT, RIGHT)
    assert (seen, rewards, ended) == ([4, 22], [1.0, 0.0], [True, False])
    assert infos == [{"terminal_observation": np.array([2]), "TimeLimit.truncated": False}, {}]
    assert step(games, NOOP, NOOP)[0] == [5, 23]
    assert ends.actions[2:4] == [NOOP, FIRE] and len(other.actions) == 3
    assert games.games == [(7.0, 2)]


def test_a_time_limit_is_truncated_and_no_end():
    lane = ScriptedLane(lane_step(0, first=True), lane_step(1, cut=True), lane_step(2, first=True))
    games = lane_games(lane)
    games.reset()
    cut = {"terminal_observation": np.array([1]), "TimeLimit.truncated": True}
    assert step(games, RIGHT) == ([2], [0.0], [True], [cut])


def test_a_lane_that_never_has_a_choice_is_a_fault():
    lane = ScriptedLane(*(lane_step(0, fire=True) for _ in range(MOST_FORCED + 1)))
    with pytest.raises(GameFault, match="lane 0 has had no choice"):
        lane_games(lane).reset()


def test_every_transition_follows_the_rules_of_the_game():
    """Catch: the ball falls a row, the paddle moves by the action, a reward ends the game."""
    games = lane_games(*(CatchEnv(1, seed) for seed in range(3)))
    draws, before, ends = np.random.default_rng(0), games.reset(), 0

    def read(frames):
        """Row of the ball, or the last one where the paddle hides it, and place of the paddle."""
        rows = [max(np.flatnonzero(x[:-1].any(axis=1)), default=len(x) - 1) for x in frames]
        return np.array(rows), frames

    for _ in range(60):
        actions = draws.integers(0, 3, 3)
        seen, rewards, ended, infos = games.step(actions)
        pairs = zip(seen, infos, strict=True)
        after = np.array([info.get("terminal_observation", x) for x, info in pairs])
        rows, next_rows = read(before[:, 0])[0], read(after[:, 0])[0]
        assert (next_rows == rows + 1).all()
        assert (ended == (next_rows == 9)).all() and ((rewards != 0) == ended).all()
        assert (read(seen[:, 0])[0][ended] == 0).all()
        # The bottom row has the paddle alone until the ball is there.
        for lane in np.flatnonzero(~ended):
            at, to = before[lane, 0, -1].argmax(), after[lane, 0, -1].argmax()
            assert to == np.clip(at + actions[lane] - 1, 0, 4)
        before, ends = seen, ends + int(ended.sum())
    assert ends == 18 and len(games.games) == 18


# ---------------------------------------------------------------- marks


def document(*rows) -> dict[str, Any]:
    return {
        "game": "Breakout",
        "seed": 3,
        "settings": {"lanes": 8},
        "versions": {"torch": "2"},
        "commit": None,
        "hardware": "a core",
        "rows": list(rows),
    }


def result(mean=2.0) -> dict[str, Any]:
    found = {"mean": mean, "mean_low": mean - 1, "mean_high": mean + 1, "iqm": 9.0}
    return found | {"games": 4, "distinct": 3, "length_mean": 1.0, "cut_share": 0.0}


def row(minutes: float, mean=2.0, score: float | None = 1.5) -> dict[str, Any]:
    names = ("mean", "mean_low", "mean_high", "games", "distinct")
    evaluation = {name: result(mean)[name] for name in names}
    steps = int(1000 * minutes)
    return {"cpu_minutes": minutes, "env_steps": steps, "score": score, "evaluation": evaluation}


def test_evaluations_are_made_at_the_marks_and_cost_no_time(tmp_path):
    clock = {"now": 100.0}

    def evaluate_now():
        clock["now"] += 1000.0
        return result(len(found) + 1.0)

    found: list[int] = []
    score = lambda: {"score/count": 1, "score/mean": 0.5}  # noqa: E731
    measurement = Measurement(
        document(), [1.0, 2.0, 3.0], tmp_path, score, evaluate_now, lambda: clock["now"]
    )
    clock["now"] += 500.0  # before the first rollout
    assert measurement.between(0) == {}
    for steps in range(1, 9):
        clock["now"] += 30.0
        if measurement.is_over:
            assert measurement.between(steps, is_last=True) == {}
        elif "eval/mean" in measurement.between(steps):
            found.append(steps)
    assert found == [2, 4, 6]
    rows = PEER.read(tmp_path)["rows"]
    assert [x["cpu_minutes"] for x in rows] == [1.0, 2.0, 3.0]
    assert [x["evaluation"]["mean"] for x in rows] == [1.0, 2.0, 3.0]
    written = read_metrics(tmp_path / "metrics.jsonl")
    assert [x["cpu_seconds"] for x in written] == [30.0 * i for i in range(1, 7)]
    assert [x["env_steps"] for x in written if "eval/mean" in x] == found


def test_a_training_that_ends_before_its_time_is_evaluated_at_its_end(tmp_path):
    seconds = iter(np.arange(0.0, 1000.0, 20.0))
    measurement = Measurement(
        document(), [30.0], tmp_path, lambda: {}, result, lambda: float(next(seconds))
    )
    measurement.between(0)
    assert "eval/mean" not in measurement.between(8) and not measurement.is_over
    assert measurement.between(16, is_last=True)["eval/mean"] == 2.0 and measurement.is_over
    (only,) = PEER.read(tmp_path)["rows"]
    assert (only["env_steps"], only["score"]) == (16, None)


def test_the_form_of_the_document():
    assert PEER.fault(document(row(1.0), row(2.0, score=None))) is None
    assert PEER.fault(document(row(2.0), row(1.0))) == "rows are not in the order of cpu_minutes"
    wrong = row(1.0)
    wrong["evaluation"]["mean"] = None
    assert "rows[0].evaluation.mean" in (PEER.fault(document(wrong)) or "")
    for name in document():
        broken = {**document(row(1.0)), name: object()}
        assert (PEER.fault(broken) or "").startswith(name), name


# ---------------------------------------------------------------- comparison


def run_of(rows) -> RunData:
    return RunData(ROOT, "ours", rows, {"env": {"id": "Breakout"}})


ROWS = [
    {"env_steps": 1, "cpu_seconds": 60.0, "score/mean": 1.0},
    {"env_steps": 2, "cpu_seconds": 600.0, "score/mean": 3.0},
    {"env_steps": 3, "cpu_seconds": 660.0, "score/mean": 4.0, "eval/mean": 5.0},
    {"env_steps": 3, "eval/mean": 99.0},  # of an earlier version: nobody knows when
]
ROWS[2] |= {"eval/mean_low": 4.5, "eval/mean_high": 5.5}


@pytest.mark.parametrize(
    ("minutes", "kind", "mean"),
    [
        (1.0, "training", 1.0),
        (10.0, "evaluation", 5.0),  # a minute later: a tenth
        (11.0, "evaluation", 5.0),
        (9.9, "training", 3.0),
        (11.1, "training", 4.0),
        (5.0, None, None),
        (20.0, None, None),
    ],
)
def test_a_run_has_a_score_where_one_is_near(minutes, kind, mean):
    found = score_at(run_of(ROWS), minutes)
    assert (found and found.kind, found and found.estimate.mean) == (kind, mean)


def test_the_table_names_what_each_score_is():
    rows = make_table(document(row(1.0), row(10.0, 2.5), row(30.0)), [run_of(ROWS)]).rows
    assert [line[-1] for line in rows] == [
        "1.00, training at 1.0",
        "5.00 (4.50 to 5.50), evaluation at 11.0",
        "-",
    ]
    assert rows[1][:5] == ["10.0", "10k", "1.50", "2.50 (1.50 to 3.50)", "4 (3 distinct)"]


def write_run(folder, rows, game="Breakout"):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))
    (folder / "config.yaml").write_text(f"env: {{id: {game}}}\n")
    return folder


def test_a_measurement_is_compared_anew(tmp_path, capsys):
    folder = write_run(tmp_path / "peer", ROWS)
    (folder / "peer.json").write_text(json.dumps(document(row(1.0), row(10.0))))
    ours = write_run(tmp_path / "ours", ROWS)
    words = ["--measured", str(folder), "--against", str(ours)]
    assert command_line.main(words) == 0
    assert "evaluation at 11.0" in capsys.readouterr().out
    assert "| 10.0 | 10k |" in (folder / "peer.md").read_text()
    assert (folder / "peer.png").read_bytes()[:4] == b"\x89PNG"
    (axes,) = draw(run_of(ROWS), [run_of(ROWS)]).axes
    assert [len(line.get_xdata()) for line in axes.lines[:1]] == [3]  # type: ignore[arg-type]
    assert axes.lines[0].get_xdata()[-1] == 11.0  # type: ignore[index]


def test_runs_that_cannot_be_compared_are_named_in_a_line(tmp_path):
    pong = write_run(tmp_path / "pong", ROWS, "Pong")
    with pytest.raises(ConfigError, match=r"against = .*pong.* a run of Breakout, not of Pong"):
        read_runs([pong], "Breakout")
    old = write_run(tmp_path / "old", [{"env_steps": 1, "score/mean": 1.0}])
    with pytest.raises(ConfigError, match=r"against = .*old.* has cpu_seconds"):
        read_runs([old], "Breakout")
    with pytest.raises(ConfigError, match="is not a readable measurement"):
        compare(pong, [])


# ---------------------------------------------------------------- command line


def test_without_its_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        command_line.main([])
    line = "not installed: stable-baselines3, torch; type pip install '.[peer]'"
    assert str(caught.value) == line


def test_marks_lie_within_the_time():
    request = command_line.PeerRequest
    assert request().minutes == [5.0, 15.0, 25.0, 34.0]
    assert request(cpu_minutes=10.0).minutes == [5.0, 10.0]
    assert request(cpu_minutes=10.0, marks=(7.0, 2.0)).minutes == [2.0, 7.0, 10.0]
    with pytest.raises(ConfigError, match=r"marks = 11.0 .* at most cpu_minutes = 10"):
        request(cpu_minutes=10.0, marks=(11.0,))


def test_it_is_imported_nowhere_else():
    for path in [*ROOT.glob("smz_jax/**/*.py"), *ROOT.glob("experiments/**/*.py")]:
        text = path.read_text("utf-8")
        assert path.parent.name == "peer" or not {"torch", "stable_baselines3"} & set(text.split())


@pytest.mark.slow
def test_it_trains(tmp_path, monkeypatch, capsys):
    pytest.importorskip("stable_baselines3")
    monkeypatch.chdir(tmp_path)
    words = ["--cpu_minutes", "5", "--marks", "0.01", "--total_steps", "2000", "--games", "2"]
    assert command_line.main(words) == 0
    (folder,) = (tmp_path / "runs/peer").iterdir()
    rows = PEER.read(folder)["rows"]
    assert [x["env_steps"] for x in rows] == [1024, 2048]
    assert rows[0]["cpu_minutes"] < rows[1]["cpu_minutes"] < 5
    assert (folder / "peer.png").exists() and "CPU minutes" in capsys.readouterr().out
