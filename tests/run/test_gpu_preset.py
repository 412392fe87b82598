"""The path that an accelerator takes, at small sizes on the CPU: preset `gpu`, a static search."""

import jax
import pytest

from smz_jax.config.cli import parse
from smz_jax.config.experiment import Experiment
from smz_jax.run.loop import iterate
from smz_jax.run.parts import make_parts
from smz_jax.run.state import fresh_state
from smz_jax.storage.metrics import PhaseTimers

FLAGS = [
    *("--preset=gpu", "--total_env_steps=4096", "--env.num_envs=4", "--rollout.length=8"),
    *("--search.static", "--search.num_simulations=4", "--search.max_depth=4"),
    *("--replay.capacity=2048", "--replay.min_size=64", "--network.embedding_size=8"),
    *("--network.hidden_size=8", "--network.num_blocks=1", "--network.torso_channels=4"),
    *("--network.codebook_size=4", "--network.value_support=10", "--learner.batch_size=4"),
    *("--learner.unroll_steps=1", "--learner.td_steps=2", "--learner.updates_per_dispatch=2"),
    *("--learner.updates_per_env_step=0.125", "--macro.max_length=3", "--macro.capacity=64"),
    *("--macro.slots=8", "--macro.head_size=16", "--macro.bucket_warmup_steps=96"),
]
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def compiled():
    """Programs compiled so far, by a listener that stays."""
    count = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: count.append(event) if event == COMPILED else None
    )
    return count


def test_nothing_is_compiled_again_and_an_update_asks_the_host_nothing(compiled):
    config = parse(FLAGS, Experiment("breakout", "atari", {"env.id": "Breakout"})).config
    parts = make_parts(config, PhaseTimers())
    state = fresh_state(parts)
    for _ in range(4):  # the first ones fill the replay
        state, row = iterate(parts, state)
    assert row["learner_steps"] > 0
    before = len(compiled)
    assert before > 0
    state, row = iterate(parts, state)
    assert len(compiled) == before
    with jax.transfer_guard("disallow"):
        trained, _, metrics = parts.train_step.program(
            state.train._replace(head=None), state.replay
        )
        jax.block_until_ready((trained.params, metrics))
    parts.source.close()
