"""All checks of a model of the grid world, from a run's parameters and its replay."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.analysis.rules.known_rules import rules_check
from smz_jax.config.settings import Config
from smz_jax.envs.grid import rules as grid_rules
from smz_jax.envs.grid.grid_env import states_of, world_of
from smz_jax.envs.grid.rules import NUM_ACTIONS, GridRules
from smz_jax.model import steps
from smz_jax.types import Array, Networks, Params

NUM_SEQUENCES, NUM_STEPS, NUM_SAMPLES = 1024, 5, 64
WARM_STEPS = 64
"""The sequences start where a player is after up to so many steps."""
RANDOM_SHARE = 0.25
"""Share of random actions of that player; the others are best where they are chosen."""
MAX_TRANSITIONS = 8192
ERRORS = (
    *("unroll_reward", "unroll_value", "unroll_own_value"),
    *("open_loop_reward", "open_loop_value"),
)


class GridCheck(NamedTuple):
    """What a check found."""

    rules: GridRules
    entropy: np.ndarray  # [S, A] the model's transition entropy in nats
    likely: np.ndarray  # [S, A] the model's most likely code
    visits: np.ndarray  # [S, A] int64
    played: np.ndarray  # [3, N] int32, as `replay_transitions`
    numbers: dict[str, Any]  # as `rules_check`, and more: see `check_grid`


@functools.partial(jax.jit, static_argnums=(0, 3))  # compiled once: a run is checked often
def pair_entropies(
    networks: Networks, params: Params, seen: Array, num_actions: int
) -> tuple[Array, Array]:
    """H(sigma) in nats and the likeliest code of each state, `seen [S, F, ...]`, and action."""
    embedding = networks.representation(params, seen)

    def of_action(action: Array) -> tuple[Array, Array]:
        actions = jnp.full(len(seen), action, jnp.int32)
        afterstate = steps.decide(networks, params, embedding, actions)
        return steps.entropy_nats(afterstate.logits), afterstate.likely

    entropy, code = jax.lax.map(of_action, jnp.arange(num_actions))
    return entropy.T, code.T


def replay_transitions(replay_state: Any, observations: np.ndarray) -> np.ndarray:
    """State, action and next state `[3, N]` int32 of a replay's real transitions, newest last.

    The step after a game's end is none. `observations [S, ...]` are those of each state.
    """
    held = jax.device_get(replay_state)
    index, rows = int(held.current_index), held.experience
    frame, action, is_first = (
        np.roll(x, -index, axis=1) if held.is_full else x[:, :index]
        for x in (rows.frame, rows.action, rows.is_first)
    )
    states = states_of(frame.reshape(-1, *frame.shape[2:]), observations).reshape(action.shape)
    # Time first, so that the newest of all lanes come last.
    real = ~is_first[:, 1:].T
    found = (states[:, :-1].T[real], action[:, :-1].T[real], states[:, 1:].T[real])
    return np.stack(found).astype(np.int32)


def check_pairs(networks: Networks, config: Config, params: Params, replay_state: Any) -> GridCheck:
    """Checks the transition entropies alone, which is cheap: for the course of a run.

    The run is of the suite grid, one frame in an observation; `numbers` are those of `rules_check`.
    """
    rules, frames = world_of(config.env)
    played = replay_transitions(replay_state, frames)
    visits = np.zeros((rules.num_states, NUM_ACTIONS), np.int64)
    np.add.at(visits, tuple(played[:2]), 1)
    found = pair_entropies(networks, params, frames[:, None], NUM_ACTIONS)
    entropy, likely = jax.device_get(found)
    entropy = entropy.astype(np.float64)
    numbers = rules_check(
        entropy,
        grid_rules.true_entropy(rules),
        reachable=grid_rules.reachable(rules),
        visits=visits,
        codebook_size=config.network.codebook_size,
    )
    return GridCheck(rules, entropy, likely, visits, played, numbers)


def check_grid(
    networks: Networks, config: Config, params: Params, replay_state: Any, seed: int = 0
) -> GridCheck:
    """Checks a model of the grid world against its rules, with one frame in an observation.

    `seed` is that of the action sequences.

    Returns:
        `numbers` holds those of `rules_check`; `agreement` of the encoder's code with the most
        likely one and `code_perplexity`, over the newest stored transitions; and errors after 1 to
        NUM_STEPS actions of `draw_sequences`, whose outcomes are drawn anew, against V* at the
        run's gamma. `unroll_reward`, `unroll_value`: the mean absolute error where the encoder
        tells the model what happened (one code tells nothing: such a model can at best predict
        means). `unroll_own_value`: the same against what the model says of the state that was
        really reached, which leaves out what its values are off by anyway (they are those of the
        policy that played). `open_loop_reward`, `open_loop_value`: the root of the mean squared
        error of the model's expectations, its codes drawn from sigma.
    """
    check = check_pairs(networks, config, params, replay_state)
    observations = jnp.asarray(world_of(config.env)[1])[:, None]
    state, action, after = check.played[:, -MAX_TRANSITIONS:]

    @jax.jit
    def codes_of(params: Params, before: Array, action: Array, after: Array) -> Array:
        afterstate = steps.decide(networks, params, networks.representation(params, before), action)
        seen = steps.Seen(after, networks.representation(params, after))
        return jnp.argmax(steps.encode(networks, params, seen, afterstate.state), axis=-1)

    codes = np.asarray(codes_of(params, observations[state], action, observations[after]))
    counts = np.bincount(codes)
    used = counts[counts > 0] / len(codes)
    numbers = {
        **check.numbers,
        "agreement": float(np.mean(codes == check.likely[state, action])),
        "code_perplexity": float(np.exp(-np.sum(used * np.log(used)))),
        **_sequence_errors(networks, config, params, check.rules, observations, seed),
    }
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
    state = start = generator.choice(rules.num_states, count, p=rules.start)
    actions = []
    moment = generator.integers(0, WARM_STEPS, count)
    for step in range(WARM_STEPS + NUM_STEPS):
        if step < WARM_STEPS:  # a game that is over is followed by the next
            first = generator.choice(rules.num_states, count, p=rules.start)
            state = np.where(rules.terminal[state], first, state)
            start = np.where(step <= moment, state, start)
        if step == WARM_STEPS:
            state = start
        at_random = generator.random(count) < RANDOM_SHARE
        any_action = generator.integers(0, NUM_ACTIONS, count)
        action = np.where(at_random, any_action, action_value[state].argmax(axis=1))
        actions.append(action.astype(np.int32))
        state = grid_rules.sample_paths(rules, generator, state, action[:, None])[0][:, 1]
    return start, np.stack(actions[WARM_STEPS:], axis=1)


def _sequence_errors(
    networks: Networks, config: Config, params: Params, rules: GridRules, seen: Array, seed: int
) -> dict[str, list[float]]:
    """Errors along the action sequences of a seed, told the real outcomes and not: `check_grid`.

    `seen [S, F, ...]` is what is seen in each state.
    """
    generator = np.random.default_rng(seed)
    values, action_value = grid_rules.optimal_values(rules, config.learner.gamma)
    start, actions = draw_sequences(rules, generator, NUM_SEQUENCES, action_value)
    states, rewards = grid_rules.sample_paths(rules, generator, start, actions)
    means, expected = grid_rules.mean_reward(rules), []  # of each: (E[r], E[V]) of its steps
    for first, sequence in zip(start, actions, strict=True):
        chances = grid_rules.state_distributions(rules, first, sequence)
        rewarded = (chances[:-1] * means[:, sequence].T).sum(axis=1)
        expected.append((rewarded, chances[1:] @ values))
    predict = functools.partial(steps.predict, networks)
    own = predict(params, networks.representation(params, seen)).value
    own = np.where(rules.terminal, 0.0, own)

    @jax.jit
    def errors(
        params: Params,
        observations: Array,  # [N, K+1, F, ...] that were seen
        actions: Array,  # [N, K] int32
        rewards: Array,  # [N, K] that were given
        references: list[Array],  # V* and the model's own values [N, K] of the states reached
        mask: Array,  # [N, K], 1 where the step was taken, 0 past an end
        rng_key: Array,
        expected: Array,  # [2, N, K] E[r] of each step and E[V] of the state after it
    ) -> list[Array]:
        after = observations[:, 1:].swapaxes(0, 1)
        root = networks.representation(params, observations[:, 0])
        told = steps.Seen(after, steps.embed(networks, params, after))
        followed = steps.follow(networks, params, root, actions.T, told)
        value = steps.over_time(predict, params, followed.states).value
        total = jnp.maximum(mask.sum(axis=0), 1.0)

        def error(guess: Array, truth: Array) -> Array:
            return jnp.sum(jnp.abs(guess - truth.T) * mask.T, axis=1) / total

        def excess(guess: Array, truth: Array) -> Array:
            # The mean over the draws is compared with the exact expectation; the draws' own
            # variance is taken off, so that the number of draws does not count.
            guesses = guess.reshape(-1, NUM_SAMPLES)
            noise = guesses.var(axis=1, ddof=1) / NUM_SAMPLES
            left = jnp.mean(jnp.square(guesses.mean(axis=1) - truth) - noise)
            return jnp.sqrt(jnp.maximum(left, 0.0))

        roots = jnp.repeat(root, NUM_SAMPLES, axis=0)
        fed = jnp.repeat(actions.T, NUM_SAMPLES, axis=1)
        imagined = steps.imagine(networks, params, roots, fed, rng_key).steps
        return [
            error(networks.reward_of(followed.reward_logits), rewards),
            *(error(value, reference) for reference in references),
            jax.vmap(excess)(imagined.reward, expected[0].T),
            jax.vmap(excess)(imagined.value, expected[1].T),
        ]

    found = errors(
        params,
        seen[states],
        actions,
        rewards.astype(np.float32),
        [of_state[states[:, 1:]].astype(np.float32) for of_state in (values, own)],
        (~rules.terminal[states[:, :-1]]).astype(np.float32),
        jax.random.key(seed),
        np.array(expected, np.float32).swapaxes(0, 1),
    )
    return {x: np.asarray(y, np.float64).tolist() for x, y in zip(ERRORS, found, strict=True)}
