"""The training step: sample, unroll, differentiate, update."""

import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from smz_jax.config.settings import Config, NetworkConfig
from smz_jax.learning.losses import Batch, Unrolled, unrolled_loss
from smz_jax.learning.replay import Replay
from smz_jax.learning.targets import make_unroll_targets, random_actions_past_end
from smz_jax.macros.precondition.head import Known, make_head_update
from smz_jax.model.observe import stack_windows
from smz_jax.model.steps import entropy_nats, predict
from smz_jax.model.values import signed_hyperbolic
from smz_jax.types import Array, EnvSpec, Networks, Params, ReplaySample, TrainState, UnrollTargets


def total_learner_steps(config: Config) -> int:
    """Learner steps of the whole run; the schedules are laid over them."""
    per_iteration = config.env.num_envs * config.rollout.length
    return max(1, config.updates_per_iteration * (config.total_env_steps // per_iteration))


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


def init_train_state(networks: Networks, config: Config, rng_key: Array) -> TrainState:
    """A fresh train state."""
    optimizer, _ = make_optimizer(config)

    @jax.jit  # one compilation in place of one for every layer
    def init(key: Array) -> TrainState:
        init_key, state_key = jax.random.split(key)
        params = networks.init(init_key)
        return TrainState(
            params=params,
            target_params=jax.tree.map(jnp.copy, params),
            opt_state=optimizer.init(params["params"]),
            rng_key=state_key,
            step=jnp.zeros((), jnp.int32),
        )

    return init(rng_key)


def model_metrics(unrolled: Unrolled, mask: Array) -> dict[str, Array]:
    """Diagnostics of one batch: is the code alive, does the prior know it, do embeddings differ.

    `mask [K, B]` is 1 for real transitions.
    """
    total = jnp.maximum(mask.sum(), 1.0)
    usage = (
        jnp.sum(jax.lax.stop_gradient(unrolled.followed.codes) * mask[..., None], axis=(0, 1))
        / total
    )
    perplexity = jnp.exp(-jnp.sum(usage * jnp.log(jnp.maximum(usage, 1e-9))))
    agrees = jnp.argmax(unrolled.judged.chance_logits, -1) == jnp.argmax(
        unrolled.followed.codes, -1
    )
    entropy = entropy_nats(unrolled.judged.chance_logits)
    root = unrolled.embeddings[0].astype(jnp.float32)
    return {
        "model/code_perplexity": perplexity,
        "model/agreement": jnp.sum(agrees * mask) / total,
        "model/chance_entropy_nats": jnp.sum(entropy * mask) / total,
        "model/embedding_variance": root.var(axis=0).mean(),
    }


def support_metrics(targets: UnrollTargets, network: NetworkConfig) -> dict[str, Array]:
    """Share of the real rewards and value targets beyond their support, and how far they reach.

    A reach is the support that would hold the largest one. Targets under a zero mask are 0.
    """
    found = {}
    for name, target, mask, support in (
        ("reward", targets.reward, targets.transition_mask, network.reward_support),
        ("value", targets.value, targets.value_mask, network.value_support),
    ):
        size = jnp.abs(signed_hyperbolic(target))
        found[f"learner/{name}s_cut"] = jnp.sum(size > support) / jnp.maximum(mask.sum(), 1.0)
        found[f"learner/{name}_reach"] = jnp.ceil(size.max())
    return found


def over_updates(metrics: Mapping[str, Any], of: ModuleType) -> dict[str, Any]:
    """Metrics `[updates]` as one's: the largest reach, else the mean; `of` is NumPy or JAX's.

    An update that was skipped has no numbers.
    """
    return {
        name: (of.nanmax if name.endswith("_reach") else of.nanmean)(of.asarray(x), axis=0)
        for name, x in metrics.items()
    }


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
        rows = sample.rows
        tail = jax.tree.map(lambda x: x[:, history:], rows._replace(frame=()))
        values = tail.search_value
        needs_values = learner.bootstrap == "target"
        last = rows.reward.shape[1] if needs_values else history + steps + 1
        observations = stack_windows(rows, spec.context, range(history, last))
        if needs_values:
            flat = observations.reshape(-1, *observations.shape[2:])
            embeddings = networks.representation(target_params, flat)
            values = predict(networks, target_params, embeddings).value.reshape(values.shape)
        lengths = {"unroll_steps": steps, "td_steps": learner.td_steps}
        make_targets = functools.partial(make_unroll_targets, **lengths, gamma=learner.gamma)
        targets = jax.vmap(make_targets)(tail, values)
        keys = jax.random.split(rng_key, rows.action.shape[0])
        actions = jax.vmap(random_actions_past_end, in_axes=(0, 0, 0, None))(
            keys, tail.action[:, :steps], targets.transition_mask, spec.num_actions
        )
        # Past the end of the window's own episode the model is fed the root again: what the next
        # game shows must reach neither a code nor the statistics of a batch.
        observations = observations[:, : steps + 1]
        real = jnp.pad(targets.transition_mask, ((0, 0), (1, 0)), constant_values=1.0) > 0
        real = real.reshape(*real.shape, *[1] * (observations.ndim - 2))
        return Batch(
            observations=jnp.where(real, observations, observations[:, :1]),
            actions=actions,
            targets=targets,
            weights=sample.weights,
        )

    return build


def make_update(networks: Networks, config: Config, spec: EnvSpec) -> Callable:
    """One optimiser step on one batch.

    Returns:
        `(TrainState, ReplaySample) -> (TrainState, priorities [B], metrics)`, to be jitted.
    """
    optimizer, schedule = make_optimizer(config)
    build_batch = make_batch_builder(networks, config, spec)
    learner, network, loss = config.learner, config.network, config.loss

    def update(state: TrainState, sample: ReplaySample):
        rng_key, batch_key, loss_key = jax.random.split(state.rng_key, 3)
        batch = build_batch(state.target_params, batch_key, sample)
        progress = jnp.clip(state.step / learner.schedule_steps, 0.0, 1.0).astype(jnp.float32)
        noise = network.encoder_noise + progress * (
            network.encoder_noise_end - network.encoder_noise
        )
        rise = (state.step - loss.commitment_start) / learner.schedule_steps
        commitment_scale = jnp.clip(rise, 0.0, 1.0).astype(jnp.float32)
        gradient_fn = jax.value_and_grad(unrolled_loss, has_aux=True)
        given = networks, loss_key, batch, config
        scales = {"noise": noise, "commitment_scale": commitment_scale}
        (total, (metrics, batch_stats, unrolled)), gradient = gradient_fn(
            state.params["params"], state.params["batch_stats"], *given, **scales
        )
        grad_norm = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params["params"])
        trained = optax.apply_updates(state.params["params"], updates)
        params = {"params": trained, "batch_stats": batch_stats}
        step = state.step + 1
        target = _either(step % learner.target_update_period == 0, params, state.target_params)
        root_value = networks.value_of(unrolled.predictions.value_logits[0])
        # A root on a final observation has no target: its error is not an error.
        error = jnp.abs(root_value - batch.targets.value[:, 0]) * batch.targets.value_mask[:, 0]
        mask = jnp.moveaxis(batch.targets.transition_mask, 1, 0)
        metrics |= model_metrics(unrolled, mask) | support_metrics(batch.targets, network)
        # Nothing that is not finite reaches the state; another batch may do better.
        finite = jnp.isfinite(total) & jnp.isfinite(grad_norm)
        finite &= jnp.all(jnp.array([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(params)]))
        metrics |= {
            "learner/grad_norm": grad_norm,
            "learner/learning_rate": schedule(state.step),
            "learner/value_target": batch.targets.value[:, 0].mean(),
            "learner/value_error": error.mean(),
            "learner/skipped": ~finite,
        }
        kept = state._replace(rng_key=None, head=None)
        new = kept._replace(params=params, target_params=target, opt_state=opt_state, step=step)
        new = _either(finite, new, kept)._replace(rng_key=rng_key, head=state.head)
        return new, jnp.where(finite, error, jnp.nan), metrics

    return update


def _either(choice: Array, new: Any, old: Any) -> Any:
    """A branch, for XLA would repeat the test of all layers within a choice for each of them."""
    return jax.lax.cond(choice, lambda new, old: new, lambda new, old: old, new, old)


def make_train_step(networks: Networks, replay: Replay, config: Config, spec: EnvSpec) -> Callable:
    """`updates_per_dispatch` updates as one compiled call, sampling included.

    The train state and the replay state are donated: nothing is copied, and nothing returns to
    the host. On an accelerator many updates in one `lax.scan` save dispatches; on a CPU XLA runs
    the body of a loop at half speed (51 against 23 ms an update), so that one update per dispatch
    is best there.

    Returns:
        `(TrainState, replay_state, known=None) -> (TrainState, replay_state, metrics)`, jitted;
        the metrics are as `over_updates` has them, but for `learner/skipped`, a count. A head in
        the state takes evidence of the macros that are known, and learns their preconditions,
        from every `macro.head_every`-th batch.
    """
    update = make_update(networks, config, spec)
    head_update = make_head_update(networks, config, spec)
    length = config.learner.updates_per_dispatch

    def with_head(state: TrainState, sample: ReplaySample, known: Known | None):
        # A branch of its own: nothing of the model waits for it or is fused with it.
        return jax.lax.cond(
            state.step % config.macro.head_every == 0,
            lambda head: head_update(head, state.params, sample, known),
            lambda head: head,
            state.head,
        )

    def train(state: TrainState, replay_state, known: Known | None = None):
        def one(carry, _):
            state, replay_state = carry
            rng_key, sample_key = jax.random.split(state.rng_key)
            sample = replay.sample(replay_state, sample_key)
            if state.head is not None:
                state = state._replace(head=with_head(state, sample, known))
            state, priorities, metrics = update(state._replace(rng_key=rng_key), sample)
            replay_state = replay.set_priorities(replay_state, sample.indices, priorities)
            return (state, replay_state), metrics

        if length == 1:
            carry, metrics = one((state, replay_state), None)
            return *carry, metrics
        carry, metrics = jax.lax.scan(one, (state, replay_state), length=length)
        skipped = jnp.sum(metrics["learner/skipped"], dtype=jnp.int32)
        return *carry, over_updates(metrics, jnp) | {"learner/skipped": skipped}

    return jax.jit(train, donate_argnums=(0, 1))
