"""From observations to actions: the jitted decision, and the agents that act by it or by chance."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from smz_jax.config.settings import Config
from smz_jax.config.training import RolloutConfig
from smz_jax.model import steps
from smz_jax.model.actions import slices
from smz_jax.model.lanes import LANES, WHOLE, count_devices, over_lanes
from smz_jax.search.root_search import make_prior_policy, make_search
from smz_jax.types import Array, Decision, EnvSpec, Networks, Params, Timestep, strides

ActFn = Callable[[Timestep, int], np.ndarray]
"""`(timestep, step count) -> actions [B]`."""


def scheduled(start: float, end: float, progress: float, kind: str) -> float:
    """A schedule's value.

    Args:
        start: value at the start, at least 0.
        end: value at the end.
        progress: share of the schedule that is over; clipped to [0, 1].
        kind: `linear`, or `exponential` (a constant factor; an end of 0 counts as 0.001).
    """
    progress = min(max(progress, 0.0), 1.0)
    if kind == "exponential" and start > 0:
        return start * (max(end, 1e-3) / start) ** progress
    return start + progress * (end - start)


def exploration(settings: RolloutConfig, progress: float) -> tuple[float, float]:
    """Temperature and epsilon after `progress` (0..1) of the run."""
    share = progress / settings.schedule_fraction
    return (
        scheduled(settings.temperature, settings.temperature_end, share, settings.schedule),
        scheduled(settings.epsilon, settings.epsilon_end, share, settings.schedule),
    )


def make_decide(
    networks: Networks,
    config: Config,
    spec: EnvSpec,
    *,
    policy: Literal["search", "prior"],
    mesh: Mesh | None = None,
) -> Callable[..., Decision]:
    """The jitted decision for a pool of lanes, by the tree or by the bare policy head.

    Each device of the `mesh` decides for its own lanes; where lanes do not divide by devices, as
    an evaluation's may, each for all of them.

    Returns:
        `(params, rng_key, count, observation, invalid_actions, temperature, epsilon, noise)
        -> Decision`; `count` is folded into the key, so that the caller keeps one key for the
        whole run. Training and evaluation share one compilation: `noise` scales the root's noise.
    """
    search = make_search(networks, config, spec)
    prior_policy = make_prior_policy(networks, config.search, spec.action_space)

    def decide(
        params: Params,
        rng_key: Array,
        count: Array,
        observation: Array,
        invalid_actions: Array,
        temperature: Array,
        epsilon: Array,
        noise: Array,
    ) -> Decision:
        key = jax.random.fold_in(rng_key, count)
        embedding = networks.representation(params, observation)
        if policy == "prior":
            output = prior_policy(params, key, embedding, invalid_actions, temperature, epsilon)
        else:
            output = search(params, key, embedding, invalid_actions, temperature, noise)
        # Of the model itself, since the search may never have expanded the action that was drawn.
        afterstate = steps.decide(networks, params, embedding, output.action)
        chance_logits, bad_logits = steps.finite_logits(afterstate.logits)
        output = output._replace(faults=output.faults + bad_logits)
        return Decision(output, embedding, steps.normalised_entropy(chance_logits))

    given = (*[WHOLE] * 3, LANES, LANES, *[WHOLE] * 3)
    on_devices = over_lanes(decide, mesh, given, LANES)

    def decide_where(params: Params, rng_key: Array, count: Array, observation: Array, *rest: Any):
        divides = observation.shape[0] % count_devices(mesh) == 0
        return (on_devices if divides else decide)(params, rng_key, count, observation, *rest)

    return jax.jit(decide_where)


class Agent:
    """Plays by a decision, greedily unless told otherwise; counts what searches complain of.

    Args:
        decide: as `make_decide` gives it with policy `search`.
        params: the model's parameters.
        seed: of the searches.
        temperature: of the draw among actions; 0 is greedy.
        noise: scale of the root's noise; 0: none, 1: as in training.
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
        self.decision = self._decide(
            self._params,
            self._key,
            np.int32(count),
            timestep.observation,
            timestep.invalid_actions,
            *self._exploration,
        )
        search = self.decision.search
        found = jax.device_get((search.action, search.faults, search.all_invalid))
        self.faults += int(found[1].sum())
        self.all_invalid += int(found[2].sum())
        return found[0]


def make_random_policy(seed: int, sizes: tuple[int, ...] = ()) -> ActFn:
    """Uniform over the valid actions; `sizes` are those of an action's parts, if it has several."""
    generator = np.random.default_rng(seed)

    def act(timestep: Timestep, _: int) -> np.ndarray:
        scores = generator.random(timestep.invalid_actions.shape) - 2.0 * timestep.invalid_actions
        each = sizes or scores.shape[1:]
        options = [scores[:, part].argmax(axis=1) for part in slices(each)]
        return (np.stack(options, axis=1) @ strides(each)).astype(np.int32)

    return act


def make_constant_policy(action: int) -> ActFn:
    """Always the same action; the environment overrides it where only another one is valid."""
    return lambda timestep, _: np.full(len(timestep.reward), action, np.int32)
