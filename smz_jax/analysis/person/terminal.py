"""A terminal in which a person plays turn by turn: the game waits for each key."""

import contextlib
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Callable, Iterator

from PIL import Image

from smz_jax.analysis.person.desk import Desk, state_words, told
from smz_jax.analysis.person.games import PersonGames
from smz_jax.analysis.person.keys import NEXT, QUIT, UNDO
from smz_jax.analysis.play.showing import CLEAR_BELOW, CLEAR_LINE, HOME, picture_text
from smz_jax.config.check import ConfigError

SEQUENCES = {"A": "up", "B": "down", "C": "right", "D": "left"}
"""Last characters of what a terminal sends for arrows."""
PLAIN_KEYS = {"\r": NEXT, "\n": NEXT, "\x7f": UNDO, "\b": UNDO, " ": "space"}
WAIT_SECONDS = 0.1
ROOM = 9
"""Lines of the terminal that are left for the words, beside those of the keys."""


def check_terminal() -> None:
    """Raises ConfigError in one line where there is no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("terminal = True is not allowed: input and output must be a terminal's")


def keys_of(text: str) -> Iterator[str]:
    """Names of the keys that were typed, as pygame has them; others are left out."""
    at = 0
    while at < len(text):
        here = text[at]
        at += 1
        if here == "\x1b":
            if text[at : at + 1] in ("[", "O") and at + 1 < len(text):
                yield SEQUENCES.get(text[at + 1], "")
                at += 2
            else:
                yield QUIT
        else:
            yield PLAIN_KEYS.get(here, here.lower() if here.isprintable() else "")


@contextlib.contextmanager
def _key_by_key(terminal: int) -> Iterator[None]:
    """A terminal that hands on each key at once and does not echo it; Ctrl-C stays a signal."""
    former = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, former)


class Terminal:
    """Plays games in the terminal.

    Args:
        games: that are played.
        desk: what is shown.
        should_stop: called again and again; what was played is kept.
    """

    def __init__(
        self, games: PersonGames, desk: Desk, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._games, self._desk, self._should_stop = games, desk, should_stop
        self._keys = desk.keys.single() if desk.keys is not None else None
        self._typed = ""
        self._is_running = True

    def play(self) -> None:
        """Plays until the person, a signal or the number of games ends it."""
        terminal = sys.stdin.fileno()
        with _key_by_key(terminal):
            print("\x1b[2J", end="")
            self._show()
            while self._is_running and not self._should_stop():
                if not select.select([terminal], [], [], WAIT_SECONDS)[0]:
                    continue
                text = os.read(terminal, 1024).decode("utf-8", "ignore")
                if not text:  # the terminal is gone
                    return
                for key in keys_of(text):
                    if self._is_running:
                        self._press(key)
                self._show()

    def _press(self, key: str) -> None:
        games = self._games
        if key == QUIT:
            self._is_running = False
        elif key == UNDO:
            if self._typed:
                self._typed = self._typed[:-1]
            else:
                games.undo(1)
        elif key == NEXT:
            if self._typed:
                self._act_typed()
            elif games.count:
                self._next()
        elif self._keys is None:
            self._typed += key if len(key) == 1 else ""
        elif (action := self._keys._replace(idle=None).action([key])) is not None:
            games.act(action)

    def _act_typed(self) -> None:
        """Plays the action whose name or number was typed."""
        labels, typed, self._typed = self._desk.labels, self._typed, ""
        plain = [label.lower() for label in labels]
        if typed in plain:
            self._games.act(plain.index(typed))
        elif typed.isdecimal() and int(typed) < len(labels):
            self._games.act(int(typed))
        else:
            self._games.message = f"{typed[:40]} is none of the {len(labels):,} actions"

    def _next(self) -> None:
        if self._desk.most_games and self._games.number >= self._desk.most_games:
            self._is_running = False
        else:
            self._games.begin()

    def _show(self) -> None:
        """Draws all anew."""
        games, desk = self._games, self._desk
        columns, lines = shutil.get_terminal_size((80, 40))
        table = self._table(columns)
        seen = desk.text(games.now)
        if isinstance(seen, Image.Image):
            room = max(min(lines - ROOM - len(table), 40), 4)
            seen = picture_text(seen, min(columns, 80), room)
        parts = [
            desk.title,
            seen,
            "",
            f"score {games.score:g}, " + ", ".join(state_words(games, desk)),
            told(games, is_paused=False),
            *table,
            "Backspace: take back a step   Enter: next game   Esc: end, and keep what was played",
        ]
        if self._keys is None:
            parts[-1] = parts[-1].replace("next", "play what is typed, or next")
            parts.append(f"action: {self._typed}")
        text = "\n".join(parts)
        print(HOME + text.replace("\n", CLEAR_LINE + "\n") + CLEAR_LINE + CLEAR_BELOW, flush=True)

    def _table(self, columns: int) -> list[str]:
        """Keys and actions, or the actions that are allowed where they are typed."""
        games = self._games
        if self._keys is None:
            allowed = [x for x, no in zip(self._desk.labels, games.invalid, strict=True) if not no]
            cells = ["allowed:", *allowed]
        else:
            cells = [
                f"{self._keys.shown(action)} = {label}"
                for action, label in enumerate(self._keys.labels)
                if not games.invalid[action]
            ]
        found, line = [], ""
        for cell in cells:
            if line and len(line) + len(cell) + 3 > columns:
                found.append(line)
                line = ""
            line += ("   " if line else "") + cell
        return [*found, line][:8]
