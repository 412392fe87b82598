"""All checks of a model of the grid world, from a run's parameters and its replay."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.analysis.rules.known_rules import (
    open_loop_errors,
    pair_entropies,
    rules_check,
    transition_codes,
    unroll_errors,
)
from smz_jax.config.settings import Config
from smz_jax.envs.grid.grid_env import grid_observations, states_of
from smz_jax.envs.grid.map import read_options
from smz_jax.envs.grid.rules import (
    NUM_ACTIONS,
    GridRules,
    make_rules,
    mean_reward,
    optimal_values,
    reachable,
    sample_paths,
    state_distributions,
    true_entropy,
)
from smz_jax.model.steps import predict
from smz_jax.types import Networks, Params, Trajectory

NUM_SEQUENCES, NUM_STEPS, NUM_SAMPLES = 1024, 5, 64
WARM_STEPS = 64
"""The sequences start where a player is after up to so many steps."""
RANDOM_SHARE = 0.25
"""Share of random actions of that player; the others are best where they are chosen."""
MAX_TRANSITIONS = 8192


class Transitions(NamedTuple):
    """Real transitions of the replay, newest last."""

    state: np.ndarray  # [N] int32
    action: np.ndarray  # [N] int32
    after: np.ndarray  # [N] int32, the state after the step


class GridCheck(NamedTuple):
    """What a check found."""

    rules: GridRules
    entropy: np.ndarray  # [S, A] the model's transition entropy in nats
    likely: np.ndarray  # [S, A] the model's most likely code
    visits: np.ndarray  # [S, A] int64
    numbers: dict[str, Any]  # as `rules_check`, and more: see `check_grid`


# Compiled once for each model, so that a run may be checked again and again.
_entropies_of = jax.jit(pair_entropies, static_argnums=0, static_argnames="num_actions")


def replay_rows(replay_state: Any) -> Trajectory:
    """The rows held by a replay state, oldest first: NumPy, `[lanes, rows, ...]`."""
    state = jax.device_get(replay_state)
    index = int(state.current_index)
    if state.is_full:
        return jax.tree.map(lambda x: np.roll(x, -index, axis=1), state.experience)
    return jax.tree.map(lambda x: x[:, :index], state.experience)


def replay_transitions(rows: Trajectory, observations: np.ndarray) -> Transitions:
    """The real transitions of stored rows; the step after a game's end is none.

    `rows` are those of `replay_rows`, `observations [S, ...]` those of each state.
    """
    lanes, length = rows.action.shape
    frames = np.asarray(rows.frame).reshape(lanes * length, *rows.frame.shape[2:])
    states = states_of(frames, observations).reshape(lanes, length)
    # Time first, so that the newest of all lanes come last.
    real = ~np.asarray(rows.is_first)[:, 1:].T
    return Transitions(
        states[:, :-1].T[real], np.asarray(rows.action)[:, :-1].T[real], states[:, 1:].T[real]
    )


def check_pairs(
    networks: Networks, config: Config, params: Params, replay_state: Any
) -> tuple[GridCheck, Transitions]:
    """Checks the transition entropies alone, which is cheap: for the course of a run.

    The run is of the suite grid, one frame in an observation.

    Returns:
        The check, its `numbers` those of `rules_check`; and the stored transitions.
    """
    grid, kind = read_options(config.env)
    rules = make_rules(grid)
    frames = grid_observations(rules, kind)
    stored = replay_transitions(replay_rows(replay_state), frames)
    visits = np.zeros((rules.num_states, NUM_ACTIONS), np.int64)
    np.add.at(visits, (stored.state, stored.action), 1)
    observations = jnp.asarray(frames)[:, None]
    entropy, likely = jax.device_get(
        _entropies_of(networks, params, observations, num_actions=NUM_ACTIONS)
    )
    entropy = entropy.astype(np.float64)
    numbers = rules_check(
        entropy,
        true_entropy(rules),
        reachable=reachable(rules),
        visits=visits,
        codebook_size=config.network.codebook_size,
    )
    return GridCheck(rules, entropy, likely, visits, numbers), stored


def check_grid(
    networks: Networks, config: Config, params: Params, replay_state: Any, seed: int = 0
) -> GridCheck:
    """Checks a model of the grid world against its rules, with one frame in an observation.

    `seed` is that of the action sequences.

    Returns:
        `numbers` holds those of `rules_check`; `agreement` of the encoder's code with the most
        likely one and `code_perplexity`, over the newest stored transitions; `unroll_reward`,
        `unroll_value` and `open_loop_reward`, `open_loop_value`: errors after 1 to NUM_STEPS
        actions of `draw_sequences`, whose outcomes are drawn anew (`unroll_errors`,
        `open_loop_errors`), against V* at the run's gamma; `unroll_own_value` against what the
        model says of the state that was really reached, which leaves out what its values are off
        by anyway (they are those of the policy that played).
    """
    check, stored = check_pairs(networks, config, params, replay_state)
    kind = read_options(config.env)[1]
    observations = jnp.asarray(grid_observations(check.rules, kind))[:, None]
    newest = Transitions(*(x[-MAX_TRANSITIONS:] for x in stored))
    encode = jax.jit(functools.partial(transition_codes, networks))
    codes = np.asarray(
        encode(params, observations[newest.state], newest.action, observations[newest.after])
    )
    used = np.bincount(codes) / len(codes)
    used = used[used > 0]
    likely = check.likely[newest.state, newest.action]
    numbers = {
        **check.numbers,
        "agreement": float(np.mean(codes == likely)),
        "code_perplexity": float(np.exp(-np.sum(used * np.log(used)))),
    }
    numbers |= _sequence_errors(networks, config, params, check.rules, observations, seed)
    return check._replace(numbers=numbers)


def draw_sequences(
    rules: GridRules, generator: np.random.Generator, count: int, action_value: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Action sequences as a good player with some random actions plays them, from where it is.

    They depend on the rules and the generator alone: every model gets the same. Of random
    actions most lead where no good player has been, where every model errs.

    Returns:
        Start states `[count]`, none of them terminal, and actions `[count, NUM_STEPS]` int32.
    """

    def first() -> np.ndarray:
        return generator.choice(rules.num_states, count, p=rules.start)

    state = start = first()
    actions = []
    moment = generator.integers(0, WARM_STEPS, count)
    for step in range(WARM_STEPS + NUM_STEPS):
        if step < WARM_STEPS:  # a game that is over is followed by the next
            state = np.where(rules.terminal[state], first(), state)
            start = np.where(step <= moment, state, start)
        if step == WARM_STEPS:
            state = start
        at_random = generator.random(count) < RANDOM_SHARE
        any_action = generator.integers(0, NUM_ACTIONS, count)
        action = np.where(at_random, any_action, action_value[state].argmax(axis=1))
        actions.append(action.astype(np.int32))
        state = sample_paths(rules, generator, state, action[:, None])[0][:, 1]
    return start, np.stack(actions[WARM_STEPS:], axis=1)


def _sequence_errors(
    networks: Networks,
    config: Config,
    params: Params,
    rules: GridRules,
    observations: jax.Array,
    seed: int,
) -> dict[str, list[float]]:
    """Errors along the action sequences of a seed, with and without the real outcomes."""
    generator = np.random.default_rng(seed)
    values, action_value = optimal_values(rules, config.learner.gamma)
    start, actions = draw_sequences(rules, generator, NUM_SEQUENCES, action_value)
    states, rewards = sample_paths(rules, generator, start, actions)
    means, expected = mean_reward(rules), ([], [])
    for first, sequence in zip(start, actions, strict=True):
        chances = state_distributions(rules, first, sequence)
        rows = chances[:-1] * means[:, sequence].T
        expected[0].append(rows.sum(axis=1))
        expected[1].append(chances[1:] @ values)
    own_value = predict(networks, params, networks.representation(params, observations)).value
    own = np.where(rules.terminal, 0.0, np.asarray(own_value))
    compare = jax.jit(functools.partial(unroll_errors, networks))
    told, told_own = (
        compare(
            params,
            observations[states],
            actions,
            rewards.astype(np.float32),
            reference[states].astype(np.float32),
            (~rules.terminal[states[:, :-1]]).astype(np.float32),
        )
        for reference in (values, own)
    )
    drawn = functools.partial(open_loop_errors, networks, num_samples=NUM_SAMPLES)
    untold = jax.jit(drawn)(
        params,
        jax.random.key(seed),
        observations[start],
        actions,
        np.array(expected[0], np.float32),
        np.array(expected[1], np.float32),
    )
    found = {"unroll": {**told, "own_value": told_own["value"]}, "open_loop": untold}
    return {
        f"{kind}_{name}": np.asarray(errors, np.float64).tolist()
        for kind, result in found.items()
        for name, errors in result.items()
    }
