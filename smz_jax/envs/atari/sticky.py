"""What the emulator itself says of stored Breakout steps: where chance can show, and how much.

Under sticky actions (ALE: at each *frame* the action before is repeated with probability p) a step
of `frame_skip` frames has `frame_skip` + 1 courses: the new action begins after d = 0, 1, ...
frames. A step is random where these courses end in different frames. Played out by the emulator,
this also knows what the actions alone do not tell: RIGHT at the right wall does what NOOP does.
"""

from collections.abc import Sequence
from typing import NamedTuple

import ale_py
import numpy as np

from smz_jax.config.check import require
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.atari.ale_backend import open_emulator
from smz_jax.envs.frames import resize_area

PADDLE_X, BALL_Y = 72, 101
"""RAM addresses of Breakout; the ball's is 0 while there is none."""
FRAME_TOLERANCE = 2
"""Grey values; the libraries round a resized frame in their own ways."""


class StickyTruth(NamedTuple):
    """Of each row of a lane, or of lanes `[B, T]`: the step that its action began."""

    in_play: np.ndarray  # [T] bool, the ball is in play before and after
    changed: np.ndarray  # [T] bool, another effect than the action before; NOOP and FIRE are one
    outcomes: np.ndarray  # [T] int32, different frames among the courses; 0: not played out
    entropy: np.ndarray  # [T] float32, nats of the frame's distribution at the played p
    paddle: np.ndarray  # [T] int32, RAM x before the step
    frame_error: np.ndarray  # [T] int32, grey values off the stored frame at most; 0: not compared


def effect(action_names: Sequence[str]) -> np.ndarray:
    """The class of each action's effect while the ball is in play: FIRE is NOOP then."""
    plain = [name.replace("FIRE", "") or "NOOP" for name in action_names]
    return np.array([plain.index(name) for name in plain], np.int32)


def course_probs(sticky: float, frame_skip: int) -> np.ndarray:
    """P(d): the new action begins after d of `frame_skip` frames; the last entry: not at all."""
    stuck = sticky ** np.arange(frame_skip + 1, dtype=np.float64)
    return stuck * np.append(np.full(frame_skip, 1 - sticky), 1.0)


def play(ale: ale_py.ALEInterface, actions: Sequence[ale_py.Action]) -> np.ndarray:
    """Plays single frames; gives the maximum of the last two, `[210, 160]` uint8."""
    screens = []
    for action in actions:
        ale.act(action)
        screens.append(ale.getScreenGrayscale())
        if ale.game_over():
            break
    return np.maximum(screens[-1], screens[-2]) if len(screens) > 1 else screens[-1]


def sticky_truth(
    config: EnvConfig,
    *,
    lane_seed: int,
    frames: np.ndarray,
    actions: np.ndarray,
    is_first: np.ndarray,
    action_names: Sequence[str],
    first_row: int,
) -> StickyTruth:
    """Replays a lane in an emulator of the same seed, and plays out the courses of its steps.

    The action before counts as the one that was begun; that it never began (p^frame_skip of the
    steps, 0.4 % at 0.25) is neglected.

    Args:
        config: the lane's settings, Breakout from FIRE on and without no-ops.
        lane_seed: of the emulator.
        frames: `[T, H, W]` the lane's stored frames.
        actions: `[T]`.
        is_first: `[T]` bool.
        action_names: of the minimal set.
        first_row: courses and frames are compared from this row on (a replay that went astray
            before shows other frames ever after); the replay begins at the first.

    Raises:
        ConfigError: if the emulator shows other frames than the stored ones.
    """
    player = _Player(config, lane_seed, action_names)
    rows = []
    for row, (frame, action, first) in enumerate(zip(frames, actions, is_first, strict=True)):
        ends = row + 1 == len(actions) or bool(is_first[row + 1])
        rows.append(player.row(frame, int(action), bool(first), ends, row >= first_row))
    dtypes = (np.bool_, np.bool_, np.int32, np.float32, np.int32, np.int32)
    truth = StickyTruth(*map(np.array, zip(*rows, strict=True), dtypes))
    worst = int(truth.frame_error.max())
    allowed = "those of the emulator with the lane's seed"
    require(worst <= FRAME_TOLERANCE, "stored frames", f"{worst} grey values off", allowed)
    return truth


class _Player:
    """One lane's emulator, and another one without sticky actions that plays out the courses."""

    def __init__(self, config: EnvConfig, seed: int, names: Sequence[str]) -> None:
        self._ale = open_emulator("breakout", config.sticky, seed)
        self._other = open_emulator("breakout")
        self._actions = list(self._ale.getMinimalActionSet())
        self._skip, self._probs = config.frame_skip, course_probs(config.sticky, config.frame_skip)
        self._effect = effect(names)
        self._before = self._fire = names.index("FIRE")
        self._screen = np.zeros((210, 160), np.uint8)

    def row(
        self, frame: np.ndarray, action: int, is_first: bool, ends: bool, compare: bool
    ) -> tuple[bool, bool, int, float, int, int]:
        """One row as `StickyTruth` has it; plays its action unless the game is over."""
        ale = self._ale
        if is_first:
            ale.reset_game()
            ale.act(self._actions[self._fire])
            self._screen, self._before = ale.getScreenGrayscale(), self._fire
        error = 0
        # The libraries merge the final frame of a game with different older ones.
        if compare and not ale.game_over():
            small = resize_area(self._screen, len(frame))
            error = int(np.abs(small.astype(np.int32) - frame).max())
        ram = ale.getRAM()
        paddle, ball = int(ram[PADDLE_X]), int(ram[BALL_Y])
        if ends:
            return False, False, 0, 0.0, paddle, error
        changed = bool(self._effect[action] != self._effect[self._before])
        courses = self.courses(action) if compare and ball else {}
        probs = np.array(list(courses.values()), np.float64)
        entropy = float(-np.sum(probs * np.log(np.maximum(probs, 1e-300))))
        self._screen = play(ale, [self._actions[action]] * self._skip)
        self._before = action
        in_play = ball != 0 and int(ale.getRAM()[BALL_Y]) != 0
        return in_play, changed, len(probs), entropy, paddle, error

    def courses(self, action: int) -> dict[bytes, float]:
        """End frames of the action's courses from here on, and the probability of each."""
        state, old, new = self._ale.cloneState(), self._actions[self._before], self._actions[action]
        chances: dict[bytes, float] = {}
        for delay, chance in enumerate(self._probs):
            self._other.restoreState(state)
            screen = play(self._other, [old] * delay + [new] * (self._skip - delay)).tobytes()
            chances[screen] = chances.get(screen, 0.0) + float(chance)
        return chances
