"""What is made from a run's settings once: functions, games, the search for macros."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from smz_jax.acting.actor import Actor
from smz_jax.acting.agent import Agent, make_decide
from smz_jax.acting.plans import make_follow
from smz_jax.config.check import require
from smz_jax.config.seeds import HEAD_KEY
from smz_jax.config.settings import Config
from smz_jax.envs import RestingEnv, make_env, make_spec
from smz_jax.envs.rebuilt import RebuiltEnv
from smz_jax.learning.diagnose import make_check, make_foresight
from smz_jax.learning.jump import init_jump
from smz_jax.learning.jump_check import make_jump_check
from smz_jax.learning.learner import TrainStep, init_train_state
from smz_jax.learning.reanalyse import Reanalysed, make_reanalyse
from smz_jax.learning.replay import Replay, check_memory, layout, make_replay
from smz_jax.learning.sources import Source
from smz_jax.macros.mine.keys import why_no_macros
from smz_jax.macros.mine.miner import MacroState, Miner
from smz_jax.macros.precondition.updates import init_head, settle
from smz_jax.model.lanes import LANES, WHOLE, count_processes, shardings
from smz_jax.model.networks import make_networks
from smz_jax.run.demonstrations import Demonstrations
from smz_jax.run.devices import make_mesh
from smz_jax.run.stored_play import StoredPlay
from smz_jax.run.transfer import Transfer
from smz_jax.storage.metrics import PhaseTimers
from smz_jax.types import Array, Decision, EnvSpec, Networks, Params, TrainState

_settle = jax.jit(settle, static_argnames="config", donate_argnums=(0, 1))


class Parts(NamedTuple):
    """The parts of a run; what they compute with is in `RunState`."""

    config: Config
    spec: EnvSpec
    networks: Networks
    replay: Replay
    reanalyse: Callable[..., Reanalysed]  # as `make_reanalyse` gives it
    train_step: TrainStep
    check: Callable[..., Any]  # as `make_check` gives it
    foresight: Callable[..., Any]  # as `make_foresight` gives it
    jump_check: Callable[..., Any] | None  # as `make_jump_check` gives it; None: there is no jump
    decide: Callable[..., Decision]  # in evaluations
    agent: Callable[..., Agent]  # (params, seed, **options) -> who plays by the search
    settle: Callable[..., Any]  # (HeadState, MacroTable) -> both, of an iteration's evidence
    miner: Miner
    source: Source
    demonstrations: Demonstrations | None
    transfer: Transfer | None
    init: Callable[[], tuple[TrainState, Any, MacroState]]  # fresh arrays: learner, replay, macros
    mesh: Mesh  # of devices, also of one
    timers: PhaseTimers

    def steps(self, iterations: int) -> int:
        """Steps of the run after so many iterations: those played, updates where none are."""
        return iterations * self.config.iteration_steps


def make_parts(config: Config, timers: PhaseTimers) -> Parts:
    """Makes the parts of a run and opens its games.

    Raises:
        ConfigError: in one line, if something does not fit: memory, an unknown game.
    """
    mesh, spec = make_mesh(config.devices, config.processes), make_spec(config.env)
    check_memory(config, spec)
    slots, why = config.network.gain_slots, why_no_macros(spec.action_space)
    require(not slots or not why, "network.gain_slots", slots, f"0, for {why}")
    transfer = Transfer(config, spec) if config.macros_from else None
    networks = make_networks(config.network, spec)
    replay = make_replay(config, spec, mesh)
    # Where there are several processes, one alone plays evaluations, on a device of its own.
    home = None if mesh.is_multi_process else mesh
    who: list[Any] = [(config.rollout.policy, mesh), (config.eval.policy, home)]
    deciders = {
        pair: make_decide(networks, config, spec, policy=pair[0], mesh=pair[1]) for pair in who
    }
    decide = deciders[config.eval.policy, home]
    embedding = jax.eval_shape(
        networks.representation,
        jax.eval_shape(networks.init, jax.random.key(0)),
        np.zeros((1, *spec.observation_shape), spec.frame_dtype),
    )
    learner_key, macro_key, acting_key = jax.random.split(jax.random.key(config.seed), 3)
    reanalyse, stored, mined = make_reanalyse(networks, config, spec, mesh), None, config
    if config.dataset:
        stored = StoredPlay(config, spec, replay, reanalyse, timers)
        mined, reanalyse = replace(config, macro=stored.macro_settings), no_reanalyse
    shown = Demonstrations(config, spec, networks) if config.demonstrations else None
    miner = Miner(mined, spec.action_space, embedding.shape[1:], mesh, spec.players)
    if stored:
        stored.watch = miner.watch

    def init() -> tuple[TrainState, Any, MacroState]:
        train = init_train_state(networks, config, learner_key)
        if not why:
            head_key = jax.random.fold_in(jax.random.key(config.seed), HEAD_KEY)
            head = init_head(config.macro, embedding.shape[1:], head_key, spec.num_actions)
            train = train._replace(head=head)
        if networks.jump:
            train = train._replace(jump=init_jump(config, train.params["jump"]))
        return train, replay.init(), miner.init(macro_key)

    return Parts(
        config=config,
        spec=spec,
        networks=networks,
        replay=replay,
        reanalyse=reanalyse,
        train_step=TrainStep(networks, replay, config, spec, shown and shown.replay),
        check=make_check(networks, replay, config, spec),
        foresight=make_foresight(networks, replay, config, spec),
        jump_check=make_jump_check(networks, replay, config, spec) if networks.jump else None,
        decide=decide,
        agent=partial(Agent, decide),
        settle=partial(_settle, config=config.macro),
        miner=miner,
        source=stored
        or open_games(
            config,
            deciders[config.rollout.policy, mesh],
            acting_key,
            timers,
            miner.watch,
            replay.add_donated,
            mesh,
            make_follow(networks, config, mesh) if config.rollout.execute_macros else None,
        ),
        demonstrations=shown,
        transfer=transfer,
        init=init if mesh.size == 1 else made_on(mesh, init),
        timers=timers,
        mesh=mesh,
    )


def laid(mesh: Mesh, train: Any, replay: Any, macros: Any) -> tuple[Any, Any, Any]:
    """Where on a mesh the arrays of the learner, the replay and the macros lie."""
    how = WHOLE, layout(replay), macros._replace(table=WHOLE, buckets=WHOLE, carry=LANES)
    return shardings((train, replay, macros), mesh, how)


def made_on(mesh: Mesh, init: Callable[[], Any]) -> Callable[[], Any]:
    """`init` whose arrays are made where they lie: no device has room for all lanes."""
    return jax.jit(init, out_shardings=laid(mesh, *jax.eval_shape(init)))


def open_games(
    config: Config,
    decide: Callable[..., Decision],
    rng_key: Array,
    timers: PhaseTimers,
    watch: Callable[..., None],
    add: Callable[..., Any] | None = None,
    mesh: Mesh | None = None,
    follow: Callable[..., Any] | None = None,
) -> Actor:
    """Opens the training games, one vector for each pool, and who plays them; see `Actor`."""
    of_pool = config.env.num_envs // config.rollout.pools
    lanes = of_pool // count_processes(mesh)
    first = lanes * jax.process_index()

    def pool(first_lane: int) -> RebuiltEnv:
        def make(number: int) -> RestingEnv:
            seed = config.seed
            if number:  # the games were opened anew
                drawn = np.random.SeedSequence((seed, number)).generate_state(1)
                seed = int(drawn[0]) >> 1
            return make_env(config.env, seed=seed, num_envs=lanes, first_lane=first_lane)

        return RebuiltEnv(make, config.env.rebuild_every)

    envs = [pool(first + lane) for lane in range(0, config.env.num_envs, of_pool)]
    return Actor(envs, config, decide, rng_key, timers, watch, add, mesh, follow)


def no_reanalyse(params: Params, replay_state: Any, *, cursor: int, **at: Any) -> Reanalysed:
    """What the loop does to stored targets where the source makes them anew by itself."""
    return Reanalysed(replay_state, cursor, {})
