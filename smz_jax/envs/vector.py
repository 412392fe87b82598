"""One vector environment for every library whose games reset themselves at their next step."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from smz_jax.config.settings import EnvConfig
from smz_jax.envs.frames import push_frame
from smz_jax.envs.protocol import GameFault, RestingEnv, check_actions
from smz_jax.envs.undisturbed import close, undisturbed
from smz_jax.types import EnvSpec, Space, Timestep


class LaneStep(NamedTuple):
    """What a library gives after a reset or a step; free of its own names and types.

    After a reset only frame, mask and lives count.
    """

    frame: np.ndarray  # [B, *frame_shape] newest frame, not written to later
    reward: np.ndarray = np.zeros(1, np.float32)  # [B] raw; of P > 2 players [B, P] by seat
    terminated: np.ndarray = np.zeros(1, np.bool_)  # [B] bool, the game is over
    truncated: np.ndarray | None = None  # [B] bool, its time limit is reached; None: it has none,
    #                                      and the settings' is counted by `LanesVectorEnv`
    valid_actions: np.ndarray | None = None  # [B, A] bool; None: all are
    lives: np.ndarray | None = None  # [B] int32, lives left; None: the game has none
    player: np.ndarray | None = None  # [B] int32, who moves now, the reward is of who moved before;
    #                                   None: there is one player


class Lanes:
    """B games of a library; a lane whose game is over resets at its next step.

    Here those of a pool with envpool's calls, which ale-py's vectors have too; lanes of another
    kind have their own of all methods.
    """

    def __init__(
        self,
        pool: Any,
        seen: Callable[[Any, dict[str, Any]], LaneStep],
        rebuild: Callable[[np.ndarray], Any] = lambda actions: actions,
    ) -> None:
        """Takes an open pool whose batch holds every lane, so that it is in lane order.

        Args:
            pool: of envpool's kind.
            seen: frame, mask and lives of its observation and info.
            rebuild: from actions `[B]` to what the pool takes.
        """
        self._pool, self._seen, self._rebuild = pool, seen, rebuild

    def reset(self) -> LaneStep:
        """Starts a new game in every lane."""
        self._last = self._seen(*self._pool.reset())
        self._ended = np.zeros(len(self._last.frame), np.bool_)
        return self._last

    def send(self, actions: np.ndarray, over: np.ndarray, resting: np.ndarray) -> None:
        """Starts a step of every lane.

        Args:
            actions: `[B]` int32, checked: in 0..A-1; a lane that resets ignores its own.
            over: `[B]` bool, lanes whose game is over or cut off, or that rested: they reset.
            resting: `[B]` bool, lanes that need no step: nobody reads what they show.
        """
        self._begins = over & ~self._ended & ~resting  # else the pool resets by itself
        self._steps = np.flatnonzero(~self._begins & ~resting)
        if self._steps.size:
            self._pool.send(self._rebuild(actions[self._steps]), self._steps)

    def recv(self) -> LaneStep:
        """Waits for the step that was sent; in lane order."""
        last, no = self._last, np.zeros(len(self._ended), np.bool_)
        if self._steps.size == len(no):
            step = self._recv()
        else:
            mask, lives = (x if x is None else x.copy() for x in (last.valid_actions, last.lives))
            step = LaneStep(last.frame.copy(), no.astype(np.float32), no, no.copy(), mask, lives)
            if self._steps.size:
                _put(step, self._steps, self._recv())
            if self._begins.any():
                lanes = np.flatnonzero(self._begins)
                _put(step, lanes, self._seen(*self._pool.reset(lanes)))
        self._last, self._ended = step, step.terminated | step.truncated
        return step

    def _recv(self) -> LaneStep:
        """What the pool gives of the lanes that it steps."""
        observation, reward, terminated, truncated, info = self._pool.recv()
        step = self._seen(observation, info)
        # Of Atari the library's own flag hides an end that falls on the time limit.
        ended = terminated if step.lives is None else info["terminated"].astype(np.bool_)
        return step._replace(reward=reward, terminated=ended, truncated=truncated)

    def close(self) -> None:
        """Frees the games."""
        self._pool.close()


def _put(whole: LaneStep, lanes: np.ndarray, step: LaneStep) -> None:
    """Writes what some lanes show into arrays of all."""
    for array, part in zip(whole, step, strict=True):
        if array is not None and part is not None:
            array[lanes] = part


def describe(
    config: EnvConfig, frame_shape: tuple[int, ...], dtype: Any, actions: Space | Iterable[str]
) -> EnvSpec:
    """The spec of an environment, whose name and stack are those of the settings.

    `actions` are their names, where an action is one choice. Bits are numbers where a mark stands
    before them, which no bit can hold.
    """
    if not isinstance(actions, Space):
        names = tuple(actions)
        actions = Space(len(names), names)
    is_bits = np.dtype(dtype) == np.bool_
    return EnvSpec(
        name=config.id,
        frame_shape=frame_shape,
        context=config.frame_stack,
        frame_dtype=np.dtype(np.int8 if is_bits and config.mark_start else dtype),
        action_space=actions,
        frames_per_step=config.frames_per_step,
        is_marked=config.mark_start,
    )


def fire_index(config: EnvConfig, spec: EnvSpec) -> int | None:
    """Index of FIRE, or None where it is not to be pressed or the game has none."""
    names = spec.action_names
    return names.index("FIRE") if config.fire_on_life_loss and "FIRE" in names else None


_STANDING = ("_stack", "_elapsed", "_game_over", "_lives", "_invalid", "_player", "_in_flight")
"""What a `LanesVectorEnv` knows of its games; each step makes new arrays."""


class LanesVectorEnv(RestingEnv):
    """`Lanes` behind the protocol of `VectorEnv`.

    An action that the game itself says is invalid is replaced by the lowest valid one, so that a
    constant policy can be played; the search never gives one.

    Where the games have lives, as in Atari, a lost one may end the episode (`episodic_life`), FIRE
    is the only valid action after it (`fire_on_life_loss`), and rewards may be clipped.
    """

    def __init__(
        self, lanes: Lanes, spec: EnvSpec, config: EnvConfig, num_envs: int, training: bool
    ) -> None:
        """Takes open games of `num_envs` lanes that match `spec`."""
        self.spec, self.num_envs = spec, num_envs
        self._lanes: Lanes | None = lanes
        self._episodic_life = config.episodic_life and training
        self._clip_rewards = config.clip_rewards and training
        self._fire, self._limit = fire_index(config, spec), config.max_episode_steps
        self._lives = np.zeros(num_envs, np.int32)
        self._resting = np.zeros(num_envs, np.bool_)
        self._in_flight = False
        self._invalid: np.ndarray | None = None
        self._player = np.zeros(num_envs, np.int32)

    def reset(self) -> Timestep:
        """Starts a new game in every lane; see `VectorEnv.reset`."""
        lanes = self._open(not self._in_flight, "reset() before the step sent was received")
        self._stack, self._elapsed = None, np.zeros(self.num_envs, np.int64)
        self._game_over = np.ones(self.num_envs, np.bool_)
        with undisturbed(self.spec.name):
            first = lanes.reset()
        return self._timestep(first)

    def restart(self, lanes: Lanes | None = None) -> Timestep:
        """Resets also in the middle of a step; `lanes` take the place of those that were open."""
        if lanes is not None:
            former, self._lanes = self._lanes, lanes
            close(former, self.spec.name)
        self._in_flight = False
        return self.reset()

    def bookmark(self) -> Callable[[], None]:
        """Gives a function that sets all but the lanes themselves to what it is now."""
        now = {name: getattr(self, name) for name in _STANDING}
        return lambda: vars(self).update(now)

    def send(self, actions: np.ndarray) -> None:
        """Starts a step of every lane; see `VectorEnv.send`."""
        self._open(self._invalid is not None, "send() before reset()")
        lanes = self._open(not self._in_flight, "send() before the step sent was received")
        assert self._invalid is not None
        actions = check_actions(actions, self.num_envs, self.spec.num_actions)
        if len(self.spec.action_space.sizes) == 1:  # else nothing is ever invalid
            forbidden = self._invalid[np.arange(self.num_envs), actions] > 0
            actions = np.where(forbidden, self._invalid.argmin(axis=1), actions).astype(np.int32)
        lanes.send(actions, self._game_over, self._resting)
        self._in_flight = True

    def rest(self, lanes: np.ndarray) -> None:
        """Says which lanes nobody plays from now on; see `RestingEnv.rest`."""
        self._resting, self._game_over = lanes.copy(), self._game_over | lanes

    def recv(self) -> Timestep:
        """Waits for the step that was sent; see `VectorEnv.recv`."""
        lanes = self._open(self._in_flight, "recv() without send()")
        self._in_flight = False
        return self._timestep(lanes.recv())

    def close(self) -> None:
        """Frees the games; see `VectorEnv.close`."""
        lanes, self._lanes = self._lanes, None
        if lanes is not None:
            close(lanes, self.spec.name)

    def _open(self, in_turn: bool, message: str) -> Lanes:
        if self._lanes is None or not in_turn:
            raise RuntimeError(message if self._lanes else "the environment is closed")
        return self._lanes

    def _timestep(self, step: LaneStep) -> Timestep:
        is_first = self._game_over
        self._check_finite("observation", step.frame)
        self._check_finite("reward", step.reward)
        given = step.reward.astype(np.float32)
        raw = reward = np.where(
            is_first if given.ndim == 1 else is_first[:, None], np.float32(0), given
        )
        if step.player is not None:
            if reward.ndim == 2:
                reward = reward[np.arange(self.num_envs), self._player]
            else:
                raw = np.where(self._player == 0, reward, -reward)
            self._player = step.player.astype(np.int32)
        self._elapsed = np.where(is_first, 0, self._elapsed + 1)
        terminated = step.terminated & ~is_first
        cut = self._elapsed >= self._limit if step.truncated is None else step.truncated
        truncated = cut & ~terminated & ~is_first
        game_over = terminated | truncated
        invalid = np.zeros((self.num_envs, self.spec.num_options), np.float32)
        if step.valid_actions is not None:
            # A game without any valid move is over, or its mask says nothing.
            some = step.valid_actions.any(axis=1, keepdims=True)
            invalid[some & ~step.valid_actions.astype(np.bool_)] = 1
        if step.lives is not None:
            life_lost = (step.lives < self._lives) & ~is_first & ~terminated
            self._lives = step.lives
            if self._fire is not None:
                must_fire = life_lost & ~game_over
                invalid[must_fire] = 1
                invalid[must_fire, self._fire] = 0
            terminated = terminated | (life_lost & self._episodic_life)
            truncated = truncated & ~terminated
            reward = np.sign(reward) if self._clip_rewards else reward
        frame, layout = step.frame, (self.spec.context, self.spec.is_marked)
        frame = frame.astype(self.spec.frame_dtype, copy=False)
        self._stack = push_frame(self._stack, frame, is_first, *layout)
        # Copies: who writes into what was given changes nothing in the game.
        self._game_over, self._invalid = game_over | self._resting, invalid.copy()
        return Timestep(
            observation=self._stack,
            reward=reward,
            raw_reward=raw,
            terminated=terminated,
            truncated=truncated,
            game_over=game_over,
            is_first=is_first,
            invalid_actions=invalid,
            player=self._player.copy(),
        )

    def _check_finite(self, what: str, values: np.ndarray) -> None:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            rows = ~np.isfinite(values).reshape(self.num_envs, -1).all(axis=1)
            lane = int(np.flatnonzero(rows)[0])
            raise GameFault(
                f"env.id = {self.spec.name!r} is not allowed: its {what} must be finite numbers; "
                f"lane {lane} gave one that is not"
            )
