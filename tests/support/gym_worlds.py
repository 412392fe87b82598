"""Small Gymnasium environments, named `tests.support.gym_worlds:Corridor-v0` and so on."""

import io
import logging
import os
import signal
import sys

import gymnasium
import jax
import numpy as np
from gymnasium import spaces


class Corridor(gymnasium.Env):
    """Walks on 0..length-1 from a random cell; action 3 is left, 4 is right, 5 stays and is masked.

    The end at the right pays 1 and ends the game; each step pays a random fraction of 0.1;
    `pay` multiplies both.
    """

    def __init__(self, length: int = 6, spoil: str = "", seed: int = 0, pay: float = 1.0):
        del seed
        if spoil == "init":
            sys.exit(4)
        self.length, self.spoil, self.pay = length, spoil, pay
        self.observation_space = spaces.Dict(
            {"z": spaces.Box(-1, 1, (2,), np.float64), "cell": spaces.Discrete(length, start=2)}
        )
        self.action_space = spaces.Discrete(3, start=3)

    def _seen(self):
        noise = self.np_random.uniform(-1, 1, 2)
        if self.spoil == "nan":
            noise[1] = np.nan
        mask = np.array([self.cell > 0, True, False], np.int8)
        return {"z": noise, "cell": np.int64(2 + self.cell)}, {"action_mask": mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = int(self.np_random.integers(0, self.length - 1))
        return self._seen()

    def step(self, action):
        assert self.action_space.contains(action), action
        assert action != 5 and not (action == 3 and self.cell == 0), "an invalid move was played"
        self.cell += {3: -1, 4: 1}[int(action)]
        done = self.cell == self.length - 1
        if self.spoil == "step" and done:
            raise KeyError("spoilt\nin two lines")
        reward = self.pay * (float(done) + 0.1 * self.np_random.uniform())
        return *((seen := self._seen())[:1]), reward, done, False, seen[1]


class Odd(gymnasium.Env):
    """Whatever spaces are asked for."""

    def __init__(self, action: str = "box", observation: str = "box"):
        box = spaces.Box(-1, 1, (2,))
        kinds = {"box": box, "text": spaces.Text(5), "open": spaces.Box(-np.inf, 1, (2,))}
        self.action_space = kinds.get(action, spaces.Discrete(2))
        self.observation_space = box if observation == "box" else spaces.Text(5)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}


class Many(gymnasium.Env):
    """More actions than a macro's key can hold; the same as the last one pays."""

    def __init__(self, actions: int = 1000):
        self.action_space = spaces.Discrete(actions)
        self.observation_space = spaces.Box(0, 1, (1,))

    def reset(self, *, seed=None, options=None):
        self.last = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        paid, self.last = float(action == self.last), action
        return np.full(1, action / self.action_space.n, np.float32), paid, False, False, {}


class Agents(gymnasium.Env):
    """Gives each of two agents its own of something."""

    def __init__(self, several: str = "reward"):
        self.several = several
        self.action_space, self.observation_space = spaces.Discrete(2), spaces.Box(0, 1, (3,))

    def reset(self, *, seed=None, options=None):
        return np.zeros((2, 3) if self.several == "observation" else 3, np.float32), {}

    def step(self, action):
        rewards = {"reward": np.zeros(2), "names": {"a": 0.0, "b": 0.0}}
        terminated = {"a": False, "b": False} if self.several == "terminated" else False
        truncated = np.zeros(2, bool) if self.several == "truncated" else False
        return self.reset()[0], rewards.get(self.several, 0.0), terminated, truncated, {}


class Views(gymnasium.Env):
    """Moving pictures 20 high and 24 wide, in several forms; action 1 is masked in a Dict."""

    def __init__(self, form: str = "last"):
        self.form, self.action_space = form, spaces.Discrete(3)
        shape = {
            "first": (4, 20, 24), "last": (20, 24, 4), "rgba": (20, 24, 4), "planes": (20, 24, 4),
            "colours": (4, 20, 24, 3), "channels": (20, 24, 12),
        }.get(form, (20, 24, 3))  # fmt: skip
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        if form == "masked":
            bits = spaces.Box(0, 1, (3,), np.int8)
            inner = {"action_mask": bits, "picture": self.observation_space}
            self.observation_space = spaces.Dict(inner)

    def picture(self, at):
        return np.random.default_rng(at).integers(0, 256, (20, 24, 3), np.uint8)

    def _seen(self):
        now = [self.picture(max(at, 0)) for at in range(self.at - 3, self.at + 1)]
        if self.form == "masked":
            return {"picture": now[-1], "action_mask": np.array([1, 0, 1], np.int8)}
        if self.form == "rgba":
            return np.concatenate([now[-1], np.full((20, 24, 1), 255, np.uint8)], axis=-1)
        if self.form == "planes":
            return np.stack([now[-1][..., 0] // (plane + 1) for plane in range(4)], axis=-1)
        if self.form == "colours":
            return np.stack(now)
        if self.form == "channels":
            return np.concatenate(now, axis=-1)
        return np.stack([x[..., 0] for x in now], axis=0 if self.form == "first" else -1)

    def reset(self, *, seed=None, options=None):
        self.at = 0
        return self._seen(), {}

    def step(self, action):
        assert self.form != "masked" or action != 1, "an invalid move was played"
        self.at += 1
        return self._seen(), 0.0, False, False, {}


class Rude(gymnasium.Env):
    """Disturbs the process wherever it is called outside of a step; `in_step` only there."""

    def __init__(self, how: str = "close", in_step: str = ""):
        self.how, self.in_step = "" if in_step else how, how
        self.action_space, self.observation_space = spaces.Discrete(2), spaces.Box(0, 1, (3,))
        self._disturb()

    def _disturb(self):
        if self.how == "signals":
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        elif self.how == "folder":
            os.chdir("/")
        elif self.how == "logging":
            logging.disable(logging.CRITICAL)
            logging.root.setLevel(logging.DEBUG)
            logging.root.addHandler(logging.NullHandler())
        elif self.how == "jax":
            jax.config.update("jax_enable_x64", True)
        elif self.how == "numpy":
            np.seterr(all="raise")
        elif self.how == "output":
            sys.stdout = io.StringIO()

    def reset(self, *, seed=None, options=None):
        self._disturb()
        return np.zeros(3, np.float32), {}

    def step(self, action):
        if not self.how:
            self.how = self.in_step
            self._disturb()
            self.how = ""
            return np.zeros(3, np.float32), 0.0, False, False, {}
        return np.zeros(3, np.float32), 0.0, True, False, {}

    def close(self):
        self._disturb()
        if self.how == "close":
            raise OSError("it\ndoes not close")


class Masked(gymnasium.Env):
    """Action 1 of 3 is never valid, as a mask by some name says."""

    def __init__(self, key: str = "mask", where: str = "observation", form: str = "bits"):
        self.key, self.where, self.form = key, where, form
        self.action_space = spaces.Discrete(3)
        bits = {
            "bits": spaces.MultiBinary(3), "int8": spaces.Box(0, 1, (3,), np.int8),
            "bool": spaces.Box(0, 1, (3,), np.bool_), "box": spaces.Box(0, 1, (3,)),
            "long": spaces.Box(0, 1, (4,), np.int8), "wide": spaces.Box(-1, 1, (3,)),
        }[form]  # fmt: skip
        inner = {"x": spaces.Box(0, 1, (2,))}
        inner |= {key: bits} if where == "observation" else {}
        self.observation_space = spaces.Dict(inner)

    def _seen(self):
        mask = np.array({"long": [1, 0, 1, 1], "wide": [1, -1, 1]}.get(self.form, [1, 0, 1]))
        x = {"x": np.zeros(2, np.float32)}
        if self.where == "info":
            return x, {self.key: mask}
        return {**x, self.key: mask.astype(self.observation_space[self.key].dtype)}, {}

    def reset(self, *, seed=None, options=None):
        return self._seen()

    def step(self, action):
        assert action != 1 or self.form in ("long", "wide"), "an invalid move was played"
        seen, info = self._seen()
        return seen, 0.0, False, False, info


class Composed(gymnasium.Env):
    """Three steps whose actions have several parts, which only together are good.

    Of `dials`, three numbers, each triple pays what a fixed random table says; of `mixed`, a choice
    and a number, the choice says where the number pays most. What is done leads to the next of four
    states. How many steps are done is seen, too: enumeration's optimum depends on it.
    """

    STATES, STEPS = 4, 3

    def __init__(self, kind: str = "dials"):
        draw, self.kind = np.random.default_rng(7), kind
        self.observation_space = spaces.MultiDiscrete([self.STATES, self.STEPS + 1])
        if kind == "dials":
            self.action_space = spaces.MultiDiscrete([4, 5, 3])
            self.table = draw.random((self.STATES, 4, 5, 3))
        else:
            number = spaces.Box(-1, 1, (1,))
            self.action_space = spaces.Tuple((spaces.Discrete(3, start=1), number))
            self.most = draw.uniform(0.2, 1, (self.STATES, 3))
            self.place = draw.uniform(-1, 1, (self.STATES, 3))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.done = int(self.np_random.integers(self.STATES)), 0
        return self._seen(), {}

    def _seen(self):
        return np.array([self.state, self.done])

    def result(self, state, action):
        """Reward and next state; a pure function."""
        if self.kind == "dials":
            first = int(action[0])
            return float(self.table[(state, *action)]), (state + first) % self.STATES
        choice, number = int(action[0]) - 1, float(action[1][0])
        paid = self.most[state, choice] - (number - self.place[state, choice]) ** 2
        return float(paid), (state + choice) % self.STATES

    def step(self, action):
        assert self.action_space.contains(action), action
        reward, self.state = self.result(self.state, action)
        self.done += 1
        return self._seen(), reward, self.done == self.STEPS, False, {}

    def every_action(self):
        """All of `dials`; of `mixed` a thousand numbers for each choice."""
        if self.kind == "dials":
            return [np.array(x) for x in np.ndindex(4, 5, 3)]
        numbers = np.linspace(-1, 1, 1001, dtype=np.float32)
        return [(np.int64(1 + i), x[None]) for i in range(3) for x in numbers]

    def optimum(self):
        """The best mean return, by enumeration of every action in every state."""
        value = np.zeros(self.STATES)
        for _ in range(self.STEPS):
            found = [[self.result(s, a) for a in self.every_action()] for s in range(self.STATES)]
            value = np.array([max(r + value[after] for r, after in row) for row in found])
        return value.mean()


gymnasium.register("Composed-v0", Composed)
gymnasium.register("Agents-v0", Agents)
gymnasium.register("Masked-v0", Masked)
gymnasium.register("Views-v0", Views)
gymnasium.register("Rude-v0", Rude)
gymnasium.register("Many-v0", Many, max_episode_steps=9)
gymnasium.register("Corridor-v0", Corridor, max_episode_steps=9)
gymnasium.register("Odd-v0", Odd)
