"""Training targets of one window: value transform, two-hot support, n-step returns, masks.

Every function is unbatched; the caller `vmap`s. Row t of a window holds what was seen at t and
what followed the action at t (see `Trajectory`). The row before one with `is_first` is a *final
observation*: its action was ignored, so its transition is not real and it ends the window's own
episode. An episode ends in one of two ways:

- termination (`discount` 0, with or without a new game after it): the value past it is 0;
- truncation (a final observation that no termination led to): the value past it is unknown, and
  the final observation's own value stands in for everything after it.
"""

import functools

import chex
import jax
import jax.numpy as jnp

from smz_jax.model.actions import one_hots, slices
from smz_jax.model.turns import beside, by_seat, turned
from smz_jax.types import Array, Trajectory, UnrollTargets, is_end


def n_step_targets(
    reward: Array, discount: Array, final: Array, values: Array, *, td_steps: int, gamma: float
) -> Array:
    """n-step bootstrapped returns of the first rows of a window.

        z_t = sum_{i<n} gamma^i r_{t+i+1} + gamma^n v(s_{t+n})

    A termination inside the n steps ends the sum and bootstraps nothing; a final observation f
    ends it and bootstraps gamma^(f - t) v_f. Rows after either have no influence, whatever they
    hold. Source: MuZero (2020), with truncation kept apart from termination.

    Args:
        reward: [R] float32, r_{t+1}.
        discount: [R] float32, 0 where the action led to a true end; -1 where the other player
            moves next, whose value counts the other way; else 1.
        final: [R] bool, final observations (only rows before R - 1 are read).
        values: [R] float32, the values to bootstrap from.
        td_steps: n.
        gamma: discount per agent step.

    Returns:
        [R - n] float32: z of every row that has n rows after it.
    """
    chex.assert_equal_shape([reward, discount, final, values])
    starts = reward.shape[0] - td_steps
    # step[t, i] is row t + i
    step = jnp.arange(starts)[:, None] + jnp.arange(td_steps)[None, :]
    keep = jnp.where(final, 0.0, gamma * discount).astype(jnp.float32)
    reach = jnp.cumprod(jnp.pad(keep[step], ((0, 0), (1, 0)), constant_values=1.0), axis=1)
    gain = jnp.where(final, values, reward)[step]
    gain = jnp.concatenate([gain, values[td_steps:, None]], axis=1).astype(jnp.float32)
    return jnp.sum(jnp.where(reach != 0.0, reach * gain, 0.0), axis=1)


def all_returns(
    reward: Array, discount: Array, stops: Array, values: Array, *, td_steps: int, gamma: float
) -> Array:
    """`n_step_targets` of rewards and values `[R]`, or of those of each player `[R, P]` by seat.

    By seat a return turns nowhere: the discounts `[R]` count without their sign.
    """
    run = functools.partial(n_step_targets, td_steps=td_steps, gamma=gamma)
    if reward.ndim == 1:
        return run(reward, discount, stops, values)
    each = jax.vmap(run, in_axes=(1, None, None, 1), out_axes=1)
    return each(reward, jnp.abs(discount), stops, values)


def is_astray(action: Array, weights: Array, sizes: tuple[int, ...], share: float) -> Array:
    """Where play left the policy that is learned, `[R]` bool.

    There the action `[R]` has, in one of its parts, less than `share` of the weight that the best
    option has; `weights [R, O]` are the policy's target, `sizes` those of the parts.
    """
    own = jnp.where(one_hots(action, sizes) > 0, weights, 0.0)
    each = [own[:, x].max(axis=1) < share * weights[:, x].max(axis=1) for x in slices(sizes)]
    return jnp.any(jnp.stack(each), axis=0)


def window_returns(
    rows: Trajectory,
    values: Array,
    final: Array,
    *,
    td_steps: int,
    gamma: float,
    cut_below: float,
    sizes: tuple[int, ...],
) -> tuple[Array, Array | None]:
    """The returns z of all rows that have n after them, and what was done there is worth, or None.

    Arguments as those of `make_unroll_targets`; `final [R]` are final observations. `[R - n]` and
    one fewer, of more than two players `[R - n, P]` from each row's mover on.
    """
    gains, told = rows.reward, lambda x: x
    if rows.player is not None:
        gains, values = rows.rewards, by_seat(values, rows.player)
        told = lambda x: turned(x, rows.player[: len(x)])  # noqa: E731
    stops, done = final, None
    if cut_below > 0:
        sizes = sizes or rows.action_weights.shape[1:]
        stops = final | is_astray(rows.action, rows.action_weights, sizes, cut_below)
    z = all_returns(gains, rows.discount, stops, values, td_steps=td_steps, gamma=gamma)
    if cut_below > 0:
        size = len(z)
        own_step = gains[:size], rows.discount[:size], final[:size]
        done = told(all_returns(*own_step, z, td_steps=1, gamma=gamma))
    return told(z), done


def make_unroll_targets(
    rows: Trajectory,
    values: Array,
    *,
    unroll_steps: int,
    td_steps: int,
    gamma: float,
    cut_below: float = 0.0,
    sizes: tuple[int, ...] = (),
) -> UnrollTargets:
    """Targets and masks of K unrolled steps from the root, row 0.

    Position k of the unroll, by where it lies in the root's own episode:

    | position               | value  | value_mask | policy_mask | transition_mask |
    |------------------------|--------|------------|-------------|-----------------|
    | an acting row          | z_k    | 1          | 1           | 1 (real, also   |
    |                        |        |            |             | the last one)   |
    | truncation's final row | v_k    | 1          | 0           | 0               |
    | past a termination     | 0      | 1          | 0           | 0               |
    | past a truncation      | 0      | 0          | 0           | 0               |

    Reward and discount of step k -> k+1 are masked by `value_mask[1:]`: past a termination they are
    a true 0 and count, past a truncation nothing is known. Targets under a zero mask are 0.

    A root that is itself a final observation gets zero masks everywhere: no transition starts
    there, and its only value target would be its own bootstrap value. A root with `is_first` is an
    ordinary one.

    Args:
        rows: R = K + n + 1 of them, from the root on; `reward`, `discount`, `is_first` and
            `action_weights` (the policy's target) are read.
        values: [R] float32, bootstrap values: stored search values or the target network's; of
            more than two players [R, P], each row's from its mover on.
        unroll_steps: K.
        td_steps: n, at least 1.
        gamma: discount per agent step.
        cut_below: above 0 a return goes no further than to a row where play left the policy
            (`is_astray`), whose own value stands in (Watkins 1989; Munos et al. 2016), and what was
            done in a row is worth r_{k+1} + gamma z_{k+1}.
        sizes: options of an action's parts; none: an action is one choice.

    Returns:
        `UnrollTargets` without a batch axis, float32.
    """
    reward, discount, is_first = rows.reward, rows.discount, rows.is_first
    size = unroll_steps + td_steps + 1
    chex.assert_shape([reward, discount, is_first], (size,))
    chex.assert_shape(values, (size, *values.shape[1:]))
    chex.assert_rank(rows.action_weights, 2)
    # The last row's successor is not in the window, but its action is not used either.
    final = jnp.pad(is_first[1:], (0, 1))
    z, done = window_returns(
        rows, values, final, td_steps=td_steps, gamma=gamma, cut_below=cut_below, sizes=sizes
    )

    continues = ~final & ~is_end(discount)
    # own[k]: every transition from the root to row k is real and none of them is a true end.
    own = jnp.cumprod(jnp.pad(continues[:unroll_steps], (1, 0), constant_values=True)) > 0
    acting, cut = own & ~final[: unroll_steps + 1], own & final[: unroll_steps + 1]
    past_cut = jnp.cumsum(cut) - cut > 0
    known = ~(past_cut | final[0])

    is_known, real = own & known, acting[:-1]
    found = UnrollTargets(
        policy=_masked(acting, rows.action_weights[: unroll_steps + 1]),
        value=_masked(is_known, z if z.ndim == 1 else z[:, 0]),
        reward=_masked(real, reward[:unroll_steps]),
        discount=_masked(real, discount[:unroll_steps]),
        value_mask=known.astype(jnp.float32),
        policy_mask=acting.astype(jnp.float32),
        transition_mask=real.astype(jnp.float32),
        decision_value=None if done is None else _masked(is_known[:-1], done),
    )
    return found if rows.player is None else _of_players(found, rows, z, is_known, real)


def _masked(mask: Array, target: Array) -> Array:
    return jnp.where(beside(mask, target), target, 0.0).astype(jnp.float32)


def _of_players(
    found: UnrollTargets, rows: Trajectory, z: Array, is_known: Array, real: Array
) -> UnrollTargets:
    """The targets with those of more than two players; `real [K]` transitions of its own game."""
    steps, players = len(real), rows.rewards.shape[-1]
    mover, discount = rows.player[:steps], rows.discount[:steps]
    turn = (rows.player[1 : steps + 1] - mover) % players
    return found._replace(
        values=_masked(is_known, z),
        rewards=_masked(real, turned(rows.rewards[:steps], mover)),
        turn=jnp.where(real & ~is_end(discount), turn, players),
    )


def random_actions_past_end(
    rng_key: Array, action: Array, transition_mask: Array, num_actions: int
) -> Array:
    """Actions `[K]` that the model is unrolled with: the real ones, then uniformly random ones.

    `transition_mask [K]` is 1 where the transition really happened.
    """
    drawn = jax.random.randint(rng_key, action.shape, 0, num_actions, jnp.int32)
    return jnp.where(transition_mask > 0, action.astype(jnp.int32), drawn)
