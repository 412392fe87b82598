"""The loop of a run: play, look for macros, remember, learn, report; then evaluate."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from smz_jax import macros
from smz_jax.checkpoint import CheckpointStore
from smz_jax.config import Config, require
from smz_jax.envs import make_env, make_spec
from smz_jax.evaluate import evaluate, evaluate_baselines, make_agent
from smz_jax.learner import init_train_state, make_train_step
from smz_jax.metrics import MetricsWriter, PhaseTimers, RunningScores, write_json
from smz_jax.mining import Miner
from smz_jax.networks import make_networks
from smz_jax.progress import Progress
from smz_jax.replay import check_memory, make_replay
from smz_jax.rollout import Actor
from smz_jax.types import EnvSpec

# Seeds of evaluations never meet a training seed, nor the final ones those that chose the best.
INTERIM_SEED, FINAL_SEED = 1_000_003, 2_000_003
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class Outcome(NamedTuple):
    """How a run ended."""

    finished: bool
    signal_number: int | None  # what stopped it
    evaluation: dict[str, Any] | None
    evaluation_sticky: dict[str, Any] | None
    baselines: dict[str, Any] | None
    library: dict[str, Any]  # as macros.json
    seconds: dict[str, float]
    env_steps: int
    learner_steps: int


def count_compilation(timers: PhaseTimers) -> None:
    """Books XLA's compile time (also loading from the cache) under its own phase."""

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILE_EVENT:
            timers.add("compilation", duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)


class StopSignal:
    """Turns the first SIGINT or SIGTERM into a flag, so that a run can save and say how to go on.

    A second signal interrupts at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def __bool__(self) -> bool:
        return self.number is not None


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
        self.agent = make_agent(self.networks, config, self.spec)
        self.train_state = init_train_state(self.networks, config, keys[0])
        self.replay_state = self.replay.init()
        embedding = jax.eval_shape(
            self.networks.representation,
            self.train_state.params,
            np.zeros((1, *self.spec.observation_shape), self.spec.frame_dtype),
        )
        self.miner = Miner(config, self.spec.num_actions, keys[1], embedding.shape[1:])
        self.env = make_env(config.env, seed=config.seed)
        self.actor = Actor(self.networks, self.env, config, keys[2], timers, watch=self.miner.watch)
        self.scores = RunningScores()
        self.best = -float("inf")
        self.iteration = 0

    @property
    def env_steps(self) -> int:
        """Environment steps of the run so far, over all lanes."""
        return self.actor.count * self.config.env.num_envs

    @property
    def arrays(self) -> dict[str, Any]:
        """The device state that a checkpoint holds."""
        return {
            "train": self.train_state,
            "replay": self.replay_state,
            "macros": self.miner.state,
        }

    @property
    def counters(self) -> dict[str, Any]:
        """The host state that a checkpoint holds; plain JSON."""
        return {
            "count": self.actor.count,
            "iteration": self.iteration,
            "best": self.best if np.isfinite(self.best) else None,
            "games": self.scores.games,
            "macro_totals": list(self.miner.totals),
            "seconds": self.timers.seconds,
        }

    def restore(self, store: CheckpointStore) -> None:
        """Goes on from the last checkpoint; games begin anew, replay and the rest continue."""
        arrays, counters = store.restore("last", self.arrays)
        self.train_state, self.replay_state = arrays["train"], arrays["replay"]
        self.miner.state = arrays["macros"]
        self.miner.totals = type(self.miner.totals)(*counters["macro_totals"])
        self.actor.count = self.miner.steps = counters["count"]
        self.iteration = counters["iteration"]
        self.best = -float("inf") if counters["best"] is None else counters["best"]
        self.scores = RunningScores(counters["games"])
        for phase, seconds in counters["seconds"].items():
            self.timers.add(phase, seconds)

    def learn(self) -> dict[str, float]:
        """The updates of one iteration; their metrics, averaged."""
        several = []
        for _ in range(
            self.config.updates_per_iteration // self.config.learner.updates_per_dispatch
        ):
            self.train_state, self.replay_state, metrics = self.train_step(
                self.train_state, self.replay_state
            )
            several.append(metrics)
        rows = jax.device_get(several)
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def iterate(self) -> dict[str, Any]:
        """One rollout, its macros, and the updates that are due; gives a metrics row."""
        config, timers = self.config, self.timers
        rows, games = self.actor.rollout(self.train_state.params)
        for score, length in games:
            self.scores.add(score, length)
        with timers("macros"):
            found = self.miner.end_rollout(rows)
        with timers("replay"):
            self.replay_state = self.replay.add_donated(self.replay_state, rows)
        learned: dict[str, Any] = {}
        if self.env_steps >= config.replay.min_size and config.updates_per_iteration:
            with timers("learning"):
                learned = self.learn()
        self.iteration += 1
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "env_frames": self.env_steps * self.spec.frames_per_step,
            "learner_steps": int(self.train_state.step),
            **self.scores.row(),
            **searched(rows),
            **found,
            **learned,
        }


def searched(rows: Any) -> dict[str, float]:
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


def baseline_row(baselines: dict[str, Any]) -> dict[str, float]:
    """The baselines as a metrics row."""
    row = {}
    if baselines["random"] is not None:
        for ours, theirs in (("", "mean"), ("_low", "mean_low"), ("_high", "mean_high")):
            row[f"baseline/random{ours}"] = baselines["random"][theirs]
    for name, result in baselines["constant"].items():
        row[f"baseline/constant/{name}"] = result["mean"]
    return row


def evaluation_row(result: dict[str, Any]) -> dict[str, float]:
    """An evaluation as part of a metrics row."""
    names = ("mean", "mean_low", "mean_high", "iqm", "length_mean", "cut_share")
    return {f"eval/{name}": result[name] for name in names}


def train(
    config: Config,
    run_dir: Path,
    *,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Runs an experiment to its end, or to a signal.

    Args:
        config: the run's settings.
        run_dir: its folder; metrics, macros and checkpoints go there.
        resume: go on from the folder's last checkpoint.
        say: prints a line for the user.

    Returns:
        How it ended.

    Raises:
        ConfigError: if something does not fit (memory, an unknown game, no checkpoint).
    """
    start = time.perf_counter()
    timers = PhaseTimers()
    with Progress(config.total_env_steps, config.experiment) as progress, StopSignal() as stop:
        progress.status("opening the games and making the networks")
        count_compilation(timers)
        run = Run(config, timers)
        store = CheckpointStore(run_dir)
        if resume:
            run.restore(store)
            say(f"resumed at {run.env_steps:,} environment steps")
        before = timers.total
        writer = MetricsWriter(run_dir, run.env_steps if resume else None)
        baselines = measure_baselines(run, run_dir, writer, progress, stop)
        progress.status("compiling search and training step (cached for the next start)")
        saved = evaluated = run.env_steps
        while run.env_steps < config.total_env_steps and not stop:
            first_step = run.env_steps
            began = time.perf_counter()
            row = run.iterate()
            took = time.perf_counter() - began
            row["speed/env_steps_per_second"] = (run.env_steps - first_step) / took
            row["wall_seconds"] = before + time.perf_counter() - start
            row |= {f"time/{phase}": seconds for phase, seconds in timers.seconds.items()}
            every = config.eval.every_env_steps
            if every and run.env_steps - evaluated >= every:
                evaluated = run.env_steps
                row |= interim_evaluation(run, store, stop)
            if run.iteration % config.log_every == 0 or "eval/mean" in row:
                writer.write(row)
            progress.update(run.env_steps, row)
            if run.env_steps - saved >= config.checkpoint_every_env_steps:
                saved = run.env_steps
                checkpoint(run, store, run_dir)
        checkpoint(run, store, run_dir)
        final = sticky = None
        if not stop:
            progress.status("final evaluation: whole games, greedy, unseen seeds")
            with timers("evaluation"):
                act = run.agent(run.train_state.params, config.seed)
                seed = FINAL_SEED + config.seed
                final = evaluate(act, config, seed=seed, should_stop=lambda: bool(stop))
                if config.eval.sticky_column:
                    sticky = evaluate(
                        act, config, seed=seed, sticky_prob=0.25, should_stop=lambda: bool(stop)
                    )
            if final is not None:
                writer.write({"env_steps": run.env_steps, **evaluation_row(final)})
        writer.close()
        run.env.close()
    library = macros.summarise(
        jax.device_get(run.miner.state.table), run.miner.totals, config.macro, run.spec.action_names
    )
    timers.add("other", before + time.perf_counter() - start - timers.total)
    return Outcome(
        finished=final is not None,
        signal_number=stop.number,
        evaluation=final,
        evaluation_sticky=sticky,
        baselines=baselines,
        library=library,
        seconds=timers.seconds,
        env_steps=run.env_steps,
        learner_steps=int(run.train_state.step),
    )


def measure_baselines(
    run: Run, run_dir: Path, writer: MetricsWriter, progress: Progress, stop: StopSignal
) -> dict[str, Any] | None:
    """Random and constant policies, once per run; kept for a resumed one."""
    if not run.config.eval.baselines:
        return None
    path = run_dir / "baselines.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    progress.status("measuring the random and the constant policies")
    with run.timers("evaluation"):
        seed = FINAL_SEED + run.config.seed
        baselines = evaluate_baselines(
            run.config, run.spec, seed=seed, should_stop=lambda: bool(stop)
        )
    if not stop:
        write_json(path, baselines)
        writer.write({"env_steps": run.env_steps, **baseline_row(baselines)})
    return baselines


def interim_evaluation(run: Run, store: CheckpointStore, stop: StopSignal) -> dict[str, Any]:
    """An evaluation during training; keeps the best parameters so far."""
    with run.timers("evaluation"):
        result = evaluate(
            run.agent(run.train_state.params, run.config.seed),
            run.config,
            seed=INTERIM_SEED + run.config.seed,
            num_games=run.config.eval.interim_games,
            should_stop=lambda: bool(stop),
        )
    if result is None:
        return {}
    if result["mean"] > run.best:
        run.best = result["mean"]
        store.save("best", {"params": run.train_state.params}, run.counters)
    return evaluation_row(result)


def checkpoint(run: Run, store: CheckpointStore, run_dir: Path) -> None:
    """Saves everything that the run needs to go on, and the macro library."""
    with run.timers("other"):
        store.save("last", run.arrays, run.counters)
        library = macros.summarise(
            jax.device_get(run.miner.state.table),
            run.miner.totals,
            run.config.macro,
            run.spec.action_names,
        )
        macros.write_macros_json(run_dir / "macros.json", library)


def check_schedule(config: Config) -> None:
    """Raises ConfigError where learning could never start."""
    rows = config.replay.min_size // config.env.num_envs
    require(
        rows >= config.window_rows,
        "replay.min_size",
        config.replay.min_size,
        f"at least env.num_envs x window rows = {config.env.num_envs * config.window_rows}",
    )
