"""The parts of a run and all state that they carry, from a fresh start or a checkpoint."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.acting.actor import Actor
from smz_jax.acting.agent import make_agent
from smz_jax.acting.decide import make_decide
from smz_jax.config.seeds import CHECK_KEY, HEAD_KEY
from smz_jax.config.settings import Config, ConfigError
from smz_jax.config.sources import flat_dict
from smz_jax.envs import VectorEnv, make_env, make_spec
from smz_jax.envs.rebuilt import RebuiltEnv
from smz_jax.learning.diagnose import make_check
from smz_jax.learning.learner import init_train_state, make_train_step
from smz_jax.learning.replay import check_memory, make_replay
from smz_jax.macros.library.summary import summarise
from smz_jax.macros.mine.miner import Miner
from smz_jax.macros.precondition.head import HeadState, Known, init_head, settle
from smz_jax.macros.precondition.quality import quality, slot_entries
from smz_jax.model.networks import make_networks
from smz_jax.storage.checkpoint import CheckpointStore, Kind, Restored, take_rows
from smz_jax.storage.documents.macros import write_macros_json
from smz_jax.storage.files import plain
from smz_jax.storage.metrics import PhaseTimers, RunningScores
from smz_jax.storage.run_dir import versions
from smz_jax.types import EnvSpec, MacroTable, Trajectory


def games_seed(seed: int, number: int) -> int:
    """Seed of the training games after a number of rebuilds; the run's own before the first."""
    if number == 0:
        return seed
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0]) >> 1


def abstract(tree: Any) -> Any:
    """Shapes and dtypes in place of what is on the device; NumPy arrays and numbers stay."""

    def shape_of(x: Any) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, jax.Array) else x

    return jax.tree.map(shape_of, tree)


def differing(theirs: Any, ours: dict[str, Any]) -> str:
    """Where a manifest has other values than those of `ours`, the first five; empty: nowhere."""
    theirs = theirs if isinstance(theirs, dict) else {}
    found = [
        f"{name}: {theirs.get(name)!r} in it, {value!r} here"
        for name, value in ours.items()
        if theirs.get(name) != value
    ]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


class Run:
    """The parts of a run and the state that they carry; made once, before the loop."""

    def __init__(self, config: Config, timers: PhaseTimers) -> None:
        self.config, self.timers = config, timers
        self.spec: EnvSpec = make_spec(config.env)
        check_memory(config, self.spec)
        keys = jax.random.split(jax.random.key(config.seed), 3)
        self.networks = make_networks(config.network, self.spec)
        self.replay = make_replay(config, self.spec)
        self.train_step = make_train_step(self.networks, self.replay, config, self.spec)
        self.decide = make_decide(self.networks, config, self.spec, policy="search")
        self.agent = make_agent(self.decide)
        self.check_batch = make_check(self.networks, self.replay, config, self.spec)
        self.train_state = init_train_state(self.networks, config, keys[0])
        self.replay_state = self.replay.init()
        embedding = jax.eval_shape(
            self.networks.representation,
            self.train_state.params,
            np.zeros((1, *self.spec.observation_shape), self.spec.frame_dtype),
        )
        self.miner = Miner(config, self.spec.num_actions, keys[1], embedding.shape[1:])
        key = jax.random.fold_in(jax.random.key(config.seed), HEAD_KEY)
        head = init_head(config.macro, embedding.shape[1:], key)
        self.train_state = self.train_state._replace(head=head)
        self._settle = jax.jit(self._settled, donate_argnums=(0, 1))
        self._acting_key = keys[2]
        self.open_games()
        self.scores = RunningScores()
        self.best = -float("inf")
        self.iteration = 0
        self.unfinished: dict[str, Any] | None = (
            None  # row of an iteration that waits for its checks
        )
        self.skipped = 0  # updates whose loss or gradient was not finite
        self._former_restarts = 0

    def open_games(self) -> None:
        """Opens the training games, one vector for each pool, and an actor that plays them."""
        config = self.config
        lanes = config.env.num_envs // config.rollout.pools

        def pool(first_lane: int) -> RebuiltEnv:
            def make(number: int) -> VectorEnv:
                seed = games_seed(config.seed, number)
                return make_env(config.env, seed=seed, num_envs=lanes, first_lane=first_lane)

            return RebuiltEnv(make, config.env.rebuild_every)

        self.envs = [pool(lane) for lane in range(0, config.env.num_envs, lanes)]
        decide = self.decide
        if self.config.rollout.policy == "prior":
            decide = make_decide(self.networks, self.config, self.spec, policy="prior")
        self.actor = Actor(
            self.envs,
            self.config,
            decide,
            self._acting_key,
            self.timers,
            watch=self.miner.watch,
        )

    def close_games(self) -> None:
        """Frees the emulators of the training games; may be called twice."""
        for env in self.envs:
            env.close()

    @property
    def env_steps(self) -> int:
        """Environment steps of the run so far, over all lanes."""
        return self.actor.count * self.config.env.num_envs

    @property
    def arrays(self) -> dict[str, Any]:
        """What a checkpoint holds beside the replay's rows and `counters`."""
        return {
            "train": self.train_state,
            # Its rows are saved apart, those that changed alone.
            "replay": self.replay_state.replace(experience=None),
            "macros": self.miner.state,
            "games": self.actor.games,
        }

    @property
    def counters(self) -> dict[str, Any]:
        """The host state that a checkpoint holds; plain JSON."""
        return {
            "count": self.actor.count,
            "iteration": self.iteration,
            "best": self.best if np.isfinite(self.best) else None,
            "games": self.scores.games,
            "skipped": self.skipped,
            "restarts": self.restarts,
            "unfinished": plain(self.unfinished),
            "macro_totals": list(self.miner.totals),
            "seconds": self.timers.seconds,
        }

    def restore(self, store: CheckpointStore) -> tuple[float, list[str]]:
        """Goes on from the newest good checkpoint, as if the run had never been stopped.

        The fresh replay is freed first, so that there is one at a time.

        Returns:
            Seconds that the run took before, and what the user should know, in lines: newer
            checkpoints that are damaged, libraries that have other versions now.

        Raises:
            ConfigError: in one line, if there is none, or it is of another run.
        """
        arrays, experience = abstract((self.arrays, self.replay_state.experience))
        del self.replay_state
        found = store.restore("last", arrays, experience=experience, fits=self._check_fit)
        notes = [f"{line}: going on from the one before it" for line in found.damaged]
        theirs = found.manifest.get("versions")
        if other := differing(theirs, versions()):
            notes.append(f"not bit for bit, the checkpoint is of other versions: {other}")
        try:
            return self._take(found), notes
        except (LookupError, TypeError, AttributeError) as error:  # its sums are right: forged
            what = f"the counters of checkpoint {found.step} are wrong"
            text = f"{type(error).__name__} {error}".splitlines()[0][:200]
            raise ConfigError(f"{what}: {text}") from None

    def _take(self, found: Restored) -> float:
        """Goes on from what was restored; gives the seconds that the run took before."""
        arrays, counters = found.state, found.extra
        self.train_state = arrays["train"]
        self.replay_state = arrays["replay"].replace(experience=found.rows)
        self.miner.state = arrays["macros"]
        self.miner.totals = type(self.miner.totals)(*counters["macro_totals"])
        self.actor.restore(arrays["games"], counters["count"])
        self.miner.steps = counters["count"]
        self.iteration, self.skipped = counters["iteration"], counters["skipped"]
        self._former_restarts = counters["restarts"]
        self.unfinished = counters["unfinished"]
        self.best = -float("inf") if counters["best"] is None else counters["best"]
        self.scores = RunningScores(counters["games"])
        for phase, seconds in counters["seconds"].items():
            self.timers.add(phase, seconds)
        return sum(counters["seconds"].values())

    def load_weights(self, run_dir: Path, kind: Kind, step: int | None) -> str:
        """Begins with the parameters of another run; optimiser and counters stay fresh.

        Args:
            run_dir: folder of that run.
            kind: `last` or `best`.
            step: of the checkpoint; unset: the newest good one.

        Returns:
            A line for the user: the step whose weights were taken, and in what its game and
            its model were set otherwise.

        Raises:
            ConfigError: in one line, if there is none, or its model is another one.
        """
        params, manifest = CheckpointStore(run_dir).restore_params(
            kind, self.train_state.params, step=step
        )
        target = jax.tree.map(jnp.copy, params)
        self.train_state = self.train_state._replace(params=params, target_params=target)
        ours = flat_dict(self.config)
        matters = {x: ours[x] for x in ours if x == "env.id" or x.startswith("network.")}
        other = differing(manifest.get("config"), matters)
        return f"weights of step {manifest['step']:,} of {run_dir}{other and f' ({other})'}"

    def _check_fit(self, manifest: dict[str, Any]) -> None:
        """Raises ConfigError in one line where a checkpoint is of a run with other settings."""
        theirs = manifest.get("config")
        every = {name: None for name in theirs} if isinstance(theirs, dict) else {}
        ours = {**every, **flat_dict(self.config)}
        ours.pop("total_env_steps")
        if other := differing(theirs, ours):
            raise ConfigError(f"the checkpoint is of a run with other settings: {other}")

    @property
    def restarts(self) -> int:
        """How often games that failed were opened anew."""
        return self._former_restarts + sum(env.restarts for env in self.envs)

    @property
    def learns(self) -> bool:
        """Whether the replay holds enough to learn from."""
        return self.env_steps >= self.config.replay.min_size and bool(
            self.config.updates_per_iteration
        )

    @property
    def fault(self) -> str | None:
        """Why the run must not go on, in one line; None: it may."""
        most = self.config.learner.max_skipped
        if self.skipped <= most:
            return None
        return (
            f"{self.skipped} updates were skipped because their loss or gradient was not finite "
            f"(learner.max_skipped = {most}); the last good checkpoint is kept"
        )

    def check(self) -> dict[str, np.ndarray]:
        """Checks the model on one replayed batch; changes nothing.

        Returns:
            As `make_check` gives it; empty before there is something to learn from.
        """
        if not self.learns:
            return {}
        key = jax.random.fold_in(jax.random.key(self.config.seed), CHECK_KEY)
        key = jax.random.fold_in(key, self.iteration)
        found = jax.device_get(self.check_batch(self.train_state, self.replay_state, key))
        head = self.train_state.head
        if self.config.macro.head_learning_rate > 0:
            known = jax.device_get(quality(head.slots, head.tally))
            found |= {f"precondition/{k}": x for k, x in known.items() if np.isfinite(x)}
        return found

    def learn(self) -> dict[str, float]:
        """The updates of one iteration; their metrics, averaged."""
        several = []
        for _ in range(
            self.config.updates_per_iteration // self.config.learner.updates_per_dispatch
        ):
            self.train_state, self.replay_state, metrics = self.train_step(
                self.train_state, self.replay_state, self.known
            )
            several.append(metrics)
        rows = jax.device_get(several)
        self.skipped += int(sum(np.sum(row.pop("learner/skipped")) for row in rows))
        averaged = {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
        return {**averaged, "learner/skipped": self.skipped}

    @property
    def known(self) -> Known:
        """What the training step counts evidence of."""
        return Known(self.miner.state.table.actions, self.miner.state.buckets)

    def settle_macros(self) -> None:
        """What the updates showed of the macros goes into the table; stays on the device."""
        state = self.miner.state
        head, table = self._settle(self.train_state.head, state.table)
        self.miner.state = state._replace(table=table)
        self.train_state = self.train_state._replace(head=head)

    def _settled(self, head: HeadState, table: MacroTable) -> tuple[HeadState, MacroTable]:
        return settle(head, table, self.config.macro)

    def iterate(self) -> dict[str, Any]:
        """One rollout, its macros, and the updates that are due; gives a metrics row."""
        timers = self.timers
        first_step, start = self.env_steps, time.perf_counter()
        rows, games = self.actor.rollout(self.train_state.params)
        for score, length in games:
            self.scores.add(score, length)
        with timers("macros"):
            found = self.miner.end_rollout(rows)
        with timers("replay"):
            self.replay_state = self.replay.add_donated(self.replay_state, rows)
        learned: dict[str, Any] = {}
        if self.learns:
            with timers("learning"):
                learned = self.learn()
            with timers("macros"):
                self.settle_macros()
        self.iteration += 1
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "env_frames": self.env_steps * self.spec.frames_per_step,
            "learner_steps": int(self.train_state.step),
            "speed/env_steps_per_second": (self.env_steps - first_step)
            / (time.perf_counter() - start),
            "rollout/restarts": self.restarts,
            **self.scores.row(),
            **searched(rows),
            **{name: int(count) for name, count in jax.device_get(self.actor.faults).items()},
            **found,
            **learned,
        }

    def library(self) -> dict[str, Any]:
        """The macros found so far, as macros.json holds them."""
        head, learns = self.train_state.head, self.config.macro.head_learning_rate > 0
        return summarise(
            jax.device_get(self.miner.state.table),
            self.miner.totals,
            self.config.macro,
            self.spec.action_names,
            slot_entries(head.slots, head.tally) if learns else None,
        )

    def save(self, store: CheckpointStore, run_dir: Path, *, block: bool = True) -> None:
        """Saves everything that the run needs to go on, and the macro library.

        Args:
            store: the run's checkpoints.
            run_dir: its folder.
            block: wait for the disk; else what is still to do goes on beside the training.

        Raises:
            OSError, ValueError: if this save or the one before it could not be written.
        """
        with self.timers("checkpoint"):
            store.wait()
            count = self.actor.count
            rows = take_rows(self.replay_state.experience, count, store.saved_rows(self.env_steps))
            store.save("last", self.env_steps, self.arrays, self.counters, rows, block=block)
            write_macros_json(run_dir / "macros.json", self.library())


def searched(rows: Trajectory) -> dict[str, float]:
    """What the rollout's searches say, averaged over it."""
    entropy, value, weights, reward = jax.device_get(
        (rows.transition_entropy, rows.search_value, rows.action_weights, rows.reward)
    )
    spread = -np.sum(weights * np.log(np.maximum(weights, 1e-9)), axis=-1)
    return {
        "search/transition_entropy": float(entropy.mean()),
        "search/value": float(value.mean()),
        "search/policy_entropy": float(spread.mean()),
        "rollout/reward_per_step": float(reward.mean()),
    }
