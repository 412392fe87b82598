"""The jump, learned beside the model from replayed windows as they were played.

Targets of J(s_t, a_t..a_(t+l-1)), s_t the embedding of what was seen:

    rewards   sum_i gamma^i r_(t+i), a categorical of the two neighbouring sums
    values    the model's own distribution at the real s_(t+l), and so its policy; past an end 0
    ends      the place of the real s_(t+l), where the model's consistency compares ends
    lasting   whether the game goes on, where the model has a head for it
    certain   whether H(sigma(s_t, a)) is below `search.collapse_threshold`, for a random action a

A search goes on from what jumps foresaw. So half of the windows are cut into pieces, each a jump
from where the one before it is foreseen to end, and past an end of a game any actions follow, which
bring nothing, as the model learns it.

All of the model is stopped: its parameters are the same, bit for bit, with and without, unless
`loss.jump` lets the gradient into its trunk (`make_trunk_loss`). The jump learns from what happened
and not from the model's own steps, whose errors it would repeat. An eighth of the windows is held
out, the same as from the head of preconditions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from smz_jax.config.seeds import JUMP_KEY
from smz_jax.config.settings import Config
from smz_jax.learning.gains import count_gains, gain_terms, judge_gains, owners_of, renew
from smz_jax.learning.losses import Unrolled
from smz_jax.learning.single_losses import categorical_loss, scalar_loss
from smz_jax.macros.judge.trials import relative_distance
from smz_jax.macros.precondition.updates import held_out
from smz_jax.model.jump import without_jump
from smz_jax.model.observe import stack_windows, unbroken
from smz_jax.model.steps import (
    certainty,
    decide,
    embed,
    make_place,
    over_time,
)
from smz_jax.types import Array, EnvSpec, Networks, Params, ReplaySample, Trajectory

WEIGHTS = {
    "rewards": 1.0,
    "value": 0.25,
    "policy": 0.25,
    "end": 2.0,
    "lasting": 1.0,
    "certain": 1.0,
    "gain": 1.0,
    "sure": 1.0,
}
"""Of the terms of the jump's loss."""
TRUNK = ("rewards", "value", "policy", "end", "lasting")
"""Terms that the trunk learns by too: what happened. The others are words of the model itself."""
MOMENTUM = 0.99
"""Of the running counts of what was foretold to be certain."""
GAIN_KEY = 1
"""Of the draws of owners, beside those of cuts."""


class JumpState(NamedTuple):
    """What the jump learns by, beside its weights in the parameters; saved with the run."""

    opt_state: Any
    updates: Array  # [] int32


class Drawn(NamedTuple):
    """What an update draws for each window."""

    cuts: Array  # [L, B] bool, a piece ends after this action
    actions: Array  # [L, B] int32, taken past an end; of the first the certainty is learned
    length: Array  # [B] int32, after one action more: where that is learned beside the root


class Told(NamedTuple):
    """What is foretold of an action at roots and at foreseen states; and where windows end."""

    logits: Array  # [2, B] float32
    certain: Array  # [2, B] bool, the model is certain of it in the real state
    known: Array  # [2, B] bool, there is such a state
    ends: Array  # [L, B, E], places of the foreseen ends
    seen: Array  # [L, B, E], of the real ones
    rewards: Array  # [L, B] float32, foreseen


class JumpWindows(NamedTuple):
    """Windows by how many actions are taken of them, 1 to L; the time axis comes first.

    Actions and rewards are those of the last piece, if the window is cut.
    """

    actions: Array  # [L, B, `network.jump_length`] int32, as played, and -1 after so many
    rewards: Array  # [L, B] float32, discounted sums
    real: Array  # [L, B] bool, all transitions are of one game, and none but the last ends it
    alive: Array  # [L, B] bool, nor does the last
    over: Array  # [L, B] bool, an earlier one ended it


def jump_windows(
    rows: Trajectory, history: int, config: Config, drawn: Drawn | None = None
) -> JumpWindows:
    """What was played from the roots of windows `[B, W, ...]`, `history` rows after their first.

    They are cut where it is `drawn`; None: nowhere, and past an end actions have no meaning.
    """
    longest, gamma = longest_jump(config), config.learner.gamma
    part = slice(history, history + longest)
    real, ended = unbroken(rows, history, longest)
    over = jnp.cumsum(real & ended, axis=1) - (real & ended) > 0
    played, begins = rows.action[:, part], jnp.zeros((longest, len(real)), jnp.bool_)
    if drawn is not None:
        played = jnp.where(over, drawn.actions.T, played)
        begins = begins.at[1:].set(drawn.cuts[:-1])
    # By the sign of the discounts: whose reward it is, where the player to move changes.
    steps = gamma * rows.discount[:, part].T, jnp.where(real, rows.reward[:, part], 0.0).T

    def add(carry: tuple[Array, Array], step: tuple[Array, Array, Array]) -> Any:
        discount, reward, begins = step
        total, weight = jnp.where(begins, 0.0, carry[0]), jnp.where(begins, 1.0, carry[1])
        total = total + weight * reward
        return (total, weight * discount), total

    nothing = jnp.zeros_like(steps[1][0])
    _, sums = jax.lax.scan(add, (nothing, nothing + 1), (*steps, begins))
    now = jnp.arange(longest)[:, None]
    first = jax.lax.cummax(jnp.where(begins, now, 0), axis=0)
    # The network takes as many as `jump_length`, of which the windows may not hold all.
    at = first[..., None] + jnp.arange(config.network.jump_length)
    index = jnp.minimum(at, longest - 1)
    actions = jnp.take_along_axis(played[None], index, axis=2)
    actions = jnp.where(at <= now[..., None], actions, -1)
    return JumpWindows(actions, sums, real.T, (real & ~ended).T, over.T)


def draw(rng_key: Array, shape: tuple[int, int], num_actions: int) -> Drawn:
    """For windows of `shape` [L, B]: half of them have no cuts, each other a rate of its own."""
    rate_key, cut_key, action_key, length_key = jax.random.split(rng_key, 4)
    rate = jax.random.uniform(rate_key, shape[1:], minval=-1.0)
    return Drawn(
        cuts=jax.random.uniform(cut_key, shape) < rate,
        actions=jax.random.randint(action_key, shape, 0, num_actions),
        length=jax.random.randint(length_key, shape[1:], 0, shape[0]),
    )


def longest_jump(config: Config) -> int:
    """L: actions of the longest sequence that is learned, as far as replayed windows hold them."""
    return min(config.network.jump_length, config.window_rows - config.env.frame_stack)


def init_jump(config: Config, params: Params) -> JumpState:
    """A fresh state for the jump of `params`, as a model's parameters hold it."""
    opt_state = optax.adam(config.learner.jump_learning_rate).init(params["weights"])
    return JumpState(opt_state, jnp.zeros((), jnp.int32))


def jump_terms(
    networks: Networks,
    config: Config,
    params: Params,
    windows: JumpWindows,
    embeddings: Array,
    drawn: Drawn,
    starts: Array | None = None,
) -> tuple[dict[str, Array], Told]:
    """Each term of the loss, unweighted, 0 where nothing is known; pure.

    The model is that of `params`, its jump too; no gradient passes into anything but the jump.
    `embeddings [L+1, B, D]` are of the root and of what was seen after each step; `drawn` says
    where the windows are cut, and of which action the certainty is learned. With `starts`, as many,
    pieces begin at these in place of the foreseen ends, and a gradient passes into them as well.

    Returns:
        `[L, B]` for every length, but `certain [2, B]`, of the root and of a foreseen state; and
        what was told of these.
    """
    frozen, embeddings = jax.lax.stop_gradient((without_jump(params), embeddings))
    params = {**frozen, "jump": params["jump"]}
    root, place = embeddings[0], make_place(networks, config)

    def leap(start: Array, piece: tuple[Array, Array, Array | None]) -> Any:
        assert networks.jump is not None
        actions, is_cut, other = piece
        end, logits = networks.jump(params, start, actions)
        is_cut = is_cut.reshape(-1, *[1] * (end.ndim - 1))
        after = jax.lax.stop_gradient(end) if other is None else other
        return jnp.where(is_cut, after, start), (end, logits)

    first, later = (root, None) if starts is None else (starts[0], starts[1:])
    _, (end, reward_logits) = jax.lax.scan(leap, first, (windows.actions, drawn.cuts, later))
    foreseen = over_time(networks.prediction, frozen, end)
    real = over_time(networks.prediction, frozen, embeddings[1:])

    def placed(x: Array, is_foreseen: bool) -> Array:
        # What is no target must not reach the statistics of the batch either.
        alive = windows.alive.reshape(*windows.alive.shape, *[1] * (x.ndim - 2))
        x = jnp.where(alive, x, root)
        rows = place(frozen, x.reshape(-1, *x.shape[2:]), is_foreseen)
        return rows.reshape(*x.shape[:2], -1)

    own, seen = placed(end, True), placed(embeddings[1:], False)
    terms = {
        "policy": categorical_loss(foreseen.policy_logits, jax.nn.softmax(real.policy_logits)),
        "end": -optax.cosine_similarity(own, seen, epsilon=1e-6),
    }
    terms = {name: jnp.where(windows.alive, term, 0.0) for name, term in terms.items()}
    rewards = scalar_loss(reward_logits, windows.rewards, config.network.reward_transform)
    known = categorical_loss(foreseen.value_logits, jax.nn.softmax(real.value_logits))
    n, zeros = config.network, jnp.zeros_like(windows.rewards)
    over = scalar_loss(foreseen.value_logits, zeros, n.value_transform, n.value_code, n.value_width)
    known_of = windows.real | windows.over
    terms["rewards"] = jnp.where(known_of, rewards, 0.0)
    terms["value"] = jnp.where(known_of, jnp.where(windows.alive, known, over), 0.0)
    if networks.continuation is not None:
        logits = over_time(networks.continuation, frozen, end)
        lasting = optax.sigmoid_binary_cross_entropy(logits, windows.alive.astype(jnp.float32))
        terms["lasting"] = jnp.where(known_of, lasting, 0.0)
    logits, is_certain, known = _told(networks, config, params, windows, embeddings, end, drawn)
    assert networks.reward_sum_of is not None
    sums = networks.reward_sum_of(reward_logits)
    told = Told(logits, is_certain, known, own, seen, sums)
    certain = optax.sigmoid_binary_cross_entropy(told.logits, told.certain.astype(jnp.float32))
    terms["certain"] = jnp.where(told.known, certain, 0.0)
    return terms, told


def _told(
    networks: Networks,
    config: Config,
    params: Params,
    windows: JumpWindows,
    embeddings: Array,
    end: Array,
    drawn: Drawn,
) -> tuple[Array, Array, Array]:
    """`Told.logits`, `certain` and `known`, at roots and at the drawn of the ends `[L, B, D]`."""
    root, row = embeddings[0], jnp.arange(embeddings.shape[1])
    foreseen = jax.lax.stop_gradient(end[drawn.length, row])
    real = jnp.stack([root, embeddings[drawn.length + 1, row]])
    actions = drawn.actions[jnp.zeros(2, jnp.int32)]
    entropy = jax.vmap(lambda *x: decide(networks, without_jump(params), *x).entropy)(real, actions)
    logits = jax.vmap(lambda *x: certainty(networks, params, *x))(
        jnp.stack([root, foreseen.astype(root.dtype)]), actions
    )
    known = jnp.stack([windows.real[0], windows.alive[drawn.length, row]])
    return logits, entropy < config.search.collapse_threshold, known


def right_jumps(
    config: Config, told: Told, windows: JumpWindows, drawn: Drawn, apart: Array, owners: Array
) -> tuple[Array, Array]:
    """Of windows `apart [B]` that begin with an owner's actions: how many, and foreseen rightly.

    The end near the real one, and the rewards as they came, by the thresholds of `macro`; both
    `[G]` float32, for the owners `[G, jump_length]`.
    """
    away = jax.vmap(relative_distance)(told.ends, told.seen, windows.alive)
    near = (away <= config.macro.distance_threshold) | ~windows.alive
    paid = jnp.abs(told.rewards - windows.rewards) <= config.macro.reward_threshold
    before = jnp.cumsum(drawn.cuts, axis=0) - drawn.cuts
    whole = windows.real & apart & (before == 0)
    same = jnp.all(windows.actions[:, :, None] == owners, axis=-1) & whole[..., None]
    counts = jnp.stack([same, same & (near & paid)[..., None]])
    trials, held = jnp.sum(counts, axis=(1, 2), dtype=jnp.float32)
    return trials, held


def make_trunk_loss(networks: Networks, config: Config, spec: EnvSpec) -> Callable[..., Array]:
    """The jump's loss as a term of the model's own, which reaches the trunk; pure.

    Jumps begin at the root, and pieces where the model's own steps came to, so that the gradient
    passes into the representation and the dynamics, as that of OptionZero's options (2025) does.
    The jump itself, the heads and the real ends are stopped.

    Returns:
        `(params, sample, rng_key, unrolled) -> []`: `params` with the jump that is learned, the
        `Unrolled` those parameters' own of the same windows; `rng_key` is that of its losses.
    """
    history, longest = spec.context - 1, longest_jump(config)

    def loss(params: Params, sample: ReplaySample, rng_key: Array, unrolled: Unrolled) -> Array:
        shape = longest, len(sample.weights)
        drawn = draw(jax.random.fold_in(rng_key, JUMP_KEY), shape, spec.num_actions)
        windows = jump_windows(sample.rows, history, config, drawn)
        starts = unrolled.embeddings[: longest + 1]
        seen = jnp.concatenate([starts[:1], unrolled.after_embeddings[:longest]])
        terms, _ = jump_terms(networks, config, params, windows, seen, drawn, starts)
        weights = sample.weights * ~held_out(sample, history)
        means = [WEIGHTS[x] * jnp.mean(terms[x] * weights) for x in TRUNK if x in terms]
        return sum(means, jnp.float32(0))

    return loss


def make_jump_update(networks: Networks, config: Config, spec: EnvSpec) -> Callable[..., Any]:
    """One update of the jump on a batch of windows; pure, to be compiled by the caller.

    Returns:
        `(JumpState, jump, params, sample, slots) -> JumpState, jump, metrics`: `jump` is that of
        the parameters that learn, `params` are those that play, whose jump the counts are of. Terms
        are means over the batch. `slots` are those of the head of preconditions, if there is one.
    """
    history, longest = spec.context - 1, longest_jump(config)
    has_gains = config.network.gain_slots > 0
    optimizer = optax.adam(config.learner.jump_learning_rate)

    def update(
        state: JumpState, jump: Params, params: Params, sample: ReplaySample, slots: Any = None
    ):
        rows, batch = sample.rows, len(sample.weights)
        if has_gains:
            owners = owners_of(slots, config)
            jump, opt_state = renew(jump, state.opt_state, owners)
            state = state._replace(opt_state=opt_state)
            own = params["jump"]
            params = {**params, "jump": {**own, "gains": {**own["gains"], "actions": owners}}}
        key = jax.random.fold_in(jax.random.key(config.seed), JUMP_KEY)
        key = jax.random.fold_in(key, state.updates)
        drawn = draw(key, (longest, batch), spec.num_actions)
        windows = jump_windows(rows, history, config, drawn)
        seen = stack_windows(rows, spec, range(history, history + longest + 1))
        embeddings = embed(networks, params, jnp.swapaxes(seen, 0, 1))
        apart = held_out(sample, history)

        def loss(weights: Params) -> tuple[Array, Any]:
            full = {**params, "jump": {**jump, "weights": weights}}
            terms, _ = jump_terms(networks, config, full, windows, embeddings, drawn)
            if has_gains:
                given = {**without_jump(params), "jump": full["jump"]}, embeddings[0]
                gain_key = jax.random.fold_in(key, GAIN_KEY)
                terms |= gain_terms(networks, config, *given, windows.real[0], gain_key)
            means = {name: jnp.mean(x * sample.weights * ~apart) for name, x in terms.items()}
            return sum((WEIGHTS[name] * x for name, x in means.items()), jnp.float32(0)), means

        gradient_fn = jax.value_and_grad(loss, has_aux=True)
        (total, means), gradient = gradient_fn(jump["weights"])
        updates, opt_state = optimizer.update(gradient, state.opt_state, jump["weights"])
        finite = jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(gradient))
        new = (optax.apply_updates(jump["weights"], updates), opt_state)
        old = (jump["weights"], state.opt_state)
        weights, opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
        # Of the jump that plays, at states that it foresees too.
        _, told = jump_terms(networks, config, params, windows, embeddings, drawn)
        yes = (told.logits > 0) & apart & told.known
        counts = {"yes": yes, "false_yes": yes & ~told.certain}
        counts = {
            name: MOMENTUM * jump[name] + (1 - MOMENTUM) * jnp.sum(x, dtype=jnp.float32)
            for name, x in counts.items()
        }
        metrics = {f"loss/jump_{name}": x for name, x in means.items()}
        metrics["jump/false_yes"] = counts["false_yes"] / counts["yes"]
        if has_gains:
            right = right_jumps(config, told, windows, drawn, apart, owners)
            held = apart & windows.real[0]
            sums, related = judge_gains(networks, config, params, embeddings[0], held)
            counts["gains"] = known = count_gains(jump["gains"], sums, *right)
            metrics["gains/share"] = known["realised"] / known["best"]
            metrics["gains/false_yes"] = known["false_yes"] / known["yes"]
            metrics["gains/correlation"] = related
            metrics["gains/usable"] = jnp.sum(known["usable"], dtype=jnp.float32)
        return JumpState(opt_state, state.updates + 1), {"weights": weights, **counts}, metrics

    return update
