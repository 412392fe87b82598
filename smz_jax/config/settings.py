"""Settings of a run: frozen dataclasses, one per part, each checked on construction.

Those of the networks are in `network.py`, of the search in `search.py`, of play, replay,
reanalysis, losses, updates, macros and evaluation in `training.py`. Standard library alone, so that
a wrong setting is answered before JAX or an environment loads.
"""

import json
import math
import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from smz_jax.config import training
from smz_jax.config.check import Between, Checked, json_object
from smz_jax.config.kept import ALL
from smz_jax.config.network import SEQUENCES, NetworkConfig
from smz_jax.config.search import SearchConfig, check_planning

REANALYSE_ROOTS = 128
"""Most roots of one search of stored rows, where the lanes are no more."""
MAX_BYTES = 10**12
"""More than any machine holds in one array; what this one holds is known when JAX has begun."""


@dataclass(frozen=True)
class EnvConfig(Checked, section="env"):
    """The environment and how its frames become observations."""

    suite: Literal["atari", "gym", "pgx", "grid", "turns"] = "atari"
    """atari: ALE's games. gym: any Gymnasium environment. pgx: 2048, MinAtar, boards of two
    players. grid: this project's world with known rules. turns: Pig, a game of two to four players
    with a die. Settings marked "Atari only" change nothing in the others; the rewards of
    those are never clipped."""
    id: str = "Breakout"
    """Name of the game: as ALE spells it (Breakout, SpaceInvaders), a Gymnasium or envpool id
    (CartPole-v1), one of your own (my_module:MyEnv-v0), or pgx's (2048, minatar-breakout)."""
    kwargs: str = "{}"
    """What the environment itself takes, a JSON object: '{"is_slippery": true}'. Not in Atari."""
    backend: Literal["envpool", "ale", "gymnasium"] = "envpool"
    """Which library steps the games. Suite atari: envpool, or ale (ale-py's own vectors).
    Suite gym: envpool (where it has the id and takes the kwargs, else Gymnasium), or gymnasium."""
    num_envs: Annotated[int, Between(1, 4096)] = 32
    """B: games played side by side."""
    mode: Literal["deterministic", "stochastic"] = "deterministic"
    """Atari only. deterministic: sticky actions 0, no random no-ops. stochastic: 0.25, up to 30
    no-ops."""
    sticky_prob: Annotated[float | None, Between(0.0, 1.0, "[)")] = None
    """Atari only: chance that the emulator repeats the last action; unset: what `mode` says."""
    noop_max: Annotated[int | None, Between(0, 1000)] = None
    """Atari only: up to this many random no-op frames at a game's start; unset: as in `mode`."""
    frame_skip: Annotated[int, Between(1, 60)] = 4
    """Atari only: emulator frames for one agent step; the last two are merged by their maximum."""
    frame_size: Annotated[int, Between(16, 210)] = 84
    """Height and width of the grey frames, in pixels. Observations that are no images have none."""
    action_bins: Annotated[int, Between(2, 1001)] = 11
    """Suite gym only: the values, from bound to bound, that each number of an action is chosen
    from. An odd number has the middle among them."""
    frame_stack: Annotated[int, Between(1, 32)] = 4
    """Newest frames that make one observation."""
    mark_start: bool = False
    """Whether observations say how many of their frames are of the game in progress: at its start
    the first one is repeated. Families over sequences turn it on; no other takes it."""
    episodic_life: bool = True
    """Atari only, in training: a lost life ends the episode for learning; the game continues."""
    clip_rewards: bool = True
    """Atari only, in training: learn from the sign of the reward. Scores are always raw. Turned
    off, both supports of the network are 300, unless they are set."""
    fire_on_life_loss: bool = True
    """Atari only: press FIRE at a game's start and after each lost life, in evaluation too."""
    max_episode_steps: Annotated[int, Between(1, 27_000)] = 27_000
    """Agent steps after which a training game is cut off (truncated), or at the environment's own
    limit if that is shorter."""
    num_threads: Annotated[int, Between(0, 256)] = 0
    """Threads of envpool or ale; 0 leaves it to the library."""
    rebuild_every: Annotated[int, Between(1, 10**9, words="in 1..10^9")] = 4_096
    """Training: steps of each lane after which the games are opened anew, with a seed that follows
    from the run's. Games in progress are played to their end; one that outlives three more such
    periods is cut off. A resumed run plays a lane's steps since it came to its games again, so that
    it continues bit for bit."""

    def __post_init__(self) -> None:
        """Checks `kwargs` and `backend` too; spells `kwargs` in one way, so that runs compare."""
        super().__post_init__()
        is_name = 0 < len(self.id) <= 200 and self.id.isprintable()
        self._require("env.id", is_name, "the name of a game")
        options, plain = json_object(self.kwargs)
        allowed = "a JSON object, e.g. '{\"is_slippery\": true}', of at most 10,000 characters"
        self._require("env.kwargs", options is not None, allowed)
        object.__setattr__(self, "kwargs", plain)
        atari = self.suite == "atari"
        other = "gymnasium" if atari else "ale"
        allowed = f"envpool or {'ale' if atari else 'gymnasium'} where env.suite is {self.suite}"
        self._require("env.backend", self.backend != other, allowed)
        allowed = "left out where env.suite is atari"
        self._require("env.kwargs", not atari or plain == "{}", allowed)

    @property
    def options(self) -> dict[str, Any]:
        """`kwargs` as a dictionary."""
        return json.loads(self.kwargs)

    @property
    def frames_per_step(self) -> int:
        """Emulator frames for one agent step; 1 outside Atari."""
        return self.frame_skip if self.suite == "atari" else 1

    @property
    def sticky(self) -> float:
        """Sticky-action probability after `mode` is resolved."""
        usual = 0.25 if self.mode == "stochastic" else 0.0
        return usual if self.sticky_prob is None else self.sticky_prob

    @property
    def noops(self) -> int:
        """Largest number of random no-op frames after `mode` is resolved."""
        usual = 30 if self.mode == "stochastic" else 0
        return usual if self.noop_max is None else self.noop_max


@dataclass(frozen=True)
class Config(Checked):
    """Everything that a run depends on."""

    experiment: str = "breakout"
    """Name of the experiment; runs are kept under runs/<experiment>/."""
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    """Seed of everything random in the run."""
    total_env_steps: int = 100_000
    """Agent steps over all lanes; the run's whole length (in Atari 4 emulator frames each)."""
    devices: Annotated[int, Between(1, 1024)] = 1
    """Devices of each process over which lanes, replay and batches are divided. What is played and
    drawn is the same as on one; env.num_envs is a multiple of processes x devices x rollout.pools,
    learner.batch_size one of processes x devices."""
    processes: Annotated[int, Between(1, 1024)] = 1
    """Processes that make the run together, each with its lanes, replay and devices. They are
    started on this machine, unless a launcher (Slurm, Open MPI) or --coordinator brings them."""
    checkpoint_every_env_steps: Annotated[int, Between(1)] = 50_000
    """Environment steps between two checkpoints; one is always written at the end."""
    keep_checkpoint_every_env_steps: int = 0
    """Checkpoints at multiples of so many environment steps are kept; 0: the newest two, and the
    best by evaluation."""
    dataset: str | None = None
    """Folder of a Minari dataset that is learned from: nothing is played but evaluations. Steps of
    the run are then updates, and presets are as long as the updates that they would have made. Each
    iteration searches rollout.length rows of every lane anew, over and over. Unset: play."""
    demonstrations: str | None = None
    """Folder of a Minari dataset of good play that a share of every batch is drawn from
    (replay.demonstration_share); it is never overwritten."""
    macros_from: str | None = None
    """Folder of a run or of an export, maybe of another game, or the name of weights that come with
    the package: its macros begin as candidates of this run, by the names of their actions."""
    macros_map: str = "{}"
    """Names of actions here for those there that do the same, a JSON object:
    '{"LEFT": "DOWN"}'. Other actions have the same name, or their macros are left out."""
    log_every: Annotated[int, Between(1)] = 1
    """Iterations between two rows of metrics.jsonl."""
    env: EnvConfig = field(default_factory=EnvConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    rollout: training.RolloutConfig = field(default_factory=training.RolloutConfig)
    replay: training.ReplayConfig = field(default_factory=training.ReplayConfig)
    reanalyse: training.ReanalyseConfig = field(default_factory=training.ReanalyseConfig)
    loss: training.LossConfig = field(default_factory=training.LossConfig)
    learner: training.LearnerConfig = field(default_factory=training.LearnerConfig)
    macro: training.MacroConfig = field(default_factory=training.MacroConfig)
    eval: training.EvalConfig = field(default_factory=training.EvalConfig)

    def __post_init__(self) -> None:
        """Validates what spans sections; raises ConfigError in one line."""
        super().__post_init__()
        if self.network.family in SEQUENCES:
            object.__setattr__(self, "env", replace(self.env, mark_start=True))
        is_plain = re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,99}", self.experiment) is not None
        self._require("experiment", is_plain, "a plain name of letters, digits, _ . -")
        every, keep = self.checkpoint_every_env_steps, self.keep_checkpoint_every_env_steps
        allowed = f"0 or a multiple of checkpoint_every_env_steps = {every}"
        fits = keep >= 0 and keep % every == 0
        self._require("keep_checkpoint_every_env_steps", fits, allowed)
        for name in ("dataset", "demonstrations", "macros_from"):
            path = getattr(self, name)
            fits = path is None or (0 < len(path) < 4096 and path.isprintable())
            self._require(name, fits, "a path")
        meanings, plain = json_object(self.macros_map)
        fits = meanings is not None and all(isinstance(x, str) for x in meanings.values())
        self._require("macros_map", fits, 'a JSON object of names, e.g. \'{"LEFT": "DOWN"}\'')
        fits = plain == "{}" or self.macros_from is not None
        self._require("macros_map", fits, "left out without macros_from")
        object.__setattr__(self, "macros_map", plain)
        self._check_suite()
        self._check_devices()
        self._check_kept()
        self._check_iteration()
        self._check_bytes()

    def _check_suite(self) -> None:
        """What goes with which kind of environment, and with which kind of network."""
        suite, family = self.env.suite, self.network.family
        atari, need = suite == "atari", self._require
        allowed = f"false where env.suite is {suite}"
        need("eval.sticky_column", atari or not self.eval.sticky_column, allowed)
        allowed = "another one than board where env.suite is atari"
        need("network.family", not atari or family != "board", allowed)
        allowed = f"at least 48 where network.family is {family}"
        fits = not family.startswith("resnet") or self.env.frame_size >= 48
        need("env.frame_size", fits, allowed)
        fits = atari or self.learner.frame_shift == 0
        need("learner.frame_shift", fits, f"0 where env.suite is {suite}")
        is_sequence, where = family in SEQUENCES, f"where network.family is {family}"
        need("env.frame_stack", not is_sequence or self.env.frame_stack > 1, f"above 1 {where}")
        allowed = f"one of {', '.join(SEQUENCES)} where env.mark_start is true"
        need("network.family", is_sequence or not self.env.mark_start, allowed)
        fits = self.loss.reconstruction == 0 or self.network.decoder_size > 0
        need("loss.reconstruction", fits, "0 while network.decoder_size is 0")
        fits = self.network.decoder_target != "balanced_difference" or self.env.frame_stack > 1
        need("network.decoder_target", fits, "another one while env.frame_stack is 1")

        steps = self.learner.unroll_steps
        fits = self.loss.jump == 0 or 0 < self.network.jump_length <= steps
        allowed = f"in 1..{steps} (learner.unroll_steps) where loss.jump is above 0"
        need("network.jump_length", fits, allowed)
        check_planning(need, self.network, self.search, self.rollout, self.macro)
        fits = self.network.embedding_scale != "simplex" or self.network.embedding_size % 8 == 0
        allowed = "a multiple of 8 where network.embedding_scale is simplex"
        need("network.embedding_size", fits, allowed)

    def _check_devices(self) -> None:
        """Each device has as many lanes of each pool, and windows of a batch, as any other."""
        need, devices, what = self._require, self.devices * self.processes, "devices"
        if self.processes > 1:
            what = "processes" if self.devices == 1 else "processes x devices"
        parts = devices * self.rollout.pools
        fits = devices == 1 or self.env.num_envs % parts == 0
        need("env.num_envs", fits, f"a multiple of {what} x rollout.pools = {parts}")
        fits = self.learner.batch_size % devices == 0
        need("learner.batch_size", fits, f"a multiple of {what} = {devices}")
        several = f"several {what.partition(' ')[0]}"
        fits = self.demonstrations is None or (devices == 1 and self.dataset is None)
        need("demonstrations", fits, f"unset with a dataset or {several}")
        need("macros_from", devices == 1 or not self.macros_from, f"unset with {several}")
        fits = devices == 1 or self.search.engine == "batched"
        need("search.engine", fits, f"'batched' where {what} is above 1")

    def _check_kept(self) -> None:
        """Each of the places that `replay.keep` is for keeps games alone."""
        stored, is_viewed = self.dataset or self.demonstrations, self.replay.view == "kept"
        fits = not is_viewed or not (stored or self.replay.keep == ALL)
        allowed = "another one with a dataset, demonstrations or replay.keep = all"
        self._require("replay.view", fits, allowed)
        fits = not is_viewed or self.replay.view_share > 0
        self._require("replay.view_share", fits, "above 0 where replay.view is kept")
        fits = self.replay.keep == ALL or bool(stored) or is_viewed
        allowed = f"{ALL} without a dataset, demonstrations or replay.view = kept"
        self._require("replay.keep", fits, allowed)

    def _check_iteration(self) -> None:
        """A rollout of every lane and the updates after it, of windows that the replay holds."""
        lanes, updates, need = self.env.num_envs, self.updates_per_iteration, self._require
        length, window = self.rollout.length, self.window_rows
        steps = lanes * length
        allowed = f"at least one iteration: env.num_envs x rollout.length = {steps}"
        if self.dataset:
            factors = "learner.updates_per_env_step x env.num_envs x rollout.length"
            allowed = f"at least the {updates} updates of an iteration of a dataset ({factors})"
            need("learner.updates_per_env_step", updates >= 1, "above 0 with a dataset")
            need("devices", self.devices == 1, "1 with a dataset")
            need("processes", self.processes == 1, "1 with a dataset")
            need("reanalyse.order", self.reanalyse.order == "sweep", "sweep with a dataset")
            plain, where = not self.rollout.execute_macros, "where rollout.execute_macros is true"
            need("dataset", plain, f"unset {where}")
        need("total_env_steps", self.total_env_steps >= self.iteration_steps, allowed)
        allowed = f"a divisor of env.num_envs = {lanes}"
        need("rollout.pools", lanes % self.rollout.pools == 0, allowed)
        allowed = f"0, or at least one update per {steps} steps (env.num_envs x rollout.length)"
        fits = self.learner.updates_per_env_step == 0 or updates >= 1
        need("learner.updates_per_env_step", fits, allowed)
        allowed = (
            f"a divisor of the {updates} updates of an iteration "
            "(learner.updates_per_env_step x env.num_envs x rollout.length)"
        )
        fits = updates % self.learner.updates_per_dispatch == 0
        need("learner.updates_per_dispatch", fits, allowed)
        rows = (
            f"window of {window} rows from env.frame_stack, learner.unroll_steps, learner.td_steps"
        )
        least = lanes * (window + length)
        allowed = f"at least env.num_envs x ({rows}, + rollout.length) = {least}"
        fits = self.replay.capacity // lanes >= window + length
        need("replay.capacity", fits, allowed)
        fits = self.learner.updates_per_env_step == 0 or self.replay.min_size >= lanes * window
        allowed = f"at least env.num_envs x ({rows}) = {lanes * window}"
        need("replay.min_size", fits, allowed)

    def _check_bytes(self) -> None:
        """No array is larger than any machine; in suites of unknown frames each has one byte."""
        pixels = self.env.frame_size**2 if self.env.suite == "atari" else 1
        tree = 4 * self.search.num_simulations * self.env.num_envs * self.network.embedding_size
        batch = self.learner.batch_size * self.window_rows * pixels
        for name, needed, factors in (
            ("replay.capacity", self.replay.capacity * pixels, "env.frame_size^2"),
            ("learner.batch_size", batch, "a window of env.frame_size^2"),
            ("search.num_simulations", tree, "4 x env.num_envs x network.embedding_size"),
        ):
            allowed = f"smaller: times {factors} it is {needed:,} of at most {MAX_BYTES:,} bytes"
            self._require(name, needed <= MAX_BYTES, allowed)

    @property
    def meanings(self) -> dict[str, str]:
        """`macros_map` as a dictionary."""
        return json.loads(self.macros_map)

    @property
    def updates_per_iteration(self) -> int:
        """Learner updates after each rollout."""
        return round(self.learner.updates_per_env_step * self.env.num_envs * self.rollout.length)

    @property
    def iteration_steps(self) -> int:
        """What an iteration adds to the steps of a run: those played, updates where none are."""
        played = self.env.num_envs * self.rollout.length
        return self.updates_per_iteration if self.dataset else played

    @property
    def unit(self) -> str:
        """What the steps of a run are, in words."""
        return "updates" if self.dataset else "environment steps"

    @property
    def frames_per_step(self) -> int:
        """Emulator frames for one step of the run."""
        return 0 if self.dataset else self.env.frames_per_step

    @property
    def reanalyse_steps(self) -> int:
        """Time steps of all lanes that are reanalysed in an iteration: whole blocks."""
        if self.dataset:
            return self.rollout.length
        wanted = math.ceil(self.reanalyse.ratio * self.rollout.length)
        wanted = wanted if self.rollout.policy == "search" else 0
        return math.ceil(wanted / self.reanalyse_block) * self.reanalyse_block

    @property
    def reanalyse_block(self) -> int:
        """Time steps of all lanes in one search of stored rows; the ring holds more."""
        lanes, history = self.env.num_envs, self.env.frame_stack - 1
        if self.dataset:
            most, length = max(1, REANALYSE_ROOTS // lanes), self.rollout.length
            return max(x for x in range(1, most + 1) if length % x == 0)
        fits = self.replay.capacity // lanes - self.rollout.length - history
        wanted = math.ceil(self.reanalyse.ratio * self.rollout.length)
        return max(1, min(REANALYSE_ROOTS // lanes, wanted, fits))

    @property
    def window_rows(self) -> int:
        """W: rows of a sampled window, from the oldest stacked frame to the last bootstrap."""
        return self.env.frame_stack - 1 + self.learner.unroll_steps + self.learner.td_steps + 1
