"""GNU Backgammon as an opponent: its language by hand, a program that fails, whole games."""

import shutil
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from smz_jax.acting.agent import make_random_policy
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import OpponentFault, Turn, check_opponent, make_env, opponents_of
from smz_jax.envs.pgx import gnubg
from smz_jax.envs.pgx.backgammon import counts_of, frame_of
from smz_jax.envs.pgx.gnubg import Gnubg, actions_of, find_program, parse, question

CONFIG = EnvConfig(suite="pgx", id="backgammon", frame_stack=1)
START = [2, 0, 0, 0, 0, -5, 0, -3, 0, 0, 0, 5, -5, 0, 0, 0, 3, 0, 5, 0, 0, 0, 0, -2]
FAKE = """#!{python}
import pathlib, socket, sys, time
folder = pathlib.Path(__file__).parent
starts = folder / "starts"
count = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (count + 1))
answers = (folder / "answers").read_text().splitlines()
commands = pathlib.Path(sys.argv[sys.argv.index("-c") + 1]).read_text()
place = commands.split("external ")[1].strip()
answer = answers[min(count, len(answers) - 1)]
if answer == "ENDS":
    sys.exit(3)
server = socket.socket(socket.AF_UNIX)
server.bind(place)
server.listen()
lines = server.accept()[0].makefile("rw")
for line in lines:
    if answer == "DIES":
        break
    if answer == "SLOW":
        for letter in "8/5 6/5 \\n":  # each of them within the time for all
            time.sleep(0.2)
            print(letter, end="", file=lines, flush=True)
    elif answer != "SILENT":
        print(answer, file=lines, flush=True)
"""


def roll(low, high):
    """The opening board with a roll, as an opponent is shown it, in one lane."""
    counts = np.array([*START, 0, 0, 0, 0, *[0] * 6])
    counts[28 + low - 1] += 1
    counts[28 + high - 1] += 1
    valid = np.ones((1, 156), np.float32)
    valid[0, [6 * (2 + 16) + 2, 6 * (2 + 18)]] = 0  # 8/5, 6/5
    return Turn(frame_of(counts)[None], valid, np.array([7]))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Makes a program that answers by a line for each of its starts, and the opponent it is."""
    monkeypatch.setattr(gnubg, "ANSWER_SECONDS", 0.5)
    program = tmp_path / "gnubg"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(0o755)
    made = []

    def make(*answers):
        (tmp_path / "answers").write_text("\n".join(answers))
        made.append(Gnubg(0, 1, program))
        return made[-1], tmp_path / "starts"

    yield make
    for opponent in made:
        opponent.close()
        opponent.close()


def test_a_board_as_a_line_and_an_answer_as_steps():
    line = question(np.array([*START, 1, -2, 3, -4, 0, 0, 0, 0, 4, 0]))
    name, *fields = line.split(":")
    assert (name, *fields[:5]) == ("board", "A", "B", "0", "0", "0") and len(fields) == 52
    points = list(map(int, fields[5:31]))
    assert points[0] == -2 and points[25] == 1  # the other's bar and one's own
    assert [points[x] for x in (1, 6, 8, 12, 13, 17, 19, 24)] == [-2, 5, 3, -5, 5, -3, -5, 2]
    assert fields[31:34] == ["1", "5", "5"] and fields[44:48] == ["3", "4", "1", "2"]
    assert parse("24/18 18/13* ") == [(24, 18), (18, 13)] and parse("") == []
    assert parse("bar/22 6/off") == parse("25/22 6/0 ") == [(25, 22), (6, 0)]
    for wrong in ("Error: Invalid board", "24/18/13", "8/5 " * 5, "8-5", "8/5*("):
        assert parse(wrong) is None
    assert actions_of((24, 18)) == [12 + 5] and actions_of((25, 22)) == [6 + 2]
    assert actions_of((4, 0)) == [6 * 22 + x for x in (3, 4, 5)]  # the exact die comes first
    assert actions_of((24, 10)) == actions_of((8, 9)) == actions_of((40, 39)) == []


def test_a_turn_is_played_step_by_step(fake):
    opponent, starts = fake("8/5 6/5 ")
    turn = roll(3, 1)
    assert opponent.act(turn).tolist() == [6 * (2 + 16) + 2] and opponent.asked == 1
    counts = counts_of(turn.frames)
    counts[0, 28 + 2] = 0  # the 3 is played
    rest = turn._replace(frames=np.stack([frame_of(counts[0])]))
    assert opponent.act(rest).tolist() == [6 * (2 + 18)] and opponent.asked == 1
    skip = np.ones((1, 156), np.float32)
    skip[0, 0] = 0
    assert opponent.act(rest._replace(invalid=skip)).tolist() == [0]
    assert starts.read_text() == "x"


@pytest.mark.parametrize(
    "first", ["DIES", "ENDS", "SILENT", "SLOW", "Error: what?", "3/2 3/2", "", "24/24"]
)
def test_a_program_that_fails_is_started_anew_once(fake, first):
    opponent, starts = fake(first, "8/5 6/5 ")
    assert opponent.act(roll(3, 1)).tolist() == [6 * (2 + 16) + 2] and starts.read_text() == "xx"


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        *(("DIES", "closed"), ("ENDS", "exit code 3"), ("SILENT", "timed out")),
        *(("no", "answered 'no'"), ("8/5 " * 400, "1000 letters has no end")),
        *(("SLOW", "timed out"), ("24/18 13/11 ", "no move in pgx's rules: .*24, 18")),
    ],
)
def test_then_it_ends_in_a_line(fake, answer, what):
    opponent, starts = fake(answer)
    with pytest.raises(OpponentFault, match=what) as fault:
        opponent.act(roll(3, 1))
    assert starts.read_text() == "xx" and len(str(fault.value).splitlines()) == 1


@pytest.mark.parametrize("second", ["8/5 6/5 ", "8/5 24/18 "])
def test_a_second_step_that_cannot_be_played_is_asked_for_anew(fake, second):
    opponent, starts = fake("8/5 3/2 ", second)
    turn = roll(3, 1)
    assert opponent.act(turn).tolist() == [6 * (2 + 16) + 2] and starts.read_text() == "x"
    counts = counts_of(turn.frames)
    counts[0, 28 + 2] = 0  # the 3 is played
    rest = turn._replace(frames=np.stack([frame_of(counts[0])]))
    if second == "8/5 6/5 ":
        assert opponent.act(rest).tolist() == [6 * (2 + 18)]
    else:
        with pytest.raises(OpponentFault, match="no move in pgx's rules"):
            opponent.act(rest)
    assert starts.read_text() == "xx" and opponent.asked == 1


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux")
def test_the_program_ends_with_a_process_that_is_killed(tmp_path):
    """gnubg waits for the next connection when one is closed."""
    program, text = tmp_path / "gnubg", FAKE.format(python=sys.executable)
    text = text.replace("for line in", "print('ready', file=lines, flush=True)\nfor line in")
    program.write_text(text + "import time\ntime.sleep(30)\n")
    program.chmod(0o755)
    (tmp_path / "answers").write_text("SILENT")
    script = (
        "import pathlib, sys; from smz_jax.envs.pgx.gnubg import Process;"
        "process = Process(pathlib.Path(sys.argv[1]), 'external {place}');"
        "process.ask('x'); print(process._program.pid, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(program)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert psutil.pid_exists(pid)
        run.kill()
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    raise AssertionError(f"{pid} still runs")


def test_a_missing_program_is_a_line(monkeypatch):
    monkeypatch.setattr(gnubg, "find_program", lambda: None)
    with pytest.raises(ConfigError, match="apt install gnubg"):
        check_opponent(CONFIG, "gnubg0")
    with pytest.raises(OpponentFault, match="not installed"):
        opponents_of(CONFIG)["gnubg2"].make(0).act(roll(3, 1))


class Watched(Gnubg):
    """Keeps what was asked and answered."""

    answers: dict

    def _answer(self, line):
        return self.answers.setdefault(line, super()._answer(line))


def board_after(line, steps):
    """The points of a line of FIBS, 0..25, after a turn of steps from point to point."""
    points = list(map(int, line.split(":")[6:32]))
    for start, end in steps:
        points[start] -= 1
        if end and points[end] == -1:
            points[end], points[0] = 0, points[0] - 1
        points[end] += end > 0
    return points


@pytest.mark.skipif(find_program() is None, reason=gnubg.HOW_TO)
def test_whole_games_of_the_real_program():
    """Each move is valid, and the board after a turn is the one that the answer leads to."""
    env, chance = make_env(CONFIG, seed=11, num_envs=8), make_random_policy(0)
    opponent = Watched(0, 1)
    opponent.answers, last = {}, env.reset()
    asked, compared, results = {}, 0, []
    for count in range(400):
        actions = chance(last, count)
        moves = np.flatnonzero((last.player == 1) & ~last.game_over)
        if moves.size:
            turn = Turn(last.observation[moves, 0], last.invalid_actions[moves], moves)
            for lane, counts in zip(moves.tolist(), counts_of(turn.frames), strict=True):
                asked.setdefault(lane, question(counts))
            actions[moves] = opponent.act(turn)
            assert (last.invalid_actions[moves, actions[moves]] == 0).all()
        after = env.step(actions)
        for lane in moves.tolist():
            if after.player[lane] == 0 or after.game_over[lane]:
                line = asked.pop(lane)
                points = board_after(line, opponent.answers[line])
                seen = counts_of(after.observation[[lane], 0])[0]
                if after.game_over[lane]:
                    assert sum(max(x, 0) for x in points) == 0
                else:  # seen from the other side: its point p is the other's 25 - p
                    found = [seen[24], *seen[:24], seen[25]]
                    assert [-x for x in found] == points
                    compared += 1
        results += after.raw_reward[after.game_over & ~last.game_over].tolist()
        last = after
    opponent.close()
    env.close()
    assert compared > 400 and len(results) > 10 and np.mean(results) < -1
