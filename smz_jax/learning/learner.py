"""The training step: sample, unroll, differentiate, update."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from smz_jax.config.seeds import SHIFT_KEY
from smz_jax.config.settings import Config
from smz_jax.config.training import LossConfig
from smz_jax.learning.demonstrations import demonstration_share, mix
from smz_jax.learning.jump import make_jump_update, make_trunk_loss
from smz_jax.learning.losses import Batch, LossOutput, unrolled_loss
from smz_jax.learning.replay import Replay
from smz_jax.learning.targets import make_unroll_targets, random_actions_past_end
from smz_jax.learning.update_metrics import model_metrics, over_updates, support_metrics
from smz_jax.macros.precondition.updates import Known, make_head_update
from smz_jax.model.observe import shift_windows, stack_windows
from smz_jax.model.steps import predict
from smz_jax.types import Array, EnvSpec, Networks, Params, ReplaySample, TrainState


def total_learner_steps(config: Config) -> int:
    """Learner steps of the whole run; the schedules are laid over them."""
    iterations = config.total_env_steps // config.iteration_steps
    return max(1, config.updates_per_iteration * iterations)


def make_optimizer(config: Config) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW under a global-norm clip, warmed up and then cosine-decayed."""
    settings = config.learner
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if settings.warmup_steps else settings.learning_rate,
        peak_value=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        decay_steps=max(total_learner_steps(config), settings.warmup_steps + 1),
        end_value=settings.learning_rate_end,
    )
    matrices_only = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)  # noqa: E731
    optimizer = optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.adamw(schedule, weight_decay=settings.weight_decay, mask=matrices_only),
    )
    return optimizer, schedule


@functools.partial(jax.jit, static_argnums=(0, 1))  # one compilation, not one for every layer
def init_train_state(networks: Networks, config: Config, rng_key: Array) -> TrainState:
    """A fresh train state."""
    init_key, state_key = jax.random.split(rng_key)
    params = networks.init(init_key)
    return TrainState(
        params=params,
        target_params=jax.tree.map(jnp.copy, params),
        opt_state=make_optimizer(config)[0].init(params["params"]),
        rng_key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


def make_batch_builder(
    networks: Networks, config: Config, spec: EnvSpec
) -> Callable[[Params, Array, ReplaySample], Batch]:
    """Turns sampled rows into stacks, actions and targets.

    `(target_params, rng_key, sample) -> Batch`; the target parameters give bootstrap values where
    that is configured.
    """
    learner, history = config.learner, spec.context - 1
    steps = learner.unroll_steps

    def build(target_params: Params, rng_key: Array, sample: ReplaySample) -> Batch:
        rows = shift_windows(
            jax.random.fold_in(rng_key, SHIFT_KEY), sample.rows, learner.frame_shift
        )
        tail = jax.tree.map(lambda x: x[:, history:], rows._replace(frame=()))
        values = tail.search_value if spec.sides == 1 else tail.values
        observations = stack_windows(rows, spec, range(history, history + steps + 1))
        if learner.bootstrap == "target":
            # Of the rows that end the n steps alone; a truncation's last row keeps its own value.
            ends = range(history + learner.td_steps, rows.reward.shape[1])
            seen = stack_windows(rows, spec, ends)
            embeddings = networks.representation(target_params, seen.reshape(-1, *seen.shape[2:]))
            judged = predict(networks, target_params, embeddings)
            found = judged.of_players.reshape(len(values), -1, *values.shape[2:])
            values = values.at[:, learner.td_steps :].set(found)
        lengths = {"unroll_steps": steps, "td_steps": learner.td_steps}
        make_targets = functools.partial(
            make_unroll_targets,
            **lengths,
            gamma=learner.gamma,
            cut_below=learner.cut_below,
            sizes=spec.action_space.sizes,
        )
        targets = jax.vmap(make_targets)(tail, values)
        keys = jax.random.split(rng_key, rows.action.shape[0])
        actions = jax.vmap(random_actions_past_end, in_axes=(0, 0, 0, None))(
            keys, tail.action[:, :steps], targets.transition_mask, spec.num_actions
        )
        # Past the end of the window's own episode the model is fed the root again: what the next
        # game shows must reach neither a code nor the statistics of a batch.
        real = jnp.pad(targets.transition_mask, ((0, 0), (1, 0)), constant_values=1.0) > 0
        real = real.reshape(*real.shape, *[1] * (observations.ndim - 2))
        return Batch(
            observations=jnp.where(real, observations, observations[:, :1]),
            actions=actions,
            targets=targets,
            weights=sample.weights,
        )

    return build


def _make_loss(networks: Networks, config: Config, spec: EnvSpec) -> Callable:
    """`unrolled_loss`, and with `loss.jump` the jump's; `jumped` are the jump and the sample."""
    trunk_loss = make_trunk_loss(networks, config, spec) if config.loss.jump > 0 else None

    def total_loss(
        trained: Params, stats: Params, rng_key: Array, batch: Batch, jumped: Any, **changing: Any
    ) -> tuple[Array, LossOutput]:
        given = networks, rng_key, batch, config
        total, found = unrolled_loss(trained, stats, *given, **changing)
        if trunk_loss is None:
            return total, found
        jump, sample = jumped
        params = {"params": trained, "batch_stats": stats, "jump": jump}
        term = trunk_loss(params, sample, rng_key, found.unrolled)
        total += config.loss.jump * term
        metrics = {**found.metrics, "loss/jump": term, "loss/total": total}
        return total, found._replace(metrics=metrics)

    return total_loss


def make_update(networks: Networks, config: Config, spec: EnvSpec) -> Callable:
    """One optimiser step on one batch; the target network stays as it is.

    Returns:
        `(TrainState, ReplaySample) -> (TrainState, priorities [B], metrics)`, to be jitted.
    """
    optimizer, schedule = make_optimizer(config)
    build_batch = make_batch_builder(networks, config, spec)
    learner, network, loss = config.learner, config.network, config.loss

    def optimise(trained: Params, opt_state: Any, gradient: Params) -> tuple[Params, Any, Array]:
        updates, opt_state = optimizer.update(gradient, opt_state, trained)
        # An optimiser's state that overflows: it cannot be saved, but the parameters can.
        finite = jnp.isfinite(optax.tree.norm(updates))
        updates = jax.tree.map(lambda x: jnp.where(finite, x, 0.0), updates)
        return optax.apply_updates(trained, updates), opt_state, finite

    def update(state: TrainState, sample: ReplaySample):
        rng_key, batch_key, loss_key = jax.random.split(state.rng_key, 3)
        batch = build_batch(state.target_params, batch_key, sample)
        progress = jnp.clip(state.step / learner.schedule_steps, 0.0, 1.0).astype(jnp.float32)
        noise = network.encoder_noise + progress * (
            network.encoder_noise_end - network.encoder_noise
        )
        trained, former_stats = state.params["params"], state.params["batch_stats"]
        gradient_fn = jax.value_and_grad(_make_loss(networks, config, spec), has_aux=True)
        (total, (metrics, batch_stats, unrolled)), gradient = gradient_fn(
            trained,
            former_stats,
            loss_key,
            batch,
            (state.params.get("jump"), sample),
            noise=noise,
            scales=term_scales(loss, state.step, learner.schedule_steps),
        )
        grad_norm = optax.tree.norm(gradient)
        # Nothing that is not finite reaches the state; another batch may do better. A branch, and
        # around the optimiser alone: a choice between two states copies both.
        finite = jnp.isfinite(total) & jnp.isfinite(grad_norm)
        finite &= jnp.isfinite(optax.tree.norm(batch_stats))
        trained, opt_state, finite = jax.lax.cond(
            finite,
            optimise,
            lambda trained, opt_state, _: (trained, opt_state, jnp.zeros((), jnp.bool_)),
            *(trained, state.opt_state, gradient),
        )
        batch_stats = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), batch_stats, former_stats
        )
        root_value = networks.value_of(unrolled.predictions.value_logits[0])
        # A root on a final observation has no target: its error is not an error.
        error = jnp.abs(root_value - batch.targets.value[:, 0]) * batch.targets.value_mask[:, 0]
        mask = jnp.moveaxis(batch.targets.transition_mask, 1, 0)
        metrics |= model_metrics(unrolled, mask) | support_metrics(batch.targets, network)
        metrics |= {
            "learner/grad_norm": grad_norm,
            "learner/learning_rate": schedule(state.step),
            "learner/value_target": batch.targets.value[:, 0].mean(),
            "learner/value_error": error.mean(),
            "learner/skipped": ~finite,
        }
        new = state._replace(
            params={**state.params, "params": trained, "batch_stats": batch_stats},
            opt_state=opt_state,
            rng_key=rng_key,
            step=state.step + finite,
        )
        return new, jnp.where(finite, error, jnp.nan), metrics

    return update


def term_scales(loss: LossConfig, step: Array, length: int) -> dict[str, Array]:
    """What the weights of loss terms that change over the run are multiplied by, after `step`.

    Commitment and representation rise from `commitment_start` on; the reconstruction falls to its
    end from `length` steps on, once codes live; all within `length` learner steps.
    """

    def passed(start: int) -> Array:
        return jnp.clip((step - start) / length, 0.0, 1.0).astype(jnp.float32)

    rises = passed(loss.commitment_start)
    scales = {"commitment": rises, "representation": rises}
    if loss.reconstruction_end is not None and loss.reconstruction > 0:
        lost = 1.0 - loss.reconstruction_end / loss.reconstruction
        scales["reconstruction"] = 1.0 - lost * passed(length)
    return scales


class TrainStep:
    """`updates_per_dispatch` updates as one compiled call, and what comes with them.

    The train state and the replay state are donated: nothing is copied, and nothing returns to
    the host. On an accelerator many updates in one `lax.scan` save dispatches; on a CPU XLA runs
    the body of a loop at half speed (51 against 23 ms an update), so that one update per dispatch
    is best there. The target network, the head of preconditions and the jump have programs of
    their own, which run when it is their turn: a branch within the update would copy what it may
    change.
    """

    def __init__(
        self,
        networks: Networks,
        replay: Replay,
        config: Config,
        spec: EnvSpec,
        demonstrations: Replay | None = None,
    ) -> None:
        self._config = config
        updates = _make_updates(networks, replay, config, spec, demonstrations)
        self.program = jax.jit(updates, donate_argnums=(0, 1))
        head_update = make_head_update(networks, config, spec)

        def update_head(head: Any, params: Params, rng_key: Array, replay_state: Any, known: Any):
            sample = replay.sample(replay_state, jax.random.split(rng_key)[1])
            return head_update(head, params, sample, known)

        def move(target: Params, params: Params, share: Array, skipped: Array) -> Params:
            learned = skipped < config.learner.updates_per_dispatch
            moved = optax.incremental_update(params, target, jnp.where(learned, share, 0.0))
            # Owners of slots, and whether a search may take them, are no numbers to be averaged.
            is_number = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)  # noqa: E731
            return jax.tree.map(lambda new, x: x if is_number(new) else new, params, moved)

        def update_jump(
            jump: Any, own: Params, playing: Params, rng_key: Array, replay_state: Any, slots: Any
        ) -> Any:
            sample = replay.sample(replay_state, jax.random.split(rng_key)[1])
            return jump_update(jump, own, playing, sample, slots)

        jump_update = make_jump_update(networks, config, spec)
        self._update_jump = jax.jit(update_jump, donate_argnums=0)
        self._update_head = jax.jit(update_head, donate_argnums=0)
        self._move = jax.jit(move, donate_argnums=0)

    def __call__(
        self,
        state: TrainState,
        replay_state: Any,
        known: Known | None = None,
        done: int | None = None,
        shown: Any = None,
    ) -> tuple[TrainState, Any, dict[str, Array]]:
        """Learns.

        Args:
            state: of the learner.
            replay_state: the replay's.
            known: macros known so far. A head in the state takes evidence of them, and learns
                their preconditions, from every `macro.head_every`-th batch. So does a jump from
                every `learner.jump_every`-th, of what the parameters that play make of it.
            done: updates so far, which say whose turn it is; None: those of the state, for which
                the host has to wait.
            shown: state of the demonstrations' ring, if there is one; it stays as it is.

        Returns:
            Both states, and metrics as `over_updates` has them, but for `learner/skipped`, a count.
        """
        config, learner = self._config, self._config.learner
        head, jump, key = state.head, state.jump, state.rng_key
        done = int(state.step) if done is None else done
        after = done + learner.updates_per_dispatch
        beside: dict[str, Array] = {}
        for number in range(done, after):
            # The first learns from the batch that the model learns from next.
            own = jax.random.fold_in(key, number) if number > done else key
            if head is not None and number % config.macro.head_every == 0:
                head = self._update_head(head, state.params, own, replay_state, known)
            if jump is not None and number % learner.jump_every == 0:
                given = state.params["jump"], acting_params(state, config), own, replay_state
                slots = head.slots if head is not None and config.network.gain_slots else None
                jump, found, beside = self._update_jump(jump, *given, slots)
                state = state._replace(params={**state.params, "jump": found})
        alone = state._replace(head=None, jump=None)
        state, replay_state, metrics = self.program(alone, replay_state, shown)
        copies = after // learner.target_update_period
        if copies > done // learner.target_update_period:
            # The first ones are plain averages, so that the beginning leaves no trace.
            share = max(learner.target_update_share, 1 / copies)
            moved = self._move(
                state.target_params, state.params, np.float32(share), metrics["learner/skipped"]
            )
            state = state._replace(target_params=moved)
        return state._replace(head=head, jump=jump), replay_state, metrics | beside


def _make_updates(
    networks: Networks,
    replay: Replay,
    config: Config,
    spec: EnvSpec,
    demonstrations: Replay | None,
) -> Callable:
    """`(TrainState, replay_state, shown) -> (TrainState, replay_state, metrics)` of a dispatch."""
    update, length = make_update(networks, config, spec), config.learner.updates_per_dispatch
    total = total_learner_steps(config)

    def train(state: TrainState, replay_state: Any, shown: Any = None):
        def one(carry, _):
            state, replay_state = carry
            rng_key, sample_key = jax.random.split(state.rng_key)
            sample, beside = replay.sample(replay_state, sample_key), {}
            if demonstrations is not None:
                draw_key, mix_key = jax.random.split(jax.random.fold_in(sample_key, 1))
                share = demonstration_share(config.replay, state.step, total)
                given = demonstrations.sample(shown, draw_key), mix_key, share
                sample, is_shown = mix(sample, *given)
                beside["learner/demonstrations"] = jnp.mean(is_shown, dtype=jnp.float32)
            state, priorities, metrics = update(state._replace(rng_key=rng_key), sample)
            metrics |= beside
            replay_state = replay.set_priorities(replay_state, sample.indices, priorities)
            return (state, replay_state), metrics

        if length == 1:
            carry, metrics = one((state, replay_state), None)
            return *carry, metrics
        carry, metrics = jax.lax.scan(one, (state, replay_state), length=length)
        skipped = jnp.sum(metrics["learner/skipped"], dtype=jnp.int32)
        return *carry, over_updates(metrics, jnp) | {"learner/skipped": skipped}

    return train


def acting_params(state: TrainState, config: Config) -> Params:
    """The parameters that play, are evaluated and verified: learned, or their moving average."""
    is_average = config.learner.target_update_share < 1.0
    return state.target_params if is_average else state.params
