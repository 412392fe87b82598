"""GNU Backgammon as an opponent: a program of its own, asked over a local socket.

It is never part of this package (`apt install gnubg`; GPL). A process is started for each opponent,
plays at a fixed depth without noise or doubling cube, so that it always answers the same, and is
told each roll as a board of FIBS, in a line. Its answer holds a player's whole turn, `24/18 13/11`,
whose parts are played one by one. Its points are numbered from the mover's own home, 25 is the bar
and 0 is off: point p is pgx's index 24 - p.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smz_jax.envs.opponents import OpponentFault, Turn
from smz_jax.envs.pgx.backgammon import POINTS, SIDES, counts_of

PLACES = (Path("/usr/games/gnubg"), Path("/usr/local/bin/gnubg"))
"""Where it may be beside the PATH, on which Debian's folder of games need not be."""
HOW_TO = "GNU Backgammon is not installed: run `apt install gnubg`"
START_SECONDS, ANSWER_SECONDS = 30.0, 60.0
"""It loads its networks first; at 2 plies a move takes 0.15 s on average."""
LONGEST = 1000
"""Letters of an answer."""
SETUP = """\
set rng mersenne
set seed {seed}
set jacoby off
set evaluation chequerplay evaluation plies {plies}
set evaluation chequerplay evaluation cubeful off
set evaluation chequerplay evaluation noise 0
external {place}
"""
STEP = re.compile(r"(\d+|bar)/(\d+|off)\*?")


def find_program() -> Path | None:
    """The program, if it is installed."""
    found = shutil.which("gnubg")
    return Path(found) if found else next((x for x in PLACES if x.is_file()), None)


def question(counts: np.ndarray) -> str:
    """A board `[34]` of who moves, and two dice, as a line of FIBS; see `frame_of` for `counts`."""
    dice = [die + 1 for die in range(SIDES) for _ in range(counts[POINTS + 4 + die])][:2]
    points = [counts[25], *counts[POINTS - 1 :: -1], counts[24]]
    borne_off, bars = (counts[26], -counts[27]), (counts[24], -counts[25])
    game = "A", "B", 0, 0, 0  # names; no match, so that gammons count as they are paid here
    numbers = [*game, *points, 1, *dice, 0, 0, 1, 1, 1, 0, 1, -1, 0, 25, *borne_off, *bars]
    return "board:" + ":".join(map(str, [*numbers, 0, 0, 0, 0]))


def parse(answer: str) -> list[tuple[int, int]] | None:
    """The steps of an answer, from point to point (25: the bar, 0: off); None: it is no move."""
    words = answer.split()
    found = [STEP.fullmatch(word) for word in words]
    if not all(found) or len(words) > 4:
        return None
    points = [x.groups() for x in found if x]
    return [(25 if a == "bar" else int(a), 0 if b == "off" else int(b)) for a, b in points]


def actions_of(step: tuple[int, int]) -> list[int]:
    """Pgx's actions for a step: one, or of a checker borne off the exact die, then larger ones."""
    start, end = step
    source = 1 if start == 25 else POINTS + 2 - start
    dice = range(start, SIDES + 1) if end == 0 else [start - end]
    return [SIDES * source + die - 1 for die in dice if 1 <= die <= SIDES and 1 <= source < 26]


class Process:
    """A running program that answers lines over a local socket."""

    def __init__(self, program: Path, setup: str) -> None:
        """Starts it; `setup` are its commands, `{place}` the socket's path.

        Raises:
            OSError: if it cannot be started, or does not open the socket in time.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="smz_opponent_")
        place = Path(self._folder.name, "socket")
        commands = Path(self._folder.name, "commands")
        commands.write_text(setup.format(place=place))
        silent: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        silent |= {"stderr": subprocess.DEVNULL, "start_new_session": True}  # Ctrl-C is not for it
        environment = {**os.environ, "HOME": self._folder.name}  # it would leave its settings there
        # Where util-linux is: it ends with this process, also if that is killed.
        ends_too = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        words = [*ends_too, str(program), "-t", "-q", "-r", "-c", str(commands)]
        self._socket = socket.socket(socket.AF_UNIX)
        self._program = subprocess.Popen(words, env=environment, cwd=self._folder.name, **silent)
        try:
            self._connect(place)
        except OSError:
            self.close()
            raise

    def _connect(self, place: Path) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self._socket.settimeout(ANSWER_SECONDS)
                return self._socket.connect(str(place))
            except (FileNotFoundError, ConnectionRefusedError):
                if self._program.poll() is not None:
                    raise OSError(f"it ended with exit code {self._program.returncode}") from None
                if time.monotonic() > end:
                    raise OSError(f"it did not answer within {START_SECONDS:g} s") from None
                time.sleep(0.05)

    def ask(self, line: str) -> str:
        """Its answer to a line, without the end of the line.

        Raises:
            OSError: if it died, or its whole answer did not come in time.
        """
        end, answer = time.monotonic() + ANSWER_SECONDS, b""
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.sendall(f"{line}\n".encode("ascii"))
        while b"\n" not in answer:
            self._socket.settimeout(max(end - time.monotonic(), 1e-3))  # 0 would be not to wait
            more = self._socket.recv(LONGEST - len(answer))
            if not more:  # closed, or full
                reason = f"its answer of {len(answer)} letters has no end" if answer else ""
                raise OSError(reason or "it closed the connection")
            answer += more
        return answer.decode("ascii", "replace").partition("\n")[0]

    def close(self) -> None:
        """Ends the program, and removes its folder; may be called twice."""
        self._socket.close()
        if self._program.poll() is None:
            self._program.kill()
        self._program.wait()
        self._folder.cleanup()


class Asked(NamedTuple):
    """A turn that is being played; the lists change with its steps."""

    line: str  # the question
    played: list[tuple[int, int]]
    left: list[tuple[int, int]]


class Gnubg:
    """GNU Backgammon; see `Opponent`. It is started at its first move."""

    def __init__(self, plies: int, seed: int, program: Path | None = None) -> None:
        """Plays by looking `plies` rolls ahead; `program` is looked for, if it is None."""
        self._program = program or find_program()
        self._setup = SETUP.replace("{plies}", str(plies)).replace("{seed}", str(seed % 2**31))
        self._process: Process | None = None
        self._turns: dict[int, Asked] = {}  # by lane
        self.asked = 0
        """Turns so far."""

    def act(self, turn: Turn) -> np.ndarray:
        """See `Opponent.act`."""
        actions = []
        for lane, counts, invalid in zip(
            turn.lanes.tolist(), counts_of(turn.frames), turn.invalid, strict=True
        ):
            dice = counts[POINTS + 4 :]
            is_new = dice.sum() == 4 or (dice == 1).sum() == 2  # a roll, of which nothing is played
            if is_new:
                self._turns[lane] = Asked(question(counts), [], [])
                self.asked += 1
            actions.append(self._next(self._turns[lane], invalid == 0, is_new))
        return np.array(actions, np.int32)

    def _next(self, turn: Asked, valid: np.ndarray, is_new: bool) -> int:
        """The first step of a turn that can be played now; to skip where there is nothing else.

        The program is started anew once, and asked for the turn again, where it fails, or none of
        its steps can be played.

        Raises:
            OpponentFault: in one line, if it is missing, or fails again.
        """
        if self._program is None:
            raise OpponentFault(HOW_TO)
        why = ""
        for attempt in range(2):
            try:
                if is_new or attempt:
                    turn.left[:] = self._answer(turn.line)
                    for step in turn.played:
                        if step in turn.left:
                            turn.left.remove(step)
            except OSError as error:
                why = str(error) or type(error).__name__
            else:
                if valid[0] and not turn.left:
                    return 0
                can = ((x, step) for step in turn.left for x in actions_of(step) if valid[x])
                if found := next(can, None):
                    turn.left.remove(found[1])
                    turn.played.append(found[1])
                    return found[0]
                why = f"it answered what is no move in pgx's rules: {turn.played + turn.left}"
            self.close()
        raise OpponentFault(f"gnubg ({self._program}) failed twice: {why}")

    def _answer(self, line: str) -> list[tuple[int, int]]:
        """The steps that it answers to a line; it is started if it does not run.

        Raises:
            OSError: if it cannot be started, fails, or answers what are no steps.
        """
        assert self._program is not None
        self._process = self._process or Process(self._program, self._setup)
        answer = self._process.ask(line)
        steps = parse(answer)
        if steps is None:
            raise OSError(f"it answered {answer[:60]!r}")
        return steps

    def close(self) -> None:
        """Ends the program; see `Opponent.close`."""
        process, self._process = self._process, None
        if process is not None:
            process.close()
