"""The six functions of Stochastic MuZero (Antonoglou et al., ICLR 2022, section 4).

s  = h(o)          representation          (p, v) = f(s)       prediction
as = phi(s, a)     afterstate_dynamics     (sigma, Q) = psi(as) afterstate_prediction
(s', r) = g(as, c) dynamics                c = e(o')           encoder, fed what came *after*
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from smz_jax import types
from smz_jax.config.check import require
from smz_jax.config.network import SEQUENCES, NetworkConfig
from smz_jax.config.seeds import JUMP_KEY
from smz_jax.model.actions import encode, head_sizes, policy_logits
from smz_jax.model.heads import CodeHead, Heads, Projector, Transition
from smz_jax.model.jump import Jump, fresh_jump, jump_functions
from smz_jax.model.layers import SCALES, ChangeNorm, EmbeddingNorm, PixelNorm, as_float
from smz_jax.model.torsos import FAMILIES, Torso
from smz_jax.model.values import Transform, logits_to_scalar
from smz_jax.types import Array, EnvSpec, Networks, Params


class Model(nn.Module):
    """All sub-networks under one parameter tree; each method is one function of the paper."""

    config: NetworkConfig
    spec: EnvSpec

    def setup(self) -> None:
        """Makes the sub-modules; their names are the parameter tree's top level."""
        c = self.config
        dtype = self.dtype
        values, rewards = (
            self.spec.sides * (2 * support + 1) for support in (c.value_bins, c.reward_support)
        )
        pixels = self.decoded_pixels
        family = FAMILIES[c.family]
        self.pixel_norm = PixelNorm(self.spec.frame_shape, c.input_norm)
        self.representation_torso = family.torso(c, c.embedding_size, dtype, False)
        self.representation_norm = EmbeddingNorm(c.embedding_norm)
        outputs = sum(head_sizes(self.spec.action_space, c.number_policy))
        self.prediction_head = Heads(c.hidden_size, (outputs, values), dtype)
        transition = functools.partial(
            *(Transition, c.hidden_size, c.num_blocks, dtype, family.has_lines),
            scale=c.embedding_scale,
        )
        self.afterstate_transition = transition()
        self.afterstate_head = Heads(c.hidden_size, (c.codebook_size, values), dtype)
        self.dynamics_transition = transition()
        self.reward_head = Heads(c.hidden_size, (rewards,), dtype)
        if c.continuation:
            kinds = {1: 1, 2: 3}.get(self.spec.players, self.spec.players + 1)
            self.continuation_head = Heads(c.hidden_size, (kinds,), dtype)
        if c.encoder_input == "frames":
            features = c.embedding_size if family.is_spatial else c.hidden_size
            self.encoder_torso = family.torso(c, features, dtype, True)
        self.encoder_head = CodeHead(c.hidden_size, c.codebook_size, dtype)
        self.projector = Projector(c.hidden_size, dtype)
        if self.measures_changes:
            self.change_norm = ChangeNorm(pixels)
        if pixels:
            self.state_decoder = Heads(c.hidden_size, (pixels,), dtype)
            self.afterstate_decoder = Heads(c.hidden_size, (pixels,), dtype)

    @property
    def decoded_pixels(self) -> int:
        """Length of what the auxiliary heads predict; 0: there are none."""
        size, shape = self.config.decoder_size, self.spec.frame_shape
        return 0 if not size else size**2 if len(shape) == 2 else math.prod(shape)

    @property
    def measures_changes(self) -> bool:
        """Whether what is decoded is measured by the deviation of each pixel's changes."""
        return self.decoded_pixels > 0 and self.config.decoder_target == "balanced_difference"

    @property
    def dtype(self) -> jnp.dtype:
        """What to compute in; parameters and head outputs stay float32."""
        return jnp.dtype(jnp.bfloat16 if self.config.bfloat16 else jnp.float32)

    def representation(self, observation: Array, train: bool = False) -> Array:
        """h: `[B, F, *frame_shape]` to an embedding in [0, 1]."""
        if train and self.measures_changes:
            newest, before = observation[:, -1], observation[:, -2]
            self.change_norm.update(self.decoded(as_float(newest) - as_float(before)))
        x = self.features(self.representation_torso, observation, train)
        return SCALES[self.config.embedding_scale].bound(self.representation_norm(x, train))

    def features(self, torso: Torso, observation: Array, train: bool) -> Array:
        """What a torso makes of an observation; the mark before its frames is not standardised."""
        arrange = FAMILIES[self.config.family].arrange
        if not self.spec.is_marked:
            return torso(self.pixel_norm(observation, train, arrange))
        count = observation.reshape(*observation.shape[:2], -1)[:, 0, 0].astype(jnp.int32)
        return torso(self.pixel_norm(observation[:, 1:], train, arrange), count)

    def prediction(self, embedding: Array) -> types.Prediction:
        """f: what a state is worth, and what to do in it."""
        outputs, value = self.prediction_head(embedding)
        kind = self.spec.action_space, self.config.number_policy
        return types.Prediction(policy_logits(outputs, *kind), self.by_side(value))

    def by_side(self, logits: Array) -> Array:
        """Logits `[B, P S]` of more than two players as `[B, P, S]`; of fewer they stay."""
        sides = self.spec.sides
        return logits if sides == 1 else logits.reshape(len(logits), sides, -1)

    def afterstate_dynamics(self, embedding: Array, action: Array) -> Array:
        """phi: `action [B]` enters as `encode` has it; gives the afterstate, scaled likewise."""
        return self.afterstate_transition(embedding, encode(action, self.spec.action_space))

    def afterstate_prediction(self, afterstate: Array) -> types.AfterstatePrediction:
        """psi: what may happen, and what the decision is worth."""
        chance, value = self.afterstate_head(afterstate)
        return types.AfterstatePrediction(chance, self.by_side(value))

    def dynamics(self, afterstate: Array, chance_code: Array) -> types.DynamicsOutput:
        """g: `chance_code [B, C]` is the one-hot that carries the straight-through gradient."""
        embedding = rewarded = self.dynamics_transition(afterstate, chance_code)
        if self.config.reward_sees_afterstate:
            rewarded = jnp.concatenate([embedding, afterstate], axis=-1)
        return types.DynamicsOutput(embedding, self.by_side(self.reward_head(rewarded)[0]))

    def continuation(self, embedding: Array) -> Array:
        """Logits `[B]` that the game goes on in a state (as in Hafner et al. 2023, DreamerV3).

        Of two players `[B, 3]`: by the discount of the step to it, which is -1, 0 or 1. Of P > 2
        `[B, P + 1]`: by the seats from who moved to who moves now; the last one: it is over.
        """
        logits = self.continuation_head(embedding)[0]
        return logits[:, 0] if self.spec.players == 1 else logits

    def encoder(self, after: Array, afterstate: Array) -> Array:
        """e: code logits `[B, C]` from the observation after the step (or its embedding)."""
        if self.config.encoder_input == "frames":
            after = self.features(self.encoder_torso, after, False)
        return self.encoder_head(after, afterstate if self.config.encoder_sees_afterstate else None)

    def project(self, embedding: Array, predict: bool, among: Array | None = None) -> Array:
        """The projection whose cosine the consistency loss compares.

        It holds batch norms without running averages. In training a batch is its own measure;
        else `among [R, ...]` is, so that a row's projection does not depend on its neighbours.
        """
        if among is None:
            return self.projector(embedding, predict)
        rows = among.shape[0]
        return self.projector(jnp.concatenate([among, embedding]), predict, rows)[rows:]

    def decode(self, embedding: Array, afterstate: Array) -> types.DecodedFrames:
        """Next frames `[B, pixels]` as the next state and the afterstate foresee them."""
        return types.DecodedFrames(
            *self.state_decoder(embedding), *self.afterstate_decoder(afterstate)
        )

    def frame_target(self, frame: Array, before: Array) -> Array:
        """What `decode` is to foresee of a frame `[B, *frame_shape]` that follows another.

        Images become `[B, decoder_size^2]`, resized by area; all else `[B, its length]`.
        """
        if self.config.decoder_target == "standardised":
            return self.decoded(self.pixel_norm(frame[:, None], False)[:, 0])
        if self.config.decoder_target == "difference":
            return self.decoded(self.pixel_norm.difference(frame, before))
        return self.change_norm(self.decoded(as_float(frame) - as_float(before)))

    def decoded(self, x: Array) -> Array:
        """Frames `[B, *frame_shape]` at the size that is decoded, flat."""
        if x.ndim == 3:
            size = self.config.decoder_size
            x = jax.image.resize(x, (x.shape[0], size, size), "linear", antialias=True)
        return x.reshape(x.shape[0], -1)

    def everything(self, observation: Array, action: Array) -> None:
        """Calls each sub-network once; used to initialise the parameters."""
        embedding = self.representation(observation)
        self.prediction(embedding)
        afterstate = self.afterstate_dynamics(embedding, action)
        self.afterstate_prediction(afterstate)
        after = observation if self.config.encoder_input == "frames" else embedding
        code = jax.nn.softmax(self.encoder(after, afterstate))
        embedding = self.dynamics(afterstate, code).embedding
        self.project(embedding, True)
        if self.config.continuation:
            self.continuation(embedding)
        if self.decoded_pixels:
            self.decode(embedding, afterstate)
            self.frame_target(observation[:, -1], observation[:, 0])


def _check_fits(config: NetworkConfig, spec: EnvSpec) -> None:
    """Raises ConfigError in one line where a network is not for an environment."""
    kind = {2: "images", 3: "boards"}.get(len(spec.frame_shape), "vectors")
    families = [name for name, family in FAMILIES.items() if kind in family.observations]
    allowed = f"{' or '.join(families)}: the observations of {spec.name} are {kind}"
    require(config.family in families, "network.family", config.family, allowed)
    fits = (config.family in SEQUENCES) == spec.is_marked
    require(fits, "env.mark_start", spec.is_marked, f"{not spec.is_marked} with {config.family}")
    where = f"in {spec.name}, a game of {spec.players} players"
    fits = spec.players == 1 or config.continuation
    require(fits, "network.continuation", config.continuation, f"true {where}")
    fits = spec.players == 1 or config.jump_length == 0
    require(fits, "network.jump_length", config.jump_length, f"0 {where}")
    can_jump = len(spec.action_space.sizes) == 1 or not config.jump_length
    allowed = "0 where actions have several parts"
    require(can_jump, "network.jump_length", config.jump_length, allowed)
    fits = config.number_policy == "bins" or spec.action_space.is_continuous
    allowed = f"bins: no part of an action of {spec.name} is a number"
    require(fits, "network.number_policy", config.number_policy, allowed)


def of_mover(scalar: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """What `scalar` makes of the mover's logits: of `[..., P, S]` the first of the players'."""
    return lambda logits: scalar(logits[..., 0, :])


def _turns(spec: EnvSpec, continuation: Callable[..., Array]) -> dict[str, Any]:
    """`Networks.discount`, and of more than two players `turn`, by the head of what follows."""

    def next_seat(logits: Array) -> Array:
        return jnp.argmax(logits[:, :-1], axis=-1).astype(jnp.int32)

    def discount(params: Params, embedding: Array) -> Array:
        logits = continuation(params, embedding)
        if spec.players == 1:
            return jax.nn.sigmoid(logits)
        chances = jax.nn.softmax(logits)
        if spec.players == 2:
            return chances[:, 2] - chances[:, 0]
        goes_on = 1.0 - chances[:, -1]
        return jnp.where(next_seat(logits) == 0, goes_on, -goes_on)

    def turn(params: Params, embedding: Array) -> Array:
        return next_seat(continuation(params, embedding))

    return {"discount": discount} | ({"turn": turn} if spec.sides > 1 else {})


def make_networks(config: NetworkConfig, spec: EnvSpec) -> Networks:
    """The model as pure functions.

    Raises:
        ConfigError: if the family is not for the kind of observation, or another setting not for
            the environment.
    """
    _check_fits(config, spec)
    model = Model(config, spec)
    jump = Jump(config, spec.num_actions, FAMILIES[config.family].has_lines, model.dtype)

    def init(rng_key: Array) -> Params:
        observation = jnp.zeros((2, *spec.observation_shape), spec.frame_dtype)
        variables = model.init(
            rng_key, observation, jnp.zeros(2, jnp.int32), method=Model.everything
        )
        params = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
        if config.jump_length:
            state: Any = model.apply(params, observation, method=Model.representation)
            params["jump"] = fresh_jump(jump, jax.random.fold_in(rng_key, JUMP_KEY), state)
        return params

    def pure(method: Callable[..., Any], static: int | None = None) -> Callable[..., Any]:
        def function(params: Params, *inputs: Any) -> Any:
            return model.apply(params, *inputs, method=method)

        # Traced once for all programs that call it, and the same equations in each.
        return jax.jit(function, inline=True, static_argnums=static)

    def scalar_of(
        support: int, transform: Transform, width: float = 1.0
    ) -> Callable[[Array], Array]:
        one = functools.partial(logits_to_scalar, support=support, transform=transform, width=width)
        return jnp.vectorize(one, signature="(s)->()")

    continuation = pure(Model.continuation) if config.continuation else None

    value_of = scalar_of(config.value_bins, config.value_transform, config.value_width)
    reward_of = scalar_of(config.reward_support, config.reward_transform)
    of_all: dict[str, Any] = {}
    if spec.sides > 1:
        of_all = {"all_values": value_of, "all_rewards": reward_of}
        value_of, reward_of = of_mover(value_of), of_mover(reward_of)

    def representation_train(params: Params, observation: Array):
        embedding, updated = model.apply(
            params, observation, True, method=Model.representation, mutable=["batch_stats"]
        )
        return embedding, updated.get("batch_stats", {})

    return Networks(
        init=init,
        representation=pure(Model.representation),
        prediction=pure(Model.prediction),
        afterstate_dynamics=pure(Model.afterstate_dynamics),
        afterstate_prediction=pure(Model.afterstate_prediction),
        dynamics=pure(Model.dynamics),
        encoder=pure(Model.encoder),
        representation_train=representation_train,
        project=pure(Model.project, 2),
        decode=pure(Model.decode),
        frame_target=pure(Model.frame_target),
        value_of=value_of,
        reward_of=reward_of,
        parts=spec.action_space.sizes,
        encoder_input=config.encoder_input,
        **(_turns(spec, continuation) if continuation else {}),
        continuation=continuation,
        **of_all,
        **(jump_functions(jump, scalar_of) if config.jump_length else {}),
    )
