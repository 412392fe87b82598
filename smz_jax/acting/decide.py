"""From observations to actions: the searched or the bare policy, jitted."""

from collections.abc import Callable
from typing import Literal

import jax

from smz_jax.config.settings import Config
from smz_jax.config.training import RolloutConfig
from smz_jax.model import steps
from smz_jax.search.policy import make_prior_policy, make_search
from smz_jax.types import Array, Decision, EnvSpec, Networks, Params


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
    networks: Networks, config: Config, spec: EnvSpec, *, policy: Literal["search", "prior"]
) -> Callable[..., Decision]:
    """The jitted decision for a pool of lanes.

    Args:
        networks: the model.
        config: the run's settings.
        spec: the environment.
        policy: by the tree, or by the bare policy head.

    Returns:
        `(params, rng_key, count, observation, invalid_actions, temperature, epsilon, noise)
        -> Decision`; `count` is folded into the key, so that the caller keeps one key for the
        whole run. Training and evaluation share one compilation: `noise` is 1 or 0.
    """
    search = make_search(networks, config, spec)
    prior_policy = make_prior_policy(networks, config.search.q_epsilon)

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

    return jax.jit(decide)
