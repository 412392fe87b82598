"""What a person has before them: the picture, the state of the game, and all keys."""

import textwrap
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smz_jax.analysis.person.games import PersonGames
from smz_jax.analysis.person.keys import MOST, KeyMap, make_keys
from smz_jax.analysis.play.scenes import ACCENT, BACKGROUND, FAINT, INK, WARM, Tell, make_scene
from smz_jax.analysis.requests import PersonWay
from smz_jax.config.settings import Config
from smz_jax.envs import Playable
from smz_jax.types import Timestep

WIDTH, MARGIN, LINE = 330, 18, 21
"""Pixels of the panel beside the picture, and of a line of its table."""
TALLEST = 640
"""Pixels of a screen that is enlarged."""
COLUMN = 18
"""Lines of the table of keys; more stand in a second column."""


class Desk(NamedTuple):
    """How the games of a person are shown and ruled."""

    title: str
    picture: Callable[[Timestep], Image.Image]
    text: Tell  # for the terminal
    keys: KeyMap | None  # None: actions are typed by their names or numbers
    labels: tuple[str, ...]  # of the actions
    rate: float  # steps in a second
    waits: bool  # for a key, before every step
    undo_seconds: float  # that one key goes back; where the game waits, it is a step
    most_games: int | None  # None: as many as are played
    note: str  # who plays the game, and why there is no picture

    @property
    def undo_steps(self) -> int:
        """Steps that one key goes back."""
        return 1 if self.waits else max(1, round(self.undo_seconds * self.rate))

    @property
    def undo_words(self) -> str:
        """What the key of going back does."""
        return "take back a step" if self.waits else f"go {self.undo_seconds:g} s back"


def make_desk(config: Config, way: PersonWay, playable: Playable) -> Desk:
    """The desk of an open game.

    Raises:
        ConfigError: in one line, if there are too many actions for keys, or the keys are wrong.
    """
    game, spec, env = playable.game, playable.game.env.spec, config.env
    scene, screen = make_scene(env, spec, game.screen), game.screen
    keys, labels = None, spec.action_names
    if not way.terminal or len(labels) <= MOST:
        keys = make_keys(env, spec, playable.keys, way.keys)
        labels = keys.labels
    waits = keys is None or keys.idle is None
    return Desk(
        title=f"{config.experiment}: {spec.name}",
        picture=scene.picture if screen is None else lambda _: enlarge_screen(screen()),
        text=scene.text,
        keys=keys,
        labels=labels,
        rate=way.fps or game.steps_per_second,
        waits=waits if way.wait is None else way.wait,
        undo_seconds=way.undo_seconds,
        most_games=way.games,
        note=f"{game.note}, seed {config.seed}",
    )


def enlarge_screen(screen: np.ndarray) -> Image.Image:
    """A screen `[H, W, 3]` as many times as large as `TALLEST` allows."""
    image = Image.fromarray(screen)
    times = max(1, TALLEST // image.height)
    wide = times + (image.width == 160)  # an Atari's pixels are not square
    return image.resize((image.width * wide, image.height * times), Image.Resampling.NEAREST)


def state_words(games: PersonGames, desk: Desk) -> list[str]:
    """Game, step, player and kept games, in a few words each."""
    number = f"game {games.number}" + (f" of {desk.most_games}" if desk.most_games else "")
    found = [f"{number}, step {games.count:,}"]
    if games.spec.players > 1:
        found.append(f"player {int(games.now.player[0]) + 1} moves")
    if games.done:
        best = max(game.score for game in games.done)
        found.append(f"{len(games.done)} played before, best {best:g}")
    return found


def told(games: PersonGames, is_paused: bool) -> str:
    """What the person should know or do now; empty: nothing."""
    if games.is_over:
        return "game over: Enter begins the next"
    if is_paused:
        start = "a key of an action starts it" if not games.count else "paused: any action goes on"
        return f"{games.message}; {start}" if games.message else start
    return games.message


class DeskPanel:
    """Draws the panel that stands beside a picture."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        sizes = (13, 14, 30)
        self._small, self._plain, self._large = map(ImageFont.load_default, sizes)

    @property
    def least_height(self) -> int:
        """Pixels that all of it needs."""
        keys = self._desk.keys
        lines = min(len(keys.chords), COLUMN) if keys else 0
        return 190 + LINE * lines + 130

    def draw(
        self, games: PersonGames, is_paused: bool, active: int | None, height: int
    ) -> Image.Image:
        """The panel `WIDTH` x `height`; the `active` action is lit."""
        image = Image.new("RGB", (WIDTH, height), BACKGROUND)
        draw, desk = ImageDraw.Draw(image), self._desk
        draw.text((MARGIN, 14), desk.title, FAINT, self._small)
        draw.text((MARGIN, 32), f"{games.score:g}", INK, self._large)
        for at, words in enumerate(state_words(games, desk)):
            draw.text((MARGIN, 72 + 18 * at), words, FAINT, self._small)
        words = textwrap.wrap(told(games, is_paused), 42)[:2]
        for at, line in enumerate(words):
            draw.text((MARGIN, 134 + 18 * at), line, WARM, self._plain)
        if desk.keys is not None:
            self._table(draw, desk.keys, games, active)
        self._rules(draw, height)
        return image

    def _table(
        self, draw: ImageDraw.ImageDraw, keys: KeyMap, games: PersonGames, active: int | None
    ) -> None:
        """Every action and its keys."""
        columns = -(-len(keys.chords) // COLUMN)
        width = (WIDTH - 2 * MARGIN) // columns
        for action, label in enumerate(keys.labels):
            column, line = divmod(action, COLUMN)
            left, top = MARGIN + width * column, 184 + LINE * line
            ink = FAINT if games.invalid[action] else INK
            if action == active:
                box = (left - 6, top - 1, left + width - 8, top + LINE - 3)
                draw.rounded_rectangle(box, 4, ACCENT)
                ink = BACKGROUND
            shown = keys.shown(action)
            if action == keys.idle and not self._desk.waits:
                shown = "no key"
            most = 20 if columns == 1 else 10
            draw.text((left, top), label[:most], ink, self._plain)
            draw.text((left + width * 11 // 24, top), shown, ink, self._plain)

    def _rules(self, draw: ImageDraw.ImageDraw, height: int) -> None:
        """The keys that are no actions."""
        desk = self._desk
        rules = [
            *([] if desk.waits else [("P", "pause")]),
            ("Backspace", desk.undo_words),
            ("Enter", "next game"),
            ("Esc", "end, and keep what was played"),
        ]
        top = height - 14 - 19 * len(rules)
        draw.line((MARGIN, top - 9, WIDTH - MARGIN, top - 9), FAINT)
        for at, (key, words) in enumerate(rules):
            draw.text((MARGIN, top + 19 * at), key, INK, self._small)
            draw.text((MARGIN + 82, top + 19 * at), words, FAINT, self._small)
