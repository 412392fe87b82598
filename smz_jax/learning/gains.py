"""What macros gain: a head of the jump, which foretells it for each slot.

Of its owner m in a state s it says:

    gain      u_m(s) = sum_i gamma^i r_i + gamma^l v(s_l) - v(s), by the model's own steps
    certain   that the model is certain of each of these steps, by `macro.play_threshold`

It is regressed (Huber's loss) for `PAIRS` drawn owners at each root, where all steps are certain.
A search with `search.macros` takes the jump where this head says so, so that both have to agree.
It may do so only for owners whose jump is sound, on held-out windows that begin with their actions,
and while the head's choice among certain macros gains enough, on held-out states with all owners.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from smz_jax.config.settings import Config
from smz_jax.macros.judge.evidence import share_bounds
from smz_jax.model.steps import CERTAIN_AT, imagine, predict
from smz_jax.types import Array, Networks, Params

PAIRS = 2
"""Owners that are stepped through for each root of a batch."""
HELD_STATES = 2
"""Held-out states of a batch at which all owners are stepped through."""
MOMENTUM = 0.99
"""Of the running sums over held-out states."""
MEMORY = 0.998
"""Of the running counts of held-out windows."""
LEAST_SHARE, MOST_FALSE = 0.85, 0.03
"""Of the best gain that the head's choice has to realise; of its yes that may be false."""
SOUND, MIN_TRIALS = 0.9, 20
"""Lower bound of the share of jumps that are right, and how many have to be seen."""


class Stepped(NamedTuple):
    """What the model makes of macros, step by step; [P] each."""

    gain: Array  # float32
    certain: Array  # bool


def owners_of(slots: Any, config: Config) -> Array:
    """The owners' actions `[G, jump_length]`, padded with -1; none of an owner that is longer.

    `slots` are `macros.precondition.slots.MacroSlots`.
    """
    count, longest = config.network.gain_slots, config.network.jump_length
    actions = slots.actions[:count]
    actions = jnp.where((slots.length[:count] <= longest)[:, None], actions, -1)
    rest = max(0, longest - actions.shape[1])
    return jnp.pad(actions, ((0, 0), (0, rest)), constant_values=-1)[:, :longest]


def renew(jump: Params, opt_state: Any, owners: Array) -> tuple[Params, Any]:
    """Slots that changed their owner begin anew: the head's columns, their moments, the counts."""
    known = jump["gains"]
    changed = jnp.any(known["actions"] != owners, axis=1)

    def columns(weights: Params) -> Params:
        head = dict(weights["gain_head"])
        for name in ("Linear_0", "Linear_1"):
            head[name] = jax.tree.map(lambda x: jnp.where(changed, 0.0, x), head[name])
        return {**weights, "gain_head": head}

    moments, *rest = opt_state
    moments = moments._replace(mu=columns(moments.mu), nu=columns(moments.nu))
    counts = {name: jnp.where(changed, 0.0, known[name]) for name in ("trials", "held")}
    known = {**known, **counts, "actions": owners}
    return {**jump, "weights": columns(jump["weights"]), "gains": known}, (moments, *rest)


def step_through(
    networks: Networks, config: Config, params: Params, root: Array, actions: Array
) -> Stepped:
    """Macros `actions [P, L]`, padded with -1, taken by the model from `root [P, D]`, open loop."""
    taken = actions.T >= 0
    played = imagine(networks, params, root, jnp.maximum(actions.T, 0))
    steps = played.steps
    carried = jnp.cumprod(config.learner.gamma * steps.discount, axis=0)
    before = jnp.concatenate([jnp.ones_like(carried[:1]), carried[:-1]])
    rewards = jnp.sum(jnp.where(taken, before * steps.reward, 0.0), axis=0)
    last = jnp.maximum(jnp.sum(taken, axis=0) - 1, 0)[None]
    end = jnp.take_along_axis(carried * steps.value, last, axis=0)[0]
    sure = played.afterstates.entropy < config.macro.play_threshold
    return Stepped(
        rewards + end - predict(networks, params, root).value,
        jnp.all(sure | ~taken, axis=0),
    )


def gain_terms(
    networks: Networks, config: Config, params: Params, root: Array, real: Array, rng_key: Array
) -> dict[str, Array]:
    """The head's loss terms `[PAIRS, B]`, 0 where nothing is known; `real [B]`, a step was made.

    `params` are those of the model, stopped, with the jump that learns; `rng_key` is consumed.
    """
    assert networks.gains is not None
    owners, batch = params["jump"]["gains"]["actions"], len(root)
    slot = jax.random.randint(rng_key, (PAIRS, batch), 0, len(owners))
    chosen = owners[slot]
    starts = jnp.tile(root, (PAIRS, *[1] * (root.ndim - 1)))
    actions = chosen.reshape(-1, chosen.shape[-1])
    found = jax.lax.stop_gradient(step_through(networks, config, params, starts, actions))
    found = jax.tree.map(lambda x: x.reshape(PAIRS, batch), found)
    told = networks.gains(params, root)
    gain, certain = (jnp.take_along_axis(x, slot.T, axis=1).T for x in told)
    known = (chosen[..., 0] >= 0) & real
    off = optax.huber_loss(gain, found.gain, delta=config.macro.value_delta)
    sure = optax.sigmoid_binary_cross_entropy(certain, found.certain.astype(jnp.float32))
    return {
        "gain": jnp.where(known & found.certain, off, 0.0),
        "sure": jnp.where(known, sure, 0.0),
    }


def judge_gains(
    networks: Networks, config: Config, params: Params, root: Array, held: Array
) -> tuple[dict[str, Array], Array]:
    """The head against the model's steps, at up to `HELD_STATES` of the roots that are `held [B]`.

    Returns:
        Sums over these states, by the names of `smz_jax.model.jump.GATES`; and the mean correlation
        of gains within a state, NaN where there is none.
    """
    assert networks.gains is not None
    owners = params["jump"]["gains"]["actions"]
    few = jnp.argsort(~held)[:HELD_STATES]
    states, slots = root[few], len(owners)
    starts = jnp.repeat(states, slots, axis=0)
    found = step_through(networks, config, params, starts, jnp.tile(owners, (len(few), 1)))
    true, certain = (x.reshape(-1, slots) for x in found)
    gain, logits = networks.gains(params, states)
    counts = held[few, None] & (owners[:, 0] >= 0)
    certain, said = certain & counts, (logits >= CERTAIN_AT) & counts
    number = jnp.maximum(certain.sum(axis=1), 1)

    def mean(x: Array) -> Array:
        return jnp.sum(jnp.where(certain, x, 0.0), axis=1, keepdims=True) / number[:, None]

    choice = jnp.argmax(jnp.where(said, gain, -jnp.inf), axis=1)
    best = jnp.max(jnp.where(certain, true, -jnp.inf), axis=1) - mean(true)[:, 0]
    realised = jnp.take_along_axis(true - mean(true), choice[:, None], axis=1)[:, 0]
    is_choice = (certain.sum(axis=1) > 1) & jnp.any(said, axis=1)
    sums = {
        "best": jnp.where(is_choice, best, 0.0),
        "realised": jnp.where(is_choice, realised, 0.0),
        "yes": said,
        "false_yes": said & ~certain,
    }
    ours, theirs = gain - mean(gain), true - mean(true)
    spread = jnp.sqrt(mean(ours**2) * mean(theirs**2))[:, 0]
    related = mean(ours * theirs)[:, 0] / jnp.where(spread > 0, spread, jnp.nan)
    related = jnp.where(certain.sum(axis=1) > 2, related, jnp.nan)
    return {name: jnp.sum(x, dtype=jnp.float32) for name, x in sums.items()}, jnp.nanmean(related)


def count_gains(known: Params, sums: dict[str, Array], trials: Array, held: Array) -> Params:
    """The `gains` of a jump's parameters after a batch, of whose sums and `[G]` trials it takes."""
    running = {name: MOMENTUM * known[name] + (1 - MOMENTUM) * x for name, x in sums.items()}
    counts = {"trials": trials, "held": held}
    counts = {name: MEMORY * known[name] + x for name, x in counts.items()}
    low, _ = share_bounds(counts["held"], counts["trials"])
    is_open = running["realised"] >= LEAST_SHARE * running["best"]
    is_open &= running["false_yes"] <= MOST_FALSE * running["yes"]
    sound = (low >= SOUND) & (counts["trials"] >= MIN_TRIALS) & (known["actions"][:, 0] >= 0)
    return {**known, **running, **counts, "usable": sound & is_open}
