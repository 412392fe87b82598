"""A window in which a person plays, by pygame-ce."""

import contextlib
import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

from smz_jax.analysis.person.desk import BACKGROUND, WIDTH, Desk, DeskPanel
from smz_jax.analysis.person.games import PersonGames
from smz_jax.analysis.person.keys import NEXT, PAUSE, QUIT, UNDO
from smz_jax.config.check import ConfigError

DRIVER = "SDL_VIDEODRIVER"
REPEAT_AFTER = 0.4
"""Seconds after which a key that is held steps a game that waits for keys, again and again."""
LOOKS = 60
"""Times in a second that keys are read, at least."""


def check_window() -> None:
    """Raises ConfigError in one line where there is no pygame or no display."""
    if importlib.util.find_spec("pygame") is None:
        line = "a window needs pygame-ce, which is not installed: type pip install '.[record]'"
        raise ConfigError(f"{line}, or play with --terminal")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    try:
        pygame.display.init()
        driver = pygame.display.get_driver()
        pygame.display.quit()
    except pygame.error as error:
        driver = str(error)
    # Without a display SDL falls back to one that nobody sees.
    if driver != os.environ.get(DRIVER) and driver not in ("x11", "wayland", "windows", "cocoa"):
        raise ConfigError(
            f"there is no display for a window ({driver}): play with --terminal, or under xvfb-run"
        )


@contextlib.contextmanager
def own_driver() -> Iterator[None]:
    """Leaves the choice of a display as it was: who draws pictures without one may change it."""
    former = os.environ.get(DRIVER)
    try:
        yield
    finally:
        os.environ.pop(DRIVER, None)
        if former is not None:
            os.environ[DRIVER] = former


class Window:
    """One window; `play` shows the games in it.

    Args:
        games: that are played.
        desk: what is shown.
        should_stop: called again and again; what was played is kept.
    """

    def __init__(
        self, games: PersonGames, desk: Desk, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        assert desk.keys is not None, "a window reads keys"
        self._games, self._desk, self._should_stop = games, desk, should_stop
        self._keys, self._panel = desk.keys, DeskPanel(desk)
        self._held: list[str] = []
        self._tapped: list[str] = []
        self._is_paused, self._is_running = not desk.waits, True
        self._active: int | None = None
        self._shown: Any = None
        self._due = self._pressed_at = 0.0

    def play(self) -> None:
        """Opens the window and plays until the person, a signal or the number of games ends it."""
        import pygame

        self._pygame = pygame
        pygame.display.init()
        pygame.display.set_caption(self._desk.title)
        picture = self._desk.picture(self._games.now)
        self._picture_size = picture.size
        height = max(picture.height, self._panel.least_height)
        with warnings.catch_warnings(action="ignore"):  # that a renderer is slow
            flags = pygame.SCALED | pygame.RESIZABLE
            self._surface = pygame.display.set_mode((picture.width + WIDTH, height), flags)
        clock = pygame.time.Clock()
        try:
            while self._is_running and not self._should_stop():
                for event in pygame.event.get():
                    self._read(event)
                if self._is_running:
                    self._step()
                    self._show()
                    clock.tick(max(LOOKS, self._desk.rate))
        finally:
            pygame.display.quit()

    def _read(self, event: Any) -> None:
        """Answers an event."""
        pygame = self._pygame
        if event.type == pygame.QUIT:
            self._is_running = False
        elif event.type == pygame.WINDOWFOCUSLOST:
            self._held.clear()
            self._is_paused = self._is_paused or not self._desk.waits
        elif event.type == pygame.WINDOWEXPOSED:
            self._shown = None
        elif event.type == pygame.KEYUP:
            name = pygame.key.name(event.key)
            if name in self._held:
                self._held.remove(name)
        elif event.type == pygame.KEYDOWN:
            self._press(pygame.key.name(event.key).replace("enter", NEXT))

    def _press(self, key: str) -> None:
        games, desk = self._games, self._desk
        if key == QUIT:
            self._is_running = False
        elif key == UNDO:
            games.undo(desk.undo_steps)
            self._is_paused = not desk.waits
        elif key == NEXT:
            if games.count and self._next():
                self._is_paused = not desk.waits
        elif key == PAUSE and not desk.waits:
            self._is_paused = not self._is_paused
        elif key in self._keys.relevant:
            self._held = [*(x for x in self._held if x != key), key]
            self._tapped.append(key)
            self._is_paused = False
            self._pressed_at = time.monotonic()
            if desk.waits:
                self._act(self._keys.action(self._held))
                self._tapped.clear()

    def _next(self) -> bool:
        """Begins the next game; False: that was the last one."""
        self._held.clear()
        if self._desk.most_games and self._games.number >= self._desk.most_games:
            self._is_running = False
            return False
        self._games.begin()
        return True

    def _step(self) -> None:
        """Steps the game where a step is due."""
        games, now = self._games, time.monotonic()
        if self._is_paused or games.is_over or now < self._due:
            return
        if self._desk.waits:
            if self._held and now - self._pressed_at >= REPEAT_AFTER:
                self._act(self._keys.action(self._held))
            return
        pressed = [*(x for x in self._tapped if x not in self._held), *self._held]
        self._tapped.clear()
        self._act(self._keys.action(pressed))

    def _act(self, action: int | None) -> None:
        self._active = action
        if action is not None:
            self._games.act(action, replace=not self._desk.waits)
        now, period = time.monotonic(), 1 / self._desk.rate
        self._due = max(self._due + period, now + period / 2)

    def _show(self) -> None:
        """Draws what has changed."""
        games = self._games
        state = games.number, games.count, games.message, self._is_paused, self._active
        if state == self._shown:
            return
        self._shown = state
        width, height = self._surface.get_size()
        picture = self._desk.picture(games.now)
        if picture.size != self._picture_size:
            picture = picture.resize(self._picture_size)
        image = Image.new("RGB", (width, height), BACKGROUND)
        image.paste(picture, (0, (height - picture.height) // 2))
        panel = self._panel.draw(games, self._is_paused, self._active, height)
        image.paste(panel, (width - WIDTH, 0))
        drawn = self._pygame.image.frombuffer(image.tobytes(), image.size, "RGB")
        self._surface.blit(drawn, (0, 0))
        self._pygame.display.flip()
