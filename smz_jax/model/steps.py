"""The verbs of the model: every step that is taken in it, by whomever, is one of these.

    predict  state -> Judgement                      f
    decide   (state, action) -> Afterstate          phi, then psi
    chance   (afterstate, code) -> Step              g, then f
    jump     (state, actions) -> Step                J, then f: a sequence in one call
    imagine  (state, actions) -> Imagined            open loop, outcomes by the model
    follow   (root, actions, seen) -> Followed       along a real window, outcomes by the encoder
    place    embedding -> [N, E]                     the space in which ends are compared

Time comes first in what `imagine` and `follow` take and give.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from smz_jax.config.settings import Config
from smz_jax.types import Array, Networks, Params

MOST_FALSE = 0.01
CERTAIN_AT = 2.1972246
"""Logit of probability 0.9: from there on a macro is said to be certain."""


class Judgement(NamedTuple):
    """What the model makes of a state; [..., B] each."""

    policy_logits: Array  # [B, A]
    value: Array  # [B]
    values: Any = None  # [B, P] of P > 2 players, from the mover on; None: there are no more

    @property
    def of_players(self) -> Array:
        """`values`, or `value` where there are no more than two players."""
        return self.value if self.values is None else self.values


class Afterstate(NamedTuple):
    """What the model makes of a decision; [..., B] each."""

    state: Array  # [B, D]
    logits: Array  # [B, C] of sigma, over the chance outcomes
    value: Array  # [B] Q of the decision
    values: Any = None  # [B, P] of P > 2 players, from who decided on

    @property
    def entropy(self) -> Array:
        """Normalised H(sigma) `[B]`."""
        return normalised_entropy(self.logits)

    @property
    def likely(self) -> Array:
        """The likeliest outcome `[B]`, int32."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)


class Step(NamedTuple):
    """What the model makes of a chance outcome: the next decision node; [..., B] each."""

    state: Array  # [B, D]
    policy_logits: Array  # [B, A]
    value: Array  # [B]
    reward: Array  # [B]
    discount: Array  # [B] in [-1, 1]: 0 past an end, below 0 where another player moves next
    values: Any = None  # [B, P] of P > 2 players, from who moves now on
    rewards: Any = None  # [B, P] likewise, from who moved on
    turn: Any = None  # [B] int32 likewise, how many seats on from there the mover sits


class Imagined(NamedTuple):
    """K steps that the model took open loop."""

    afterstates: Afterstate  # [K, B, ...]
    steps: Step  # [K, B, ...]


class Seen(NamedTuple):
    """Real observations and their embeddings, of the same leading axes."""

    observation: Array  # [..., F, *frame_shape]
    embedding: Array  # [..., D]


class Followed(NamedTuple):
    """A real window as the model follows it, informed at each step what happened by a code."""

    afterstates: Array  # [K, B, D]
    states: Array  # [K, B, D], after each step
    reward_logits: Array  # [K, B, S]
    code_probs: Array  # [K, B, C] q, before the arg max
    codes: Array  # [K, B, C] one-hot


def normalised_entropy(logits: Array) -> Array:
    """H(sigma) / ln C of chance logits `[..., C]`, in [0, 1]; 0 when C = 1."""
    if logits.shape[-1] == 1:
        return jnp.zeros(logits.shape[:-1], jnp.float32)
    return jnp.clip(entropy_nats(logits) / jnp.log(jnp.float32(logits.shape[-1])), 0.0, 1.0)


def entropy_nats(logits: Array) -> Array:
    """H(sigma) in nats of chance logits `[..., C]`."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def finite_scalars(values: Array) -> tuple[Array, Array]:
    """Values `[B]` with 0 for each that is not finite, and how many were: int32 `[B]`.

    Beyond 1e30 counts as not finite: sums of such values would overflow in a backup.
    """
    finite = jnp.abs(values) <= 1e30  # false of NaN
    return jnp.where(finite, values, 0.0).astype(jnp.float32), (~finite).astype(jnp.int32)


def finite_logits(logits: Array) -> tuple[Array, Array]:
    """Logits `[B, ...]`, all equal in a row where one is not finite, and 1 there: int32 `[B]`."""
    finite = jnp.all(jnp.isfinite(logits), axis=-1)
    logits = jnp.where(finite[..., None], logits, 0.0).astype(jnp.float32)
    return logits, (~finite).astype(jnp.int32)


Output = TypeVar("Output", Judgement, Afterstate, Step)


def finite(output: Output) -> tuple[Output, Array]:
    """An output without numbers that are not finite, and how many were replaced: int32 `[B]`.

    Embeddings stay as they are.
    """
    fields, faults = {}, jnp.zeros((), jnp.int32)
    for name, array in output._asdict().items():
        if name not in ("state", "turn") and array is not None:
            replace = finite_logits if name.endswith("logits") else finite_scalars
            fields[name], bad = replace(array)
            faults = faults + (jnp.sum(bad, axis=-1) if name in ("values", "rewards") else bad)
    return output._replace(**fields), faults


def one_hot_code(outcome: Array, codebook_size: int) -> Array:
    """Outcomes `[...]` as the codes `[..., C]` that `chance` takes."""
    return jax.nn.one_hot(outcome, codebook_size, dtype=jnp.float32)


def predict(networks: Networks, params: Params, state: Array) -> Judgement:
    """What to do in `state [B, D]`, and what it is worth."""
    policy_logits, value_logits = networks.prediction(params, state)
    return Judgement(policy_logits, networks.value_of(value_logits), _all(networks, value_logits))


def _all(networks: Networks, value_logits: Array) -> Array | None:
    return None if networks.all_values is None else networks.all_values(value_logits)


def decide(networks: Networks, params: Params, state: Array, action: Array) -> Afterstate:
    """A decision: `state [B, D]` and `action [B]` to its afterstate."""
    after = networks.afterstate_dynamics(params, state, action)
    logits, value_logits = networks.afterstate_prediction(params, after)
    value = networks.value_of(value_logits)
    return Afterstate(after, logits, value, _all(networks, value_logits))


def chance(networks: Networks, params: Params, afterstate: Array, code: Array) -> Step:
    """A chance outcome: `afterstate [B, D]` and the one-hot `code [B, C]` to the next state."""
    state, reward_logits = networks.dynamics(params, afterstate, code)
    discount = jnp.ones(code.shape[:1], jnp.float32)
    if networks.discount is not None:
        discount = networks.discount(params, state)
    reward, judged = networks.reward_of(reward_logits), predict(networks, params, state)
    step = Step(state, judged.policy_logits, judged.value, reward, discount)
    if networks.all_rewards is None or networks.turn is None:
        return step
    rewards, turn = networks.all_rewards(reward_logits), networks.turn(params, state)
    return step._replace(values=judged.values, rewards=rewards, turn=turn)


def jump(networks: Networks, params: Params, state: Array, actions: Array) -> Step:
    """A sequence in one call: `state [B, D]`, `actions [B, L]` padded with -1, to where it ends.

    The reward is the discounted sum on the way; the discount is that of the end, 0 past an end of
    the game, without gamma.
    """
    assert networks.jump is not None and networks.reward_sum_of is not None
    end, reward_logits = networks.jump(params, state, actions)
    discount = jnp.ones(len(actions), jnp.float32)
    if networks.discount is not None:
        discount = networks.discount(params, end)
    reward = networks.reward_sum_of(reward_logits)
    judged = predict(networks, params, end)
    return Step(end, judged.policy_logits, judged.value, reward, discount)


def foretold_certain(networks: Networks, params: Params, state: Array, action: Array) -> Array:
    """Whether a jump may stand for a collapsed step: `state [B, D]`, `action [B]` to `[B]` bool.

    Nowhere, while more than `MOST_FALSE` of what was foretold on held-out states was not so, or
    while less than one such state in a batch was foretold to be certain.
    """
    counts = params["jump"]
    is_open = (counts["yes"] >= 1.0) & (counts["false_yes"] <= MOST_FALSE * counts["yes"])
    return (certainty(networks, params, state, action) > 0) & is_open


def certainty(networks: Networks, params: Params, state: Array, action: Array) -> Array:
    """The jump's logits `[B]` that the model is certain of `action [B]` in `state [B, D]`."""
    assert networks.certain is not None
    logits = networks.certain(params, state)
    return jnp.take_along_axis(logits, jnp.clip(action, 0, logits.shape[1] - 1)[:, None], 1)[:, 0]


def imagine(
    networks: Networks, params: Params, state: Array, actions: Array, codes: Any = None
) -> Imagined:
    """Plays `actions [K, B]` in the model from `state [B, D]`, open loop.

    `codes` says which outcomes follow. None: the likeliest ones; a PRNG key: drawn from sigma;
    integers `[K, B]`: these.
    """
    drawn = False
    if codes is not None and jnp.issubdtype(codes.dtype, jax.dtypes.prng_key):
        drawn, codes = True, jax.random.split(codes, len(actions))

    def step(state: Array, inputs: tuple[Array, Any]) -> tuple[Array, Imagined]:
        action, outcome = inputs
        afterstate = decide(networks, params, state, action)
        if drawn:
            outcome = jax.random.categorical(outcome, afterstate.logits)
        elif outcome is None:
            outcome = afterstate.likely
        code = one_hot_code(outcome, afterstate.logits.shape[-1])
        after = chance(networks, params, afterstate.state, code)
        return after.state, Imagined(afterstate, after)

    return jax.lax.scan(step, state, (actions, codes))[1]


def embed(networks: Networks, params: Params, observations: Array) -> Array:
    """Embeddings `[T, B, D]` of observations `[T, B, F, ...]`, by running statistics.

    Step by step: all T B frames at once fall out of a CPU's caches and take twice as long.
    """
    return jax.lax.map(lambda x: networks.representation(params, x), observations)


def encode(networks: Networks, params: Params, seen: Seen, afterstate: Array) -> Array:
    """The encoder's logits `[B, C]`: what happened, told by what was seen after `afterstate`."""
    after = seen.observation if networks.encoder_input == "frames" else seen.embedding
    return networks.encoder(params, after, afterstate)


def told(rng_key: Array | None, logits: Array) -> tuple[Array, Array]:
    """The encoder's word as it is: softmax and one-hot of `logits [B, C]`."""
    del rng_key
    return jax.nn.softmax(logits), one_hot_code(jnp.argmax(logits, axis=-1), logits.shape[-1])


def follow(
    networks: Networks,
    params: Params,
    root: Array,
    actions: Array,
    seen: Seen,
    *,
    codes: Callable[[Any, Array], tuple[Array, Array]] = told,
    forced: Array | None = None,
    rng_key: Array | None = None,
    carry: Callable[[Array], Array] = lambda state: state,
    unroll: int = 1,
) -> Followed:
    """Takes the model along a real window, each outcome the encoder's code of what was seen.

    Args:
        networks: the model.
        params: its parameters.
        root: `[B, D]`, embedding of the window's first observation.
        actions: `[K, B]` int32.
        seen: `[K, B, ...]`, after each step.
        codes: `(rng_key, logits [B, C]) -> q, code`, both `[B, C]`.
        forced: `[K, B]` int32, codes that the encoder is not the one to give; -1: it is.
        rng_key: consumed, a key of each step for `codes`; None: it needs none.
        carry: applied to a state before the next step starts from it.
        unroll: of `jax.lax.scan`.
    """

    def step(state: Array, inputs: Any) -> tuple[Array, Followed]:
        action, after, key, other = inputs
        afterstate = networks.afterstate_dynamics(params, state, action)
        probs, code = codes(key, encode(networks, params, after, afterstate))
        if other is not None:
            code = jnp.where(other[:, None] < 0, code, one_hot_code(other, code.shape[-1]))
        state, reward_logits = networks.dynamics(params, afterstate, code)
        return carry(state), Followed(afterstate, state, reward_logits, probs, code)

    keys = None if rng_key is None else jax.random.split(rng_key, len(actions))
    return jax.lax.scan(step, root, (actions, seen, keys, forced), unroll=unroll)[1]


def over_time(function: Callable[..., Any], params: Params, x: Array) -> Any:
    """A function of rows `[K * B, ...]` on `x [K, B, ...]`, all steps at once."""
    rows = function(params, x.reshape(-1, *x.shape[2:]))
    return jax.tree.map(lambda y: y.reshape(*x.shape[:2], *y.shape[1:]), rows)


def make_place(networks: Networks, config: Config) -> Callable[..., Array]:
    """The space in which ends are compared: where the two were trained to agree, if they were.

    Returns:
        `(params, embedding [N, ...], foreseen, among=None) -> [N, E]` float32: the projection
        (with the predictor of foreseen ends, by the statistics of `among`, or of the rows
        themselves), or the embedding as it is where the projection is not trained.
    """

    def place(params: Params, embedding: Array, foreseen: bool, among: Any = None) -> Array:
        if config.loss.consistency > 0 or config.loss.contrast > 0:
            embedding = networks.project(params, embedding, foreseen, among)
        return embedding.reshape(len(embedding), -1).astype(jnp.float32)

    return place
