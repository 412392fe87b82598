"""PPO of stable-baselines3 trained for some CPU minutes, and evaluated on the way."""

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from experiments.peer.games import LaneGames, make_vec_env
from experiments.peer.request import NEEDED, PeerRequest
from smz_jax.acting.evaluate import evaluate, evaluation_row
from smz_jax.config.check import ConfigError
from smz_jax.config.experiment import Experiment, resolve
from smz_jax.config.seeds import FINAL_SEED
from smz_jax.config.settings import Config
from smz_jax.envs import check_env_id, make_env
from smz_jax.run.progress import Progress
from smz_jax.storage.documents.results_json import PEER
from smz_jax.storage.files import write_json
from smz_jax.storage.metrics import MetricsWriter, score_row
from smz_jax.storage.run_dir import RUNS_ROOT, git_commit, hardware, new_folder, versions
from smz_jax.types import Timestep

# RL Baselines3 Zoo (Raffin 2020), hyperparams/ppo.yml, atari.
LANES, LEARNING_RATE, CLIP_RANGE = 8, 2.5e-4, 0.1
SETTINGS = {"n_steps": 128, "n_epochs": 4, "batch_size": 256, "ent_coef": 0.01, "vf_coef": 0.5}


def make_config(request: PeerRequest) -> Config:
    """Games and evaluations as a run on preset laptop has them; raises ConfigError."""
    experiment = Experiment("peer", "atari", {"env.id": request.game})
    config = resolve(experiment, "laptop", {}, {"seed": request.seed, "env.num_threads": 1})
    check_env_id(config.env)
    return config


class Measurement:
    """The clock of a training, its rows of metrics, and the evaluations at its marks."""

    def __init__(
        self,
        document: dict[str, Any],
        marks: Sequence[float],
        folder: Path,
        score: Callable[[], Mapping[str, float]],
        evaluate_now: Callable[[], dict[str, Any]],
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        """Begins at the first rollout.

        Args:
            document: peer.json without rows, as `about` gives it.
            marks: rising CPU minutes; at each it evaluates, and it ends at the last.
            folder: for metrics.jsonl and peer.json.
            score: of the training games, entries of a row.
            evaluate_now: the statistics of whole games.
            clock: gives CPU seconds.
        """
        self._document, self._left, self._folder = document, list(marks), folder
        self._score, self._evaluate, self._clock = score, evaluate_now, clock
        self._start, self._writer = clock(), MetricsWriter(folder)
        self.is_over = False

    def between(self, env_steps: int, is_last: bool = False) -> dict[str, Any]:
        """Between two rollouts, and after the last one; gives the row of metrics."""
        if not env_steps:
            self._start = self._clock()
        if not env_steps or self.is_over:
            return {}
        seconds = self._clock() - self._start
        row = {"env_steps": env_steps, "cpu_seconds": seconds, **self._score()}
        due = [mark for mark in self._left if 60 * mark <= seconds]
        self._left = self._left[len(due) :]
        self.is_over = is_last or not self._left
        if due or self.is_over:
            result = self._evaluate()
            self._start += self._clock() - self._start - seconds
            names = ("mean", "mean_low", "mean_high", "games", "distinct")
            entry = {"cpu_minutes": seconds / 60, "env_steps": env_steps}
            entry |= {"score": row.get("score/mean")}
            entry |= {"evaluation": {name: result[name] for name in names}}
            self._document["rows"].append(entry)
            PEER.check(self._document, PEER.file)
            write_json(self._folder / PEER.file, self._document)
            row |= evaluation_row(result)
        self._writer.write(row)
        if self.is_over:
            self._writer.close()
        return row


def about(request: PeerRequest) -> dict[str, Any]:
    """What peer.json holds before the first evaluation."""
    settings = {**SETTINGS, "lanes": LANES, "learning_rate": LEARNING_RATE}
    settings |= {"clip_range": CLIP_RANGE, "total_steps": request.total_steps}
    others = {name: metadata.version(name) for name in NEEDED.values()}
    return {
        "game": request.game,
        "seed": request.seed,
        "settings": settings,
        "versions": {**versions(), **others},
        "commit": git_commit(),
        "hardware": hardware("one thread"),
        "rows": [],
    }


def measure(request: PeerRequest) -> Path:
    """Trains and evaluates; gives the folder of what was found.

    Raises:
        ConfigError: in one line, if the game is unknown, or runs/ cannot be written.
    """
    config = make_config(request)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    lanes = [
        make_env(config.env, seed=config.seed, num_envs=1, first_lane=lane) for lane in range(LANES)
    ]
    games = LaneGames(lanes)
    model: Any = importlib.import_module("stable_baselines3").PPO(
        "CnnPolicy",
        make_vec_env(games, lanes[0].spec, LANES),
        learning_rate=lambda left: LEARNING_RATE * max(left, 0.0),
        clip_range=lambda left: CLIP_RANGE * max(left, 0.0),
        seed=config.seed,
        device="cpu",
        **SETTINGS,
    )

    def act(timestep: Timestep, _: int) -> np.ndarray:
        seen = timestep.observation.copy()  # torch warns of arrays that cannot be written
        return model.predict(seen, deterministic=False)[0].astype(np.int32)

    def evaluate_now() -> dict[str, Any]:
        progress.status(f"evaluation of {request.games} whole games")
        seed = FINAL_SEED + config.seed
        with torch.random.fork_rng(devices=[]):  # the training is the same whatever the marks
            torch.manual_seed(seed)
            result = evaluate(act, config, seed=seed, num_games=request.games)
        assert result is not None  # nothing stops it
        return result

    try:
        folder = new_folder(config)
    except OSError as error:
        raise ConfigError(f"{RUNS_ROOT}/ cannot be written: {error.strerror}") from None
    print(f"{request.game}, seed {config.seed}, folder {folder}", flush=True)
    document, marks = about(request), request.minutes
    measurement = Measurement(document, marks, folder, lambda: score_row(games.games), evaluate_now)
    base: Any = importlib.import_module("stable_baselines3.common.callbacks").BaseCallback

    class Marks(base):
        def _on_rollout_start(self) -> None:
            self._show(measurement.between(self.num_timesteps))

        def _on_step(self) -> bool:
            return not measurement.is_over

        def _on_training_end(self) -> None:
            self._show(measurement.between(self.num_timesteps, is_last=True))

        def _show(self, row: dict[str, Any]) -> None:
            if row:
                progress.update(self.num_timesteps, row)

    with Progress(request.total_steps, "peer") as progress:
        try:
            model.learn(request.total_steps, callback=Marks())
        finally:
            games.close()
    return folder
