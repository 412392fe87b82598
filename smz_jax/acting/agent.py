"""Agents that act on observations: the trained one, random, constant."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from smz_jax.types import Decision, Params, Timestep

ActFn = Callable[[Timestep, int], np.ndarray]
"""`(timestep, step count) -> actions [B]`."""


class Agent:
    """The searched policy, greedy and without noise; counts what its searches complain of.

    Args:
        decide: as `make_decide` gives it with policy `search`.
        params: the model's parameters.
        seed: of the searches.
        temperature: of the draw among actions; 0 is greedy.
        noise: 1: the root's noise is on, as in training.
    """

    def __init__(
        self,
        decide: Callable[..., Decision],
        params: Params,
        seed: int,
        *,
        temperature: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        self._decide, self._params, self._key = decide, params, jax.random.key(seed)
        self._exploration = (np.float32(temperature), np.float32(0.0), np.float32(noise))
        self.decision: Decision | None = None  # the last one, on the device
        self.faults = self.all_invalid = 0  # as in `SearchOutput`, summed over all searches so far

    def __call__(self, timestep: Timestep, count: int) -> np.ndarray:
        """Actions `[B]` of step `count`."""
        decision = self._decide(
            self._params,
            self._key,
            np.int32(count),
            timestep.observation,
            timestep.invalid_actions,
            *self._exploration,
        )
        self.decision = decision
        search = decision.search
        action, faults, all_invalid = jax.device_get(
            (search.action, search.faults, search.all_invalid)
        )
        self.faults += int(faults.sum())
        self.all_invalid += int(all_invalid.sum())
        return action


def make_agent(decide: Callable[..., Decision]) -> Callable[[Params, int], Agent]:
    """`(params, seed) -> Agent`, given `decide` as `make_decide` gives it with policy `search`."""
    return functools.partial(Agent, decide)


def make_random_policy(seed: int) -> ActFn:
    """Uniform over the valid actions."""
    generator = np.random.default_rng(seed)

    def act(timestep: Timestep, count: int) -> np.ndarray:
        del count
        scores = generator.random(timestep.invalid_actions.shape) - 2.0 * timestep.invalid_actions
        return scores.argmax(axis=1).astype(np.int32)

    return act


def make_constant_policy(action: int) -> ActFn:
    """Always the same action; the environment overrides it where only another one is valid."""

    def act(timestep: Timestep, count: int) -> np.ndarray:
        del count
        return np.full(len(timestep.reward), action, np.int32)

    return act
