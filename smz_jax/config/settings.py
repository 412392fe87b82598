"""Settings of a run: frozen dataclasses, one per part, each validated on construction.

Imports only the standard library, so that a wrong setting is answered before JAX or an environment
loads. `presets.py` beside it holds the presets, `cli.py` the command line, `sources.py` YAML.
"""

import dataclasses
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

MAX_BYTES = 10**12
"""More than any machine holds in one array; what this one holds is asked when JAX has begun."""


class ConfigError(ValueError):
    """A setting is wrong; the message is one line naming field, value and what is allowed."""


def shorten(value: Any) -> str:
    """A value as Python writes it, in at most 80 printable characters."""
    try:
        shown = repr(value)
    except ValueError:  # of a number: Python writes 4,300 digits at most
        shown = f"a number of {value.bit_length()} bits"
    return shown if len(shown) <= 80 else shown[:77] + "..."


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Dict of JSON pairs; raises ValueError on a duplicate key."""
    for key, count in Counter(key for key, _ in pairs).most_common(1):
        if count > 1:
            raise ValueError(f"{shorten(key)} is given twice")
    return dict(pairs)


def require(condition: bool, field_name: str, value: Any, allowed: str) -> None:
    """Raises `ConfigError` in one line unless `condition` holds.

    Args:
        condition: what must be true.
        field_name: dotted name of the setting, e.g. `search.num_simulations`.
        value: the offending value.
        allowed: what would be accepted, in words.

    Raises:
        ConfigError: if `condition` is false.
    """
    if not condition:
        raise ConfigError(f"{field_name} = {shorten(value)} is not allowed: it must be {allowed}")


def _require_types(section: str, config: Any) -> None:
    """Checks types, and that the device can hold a number; YAML files may hold anything."""
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        name = f"{section}.{spec.name}" if section else spec.name
        kind = (
            getattr(spec.type, "__name__", str(spec.type))
            if isinstance(spec.type, type)
            else (str(spec.type).removeprefix("typing."))
        )
        if kind.endswith("| None") and value is None:
            continue
        if kind.startswith("bool"):
            require(isinstance(value, bool), name, value, "true or false")
        elif kind.startswith("int"):
            is_int = isinstance(value, int) and not isinstance(value, bool)
            fits = is_int and abs(value) <= 10**12
            require(fits, name, value, "a whole number, at most 10^12")
        elif kind.startswith("float"):
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            fits = is_number and (value == 0 or 1e-30 <= abs(value) <= 1e30)  # NaN is in no range
            require(fits, name, value, "a finite number, 0 or of a size in 1e-30..1e30")
        elif kind.startswith("str"):
            require(isinstance(value, str), name, value, "text")
        elif kind.startswith("Literal"):
            choices = get_args(spec.type)
            require(value in choices, name, value, "one of " + ", ".join(map(str, choices)))


@dataclass(frozen=True)
class EnvConfig:
    """The environment and how its frames become observations."""

    suite: Literal["atari", "gym", "pgx", "grid"] = "atari"
    """atari: ALE's games. gym: any Gymnasium environment with discrete actions. pgx: 2048 and
    MinAtar. grid: this project's world with known rules. Settings marked "Atari only" change
    nothing in the others; the rewards of those are never clipped."""
    id: str = "Breakout"
    """Name of the game: as ALE spells it (Breakout, SpaceInvaders), a Gymnasium or envpool id
    (CartPole-v1), one of your own (my_module:MyEnv-v0), or pgx's (2048, minatar-breakout)."""
    kwargs: str = "{}"
    """What the environment itself takes, a JSON object: '{"is_slippery": true}'. Not in Atari."""
    backend: Literal["envpool", "ale", "gymnasium"] = "envpool"
    """Which library steps the games. Suite atari: envpool, or ale (ale-py's own vectors).
    Suite gym: envpool (where it has the id and takes the kwargs, else Gymnasium), or gymnasium."""
    num_envs: int = 32
    """B: games played side by side."""
    mode: Literal["deterministic", "stochastic"] = "deterministic"
    """Atari only. deterministic: sticky actions 0, no random no-ops. stochastic: 0.25, up to 30
    no-ops."""
    sticky_prob: float | None = None
    """Atari only: chance that the emulator repeats the last action; unset: what `mode` says."""
    noop_max: int | None = None
    """Atari only: up to this many random no-op frames at a game's start; unset: as in `mode`."""
    frame_skip: int = 4
    """Atari only: emulator frames for one agent step; the last two are merged by their maximum."""
    frame_size: int = 84
    """Height and width of the grey frames, in pixels. Observations that are no images have none."""
    frame_stack: int = 4
    """Newest frames that make one observation."""
    episodic_life: bool = True
    """Atari only, in training: a lost life ends the episode for learning; the game goes on."""
    clip_rewards: bool = True
    """Atari only, in training: learn from the sign of the reward. Scores are always raw."""
    fire_on_life_loss: bool = True
    """Atari only: press FIRE at a game's start and after each lost life, in evaluation too."""
    max_episode_steps: int = 27_000
    """Agent steps after which a training game is cut off (truncated), or at the environment's own
    limit if that is shorter."""
    num_threads: int = 0
    """Threads of envpool or ale; 0 leaves it to the library."""
    rebuild_every: int = 4_096
    """Training: steps of each lane after which the games are cut off and opened anew with a seed
    that follows from the run's. A resumed run plays the steps since the last time again, so that
    it goes on bit for bit."""

    def __post_init__(self) -> None:
        """Validates; raises ConfigError in one line."""
        _require_types("env", self)
        is_name = 0 < len(self.id) <= 200 and self.id.isprintable()
        require(is_name, "env.id", self.id, "the name of a game")
        require(1 <= self.num_envs <= 4096, "env.num_envs", self.num_envs, "in 1..4096")
        sticky = self.sticky_prob
        require(sticky is None or 0 <= sticky < 1, "env.sticky_prob", sticky, "in [0, 1)")
        noop = self.noop_max
        require(noop is None or 0 <= noop <= 1000, "env.noop_max", noop, "in 0..1000")
        require(1 <= self.frame_skip <= 60, "env.frame_skip", self.frame_skip, "in 1..60")
        require(16 <= self.frame_size <= 210, "env.frame_size", self.frame_size, "in 16..210")
        require(1 <= self.frame_stack <= 16, "env.frame_stack", self.frame_stack, "in 1..16")
        steps = self.max_episode_steps
        require(1 <= steps <= 27_000, "env.max_episode_steps", steps, "in 1..27000")
        require(0 <= self.num_threads <= 256, "env.num_threads", self.num_threads, "in 0..256")
        self._check_suite()

    def _check_suite(self) -> None:
        """Checks `kwargs` and `backend`; spells `kwargs` in one way, so that runs compare."""
        allowed = "a JSON object, e.g. '{\"is_slippery\": true}'"
        try:
            options = json.loads(self.kwargs, object_pairs_hook=unique)
            plain = json.dumps(options, sort_keys=True, allow_nan=False)
        except (ValueError, RecursionError):
            options, plain = None, ""
        fits = isinstance(options, dict) and len(plain) <= 10_000
        require(fits, "env.kwargs", self.kwargs, f"{allowed}, of at most 10,000 characters")
        object.__setattr__(self, "kwargs", plain)
        every = self.rebuild_every
        require(1 <= every <= 10**9, "env.rebuild_every", every, "in 1..10^9")
        backend, suite = self.backend, self.suite
        if suite == "atari":
            allowed = "envpool or ale where env.suite is atari"
            require(backend != "gymnasium", "env.backend", backend, allowed)
            allowed = "left out where env.suite is atari"
            require(self.kwargs == "{}", "env.kwargs", self.kwargs, allowed)
        else:
            allowed = f"envpool or gymnasium where env.suite is {suite}"
            require(backend != "ale", "env.backend", backend, allowed)

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
        if self.sticky_prob is not None:
            return self.sticky_prob
        return 0.25 if self.mode == "stochastic" else 0.0

    @property
    def noops(self) -> int:
        """Largest number of random no-op frames after `mode` is resolved."""
        if self.noop_max is not None:
            return self.noop_max
        return 30 if self.mode == "stochastic" else 0


@dataclass(frozen=True)
class NetworkConfig:
    """The six functions of the model."""

    family: Literal["light", "mlp", "board", "resnet"] = "light"
    """light: small conv torso, flat embedding (CPUs). mlp: flat 256-wide. board: planes of a
    board's size, weights shared by its lines (pgx). resnet: 6x6 planes."""
    embedding_size: int = 256
    """Length of a flat embedding, or channels of the planes of resnet and board."""
    hidden_size: int = 256
    """Width of the hidden layers of dynamics and heads."""
    num_blocks: int = 1
    """Residual blocks in each dynamics function (and per resolution in the resnet torso)."""
    torso_channels: int = 16
    """Channels of the light torso's first layer; its second has twice as many."""
    codebook_size: int = 32
    """C: chance outcomes that the model can tell apart. 1 makes the model MuZero's, and its search
    as deep with `search.collapse_threshold` above 0."""
    encoder_input: Literal["frames", "embedding"] = "frames"
    """What e sees of the observation after the step: its own torso, or the target embedding."""
    encoder_sees_afterstate: bool = True
    """Whether e also sees the afterstate (gradient stopped)."""
    reward_sees_afterstate: bool = False
    """Whether the reward is predicted from the afterstate as well as from the next state: where it
    is settled by the move itself, as in 2048, the next state alone need not tell it."""
    encoder_noise: float = 1.0
    """Scale of the Gumbel noise on the code logits at the start of training; 0 turns it off."""
    encoder_noise_end: float = 0.0
    """Scale that the noise falls to, over `learner.schedule_steps`."""
    encoder_uniform: float = 0.01
    """Share of the uniform distribution mixed into the code probabilities."""
    value_support: int = 300
    """The value's support has 2 x this + 1 bins, over the transformed value."""
    reward_support: int = 300
    """Likewise for the reward."""
    decoder_size: int = 0
    """Height and width of the frame that the auxiliary heads predict; 0: no such heads. Vectors are
    predicted whole, whatever the number."""
    decoder_target: Literal["standardised", "difference"] = "standardised"
    """What those heads predict: the next frame, each pixel by its own mean and deviation, or how it
    differs from the frame before, all pixels by one deviation (large things count for more)."""
    input_norm: bool = True
    """Standardise each pixel by its running mean and deviation (frozen in search)."""
    embedding_norm: Literal["layer", "batch"] = "batch"
    """Normalisation before the embedding's min-max scaling; batch uses running statistics."""
    bfloat16: bool = False
    """Compute in bfloat16; parameters stay float32."""

    def __post_init__(self) -> None:
        """Validates; raises ConfigError in one line."""
        _require_types("network", self)
        for name, low, high in (
            ("embedding_size", 4, 8192),
            ("hidden_size", 4, 8192),
            ("num_blocks", 1, 64),
            ("torso_channels", 1, 1024),
            ("codebook_size", 1, 1024),
            ("decoder_size", 0, 210),
            ("value_support", 1, 5000),
            ("reward_support", 1, 5000),
        ):
            value = getattr(self, name)
            require(low <= value <= high, f"network.{name}", value, f"in {low}..{high}")
        for name in ("encoder_noise", "encoder_noise_end"):
            value = getattr(self, name)
            require(0 <= value <= 10, f"network.{name}", value, "in [0, 10]")
        uniform = self.encoder_uniform
        require(0 <= uniform < 1, "network.encoder_uniform", uniform, "in [0, 1)")


@dataclass(frozen=True)
class SearchConfig:
    """The tree search."""

    engine: Literal["batched", "mctx"] = "batched"
    """batched: this project's loop over plain arrays. mctx: the reference, slower the more
    simulations; it knows nothing of the settings marked "batched only"."""
    num_simulations: int = 16
    """Expansions per search; a step of the game takes two (decision and chance), or one where the
    chance node is collapsed. 0: the prior."""
    max_depth: int | None = None
    """Longest path from the root, in edges of the tree (a collapsed one counts two); unset: as deep
    as the simulations go."""
    collapse_threshold: float = 0.0
    """An afterstate whose normalised H(sigma) is strictly below goes on through its most likely
    outcome in the same simulation. 0: never. Batched only."""
    root: Literal["puct", "gumbel"] = "puct"
    """puct: visit counts with Dirichlet noise. gumbel: sequential halving with Gumbel noise, and
    completed Q-values as the policy target (Danihelka et al. 2022); no Dirichlet noise, and the
    rollout's temperature is not used. Batched only."""
    interior: Literal["puct", "gumbel"] = "puct"
    """Choice of actions below a gumbel root: PUCT, or the Gumbel interior rule."""
    qtransform: Literal["siblings", "tree"] = "siblings"
    """What PUCT scales Q-values by: the bounds of the node and its children (mctx), or the running
    bounds of the whole tree (MuZero, appendix B). Batched only."""
    dirichlet_fraction: float = 0.25
    """Share of Dirichlet noise in the root prior, in training only."""
    dirichlet_alpha: float = 0.3
    """Concentration of that noise."""
    pb_c_init: float = 1.25
    """PUCT's c1 (MuZero, appendix B)."""
    pb_c_base: float = 19_652.0
    """PUCT's c2 (MuZero, appendix B)."""
    q_epsilon: float = 1e-8
    """Smallest range of Q that is stretched to [0, 1] (mctx's epsilon). With few simulations a
    larger one keeps noise in the values from deciding the visits."""
    gumbel_considered: int = 16
    """Most actions that a gumbel root considers."""
    gumbel_maxvisit_init: float = 50.0
    """c_visit of the Gumbel rules: Q counts (c_visit + most visits) * c_scale."""
    gumbel_value_scale: float = 0.1
    """c_scale of the Gumbel rules."""
    row_multiple: int | None = None
    """A network function runs on the rows that need it, filled up to a multiple of this many;
    unset: on the whole batch. Each multiple up to env.num_envs is compiled. Pays where a row costs
    as much in a small batch (CPUs). Changes the time alone; not in engine mctx."""

    def __post_init__(self) -> None:
        """Validates; raises ConfigError in one line."""
        _require_types("search", self)
        threshold = self.collapse_threshold
        require(0 <= threshold <= 1, "search.collapse_threshold", threshold, "in [0, 1]")
        for name, plain in (
            ("collapse_threshold", 0),
            ("root", "puct"),
            ("qtransform", "siblings"),
        ):
            value = getattr(self, name)
            fits = self.engine == "batched" or value == plain
            require(fits, f"search.{name}", value, f"{plain!r} where search.engine is mctx")
        fits = self.interior == "puct" or self.root == "gumbel"
        require(fits, "search.interior", self.interior, "'puct' where search.root is puct")
        fits = self.interior == "puct" or self.qtransform == "siblings"
        allowed = "'siblings' where search.interior is gumbel"
        require(fits, "search.qtransform", self.qtransform, allowed)
        considered = self.gumbel_considered
        require(1 <= considered <= 1000, "search.gumbel_considered", considered, "in 1..1000")
        for name in ("gumbel_maxvisit_init", "gumbel_value_scale"):
            value = getattr(self, name)
            require(value >= 0, f"search.{name}", value, "at least 0")
        rows = self.row_multiple
        good = rows is None or 1 <= rows <= 100_000
        require(good, "search.row_multiple", rows, "unset or in 1..100000")
        sims = self.num_simulations
        require(0 <= sims <= 10_000, "search.num_simulations", sims, "in 0..10000")
        depth = self.max_depth
        in_range = depth is None or 1 <= depth <= 10_000
        require(in_range, "search.max_depth", depth, "unset or in 1..10000")
        fraction = self.dirichlet_fraction
        require(0 <= fraction <= 1, "search.dirichlet_fraction", fraction, "in [0, 1]")
        require(self.dirichlet_alpha > 0, "search.dirichlet_alpha", self.dirichlet_alpha, "above 0")
        require(self.pb_c_init > 0, "search.pb_c_init", self.pb_c_init, "above 0")
        require(self.pb_c_base > 0, "search.pb_c_base", self.pb_c_base, "above 0")
        require(self.q_epsilon > 0, "search.q_epsilon", self.q_epsilon, "above 0")


@dataclass(frozen=True)
class RolloutConfig:
    """How games are played for training."""

    policy: Literal["search", "prior"] = "search"
    """search: act by the tree's visits. prior: the bare policy head, epsilon-greedy."""
    length: int = 32
    """T: steps of every lane between two rounds of learning."""
    pools: int = 1
    """2: half of the lanes step while the device searches for the other half; for accelerators."""
    temperature: float = 1.0
    """Actions are drawn in proportion to visits^(1/temperature), at the start of the run."""
    temperature_end: float = 0.25
    """Temperature at the end of its schedule; 0 is greedy."""
    epsilon: float = 0.25
    """Plain-policy mode: chance of a uniformly random action, at the start of the run."""
    epsilon_end: float = 0.01
    """Plain-policy mode: that chance at the end of its schedule."""
    schedule: Literal["linear", "exponential"] = "linear"
    """Shape of both schedules."""
    schedule_fraction: float = 0.5
    """Share of the run's environment steps over which both schedules run."""

    def __post_init__(self) -> None:
        """Validates; raises ConfigError in one line."""
        _require_types("rollout", self)
        require(1 <= self.length <= 10_000, "rollout.length", self.length, "in 1..10000")
        require(self.pools in (1, 2), "rollout.pools", self.pools, "1 or 2")
        for name in ("temperature", "temperature_end"):
            value = getattr(self, name)
            require(0 <= value <= 100, f"rollout.{name}", value, "in [0, 100]")
        for name in ("epsilon", "epsilon_end"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"rollout.{name}", value, "in [0, 1]")
        share = self.schedule_fraction
        require(0 < share <= 1, "rollout.schedule_fraction", share, "in (0, 1]")


@dataclass(frozen=True)
class ReplayConfig:
    """The replay buffer (flashbax, on the device)."""

    capacity: int = 100_000
    """Environment steps kept over all lanes."""
    min_size: int = 2_000
    """Environment steps collected before learning starts."""
    prioritised: bool = True
    """Sample by priority (value error) rather than uniformly."""
    priority_exponent: float = 0.6
    """Alpha of prioritised replay; 0 is uniform."""
    importance_exponent: float = 0.4
    """Beta of prioritised replay: how far importance weights undo the bias."""

    def __post_init__(self) -> None:
        """Validates; raises ConfigError in one line."""
        _require_types("replay", self)
        capacity, size = self.capacity, self.min_size
        require(1 <= capacity <= 10**9, "replay.capacity", capacity, "in 1..10^9")
        allowed = f"in 1..{capacity} (replay.capacity)"
        require(1 <= size <= capacity, "replay.min_size", size, allowed)
        for name in ("priority_exponent", "importance_exponent"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"replay.{name}", value, "in [0, 1]")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; a weight of 0 turns a term off."""

    policy: float = 1.0
    """Cross-entropy of the policy with the search's action weights."""
    value: float = 0.25
    """Cross-entropy of the categorical value with the n-step target."""
    reward: float = 1.0
    """Cross-entropy of the categorical reward."""
    afterstate_value: float = 0.25
    """Cross-entropy of the afterstate's value with the value target of the state before it."""
    chance: float = 1.0
    """Cross-entropy of the chance prior with the encoder's code."""
    commitment: float = 0.1
    """Squared distance of the code probabilities from the (stopped) code."""
    commitment_start: int = 0
    """Learner steps before the commitment term begins to rise to its weight."""
    consistency: float = 2.0
    """Negative cosine with the embedding of the real next observation (EfficientZero)."""
    code_entropy: float = 0.02
    """Bonus on the entropy of the batch's mean code, which keeps codes alive."""
    reconstruction: float = 0.0
    """Squared error of the standardised next frame, from the afterstate and from the next state."""

    def __post_init__(self) -> None:
        """Validates; raises ConfigError in one line."""
        _require_types("loss", self)
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            require(0 <= value <= 10**9, f"loss.{spec.name}", value, "in 0..1000000000")


@dataclass(frozen=True)
class LearnerConfig:
    """The training step."""

    batch_size: int = 64
    """Windows per update."""
    unroll_steps: int = 5
    """K: model steps unrolled from the root of each window."""
    td_steps: int = 10
    """n of the n-step value target."""
    gamma: float = 0.997
    """Discount per agent step (not per frame)."""
    bootstrap: Literal["search", "target"] = "search"
    """Value at the end of the n steps: the stored search value, or the target network's."""
    updates_per_env_step: float = 0.05
    """Learner updates for each environment step of a lane."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    learning_rate_end: float = 1e-4
    """Learning rate at the end of the run (cosine from the peak)."""
    warmup_steps: int = 100
    """Learner steps over which the learning rate rises from 0."""
    weight_decay: float = 1e-4
    """AdamW's weight decay, on matrices only."""
    max_grad_norm: float = 5.0
    """Gradients are scaled down to this global norm."""
    target_update_period: int = 200
    """Learner steps between two copies into the target network."""
    dynamics_gradient_scale: float = 0.5
    """Gradient that passes into the embedding at each unroll step (MuZero)."""
    max_skipped: int = 10
    """Updates with a loss or gradient that is not finite are skipped; with more the run stops."""
    updates_per_dispatch: int = 1
    """Updates in one compiled call (lax.scan); 1 is fastest on a CPU, more on an accelerator."""
    schedule_steps: int = 4_000
    """Learner steps over which encoder noise falls and the commitment rises."""

    def __post_init__(self) -> None:
        """Validates; raises ConfigError in one line."""
        _require_types("learner", self)
        for name, low, high in (
            ("batch_size", 1, 65_536),
            ("unroll_steps", 1, 64),
            ("td_steps", 1, 1_000),
            ("target_update_period", 1, 10**9),
            ("warmup_steps", 0, 10**9),
            ("schedule_steps", 1, 10**9),
            ("max_skipped", 0, 10**9),
            ("updates_per_dispatch", 1, 10_000),
        ):
            value = getattr(self, name)
            require(low <= value <= high, f"learner.{name}", value, f"in {low}..{high}")
        require(0 <= self.gamma <= 1, "learner.gamma", self.gamma, "in [0, 1]")
        rate = self.updates_per_env_step
        require(0 <= rate <= 64, "learner.updates_per_env_step", rate, "in [0, 64]")
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            require(value > 0, f"learner.{name}", value, "above 0")
        for name in ("learning_rate_end", "weight_decay"):
            value = getattr(self, name)
            require(value >= 0, f"learner.{name}", value, "at least 0")
        scale = self.dynamics_gradient_scale
        require(0 <= scale <= 1, "learner.dynamics_gradient_scale", scale, "in [0, 1]")


@dataclass(frozen=True)
class MacroConfig:
    """Extraction of macros from search trees and played games."""

    min_length: int = 2
    """Shortest macro, in environment actions."""
    max_length: int = 6
    """Longest macro."""
    play_threshold: float = 0.2
    """A played transition is certain below this normalised entropy."""
    tree_threshold: float = 0.4
    """A transition in a search tree is certain below this normalised entropy."""
    min_occurrences: int = 3
    """A candidate seen this often is a macro."""
    capacity: int = 1024
    """Slots of the table; when it is full the least useful entry goes, and is counted."""
    num_buckets: int = 64
    """Start-state buckets (arg max of a fixed random projection of the embedding); even."""
    tree_weight: Literal["path", "visits"] = "path"
    """path: each tree path counts once per root. visits: by its end node's visits."""
    include_repeats: bool = True
    """Whether windows of one repeated action count."""
    bucket_warmup_steps: int = 20_000
    """Environment steps after which the mean that buckets are centred on is frozen, and start
    states begin to be counted. It must be the mean of a model that has begun to learn."""
    deterministic_threshold: float = 0.1
    """A macro with a mean entropy below this is reported as deterministic."""
    distance_threshold: float = 0.5
    """A trial is near if the foreseen end is no farther from the real one than this share of its
    mean distance from the ends of other windows."""
    reward_threshold: float = 0.25
    """A trial is paid if the errors of its rewards sum up to no more than this."""
    min_trials: int = 25
    """Trials that are asked for before a macro is called sound or refuted: of fewer no bound
    reaches a sound_share of 0.9."""
    certain_share: float = 0.25
    """Share of the replayed windows with a macro's actions that must be certain, by the lower bound
    of its interval. 0: a macro that is certain in few states only may be sound, too."""
    sound_share: float = 0.9
    """Share of trials that must hold, likewise."""
    evidence_decay: float = 0.95
    """Evidence is multiplied by this after every iteration's updates: the model that it was of goes
    on learning."""
    slots: int = 64
    """Macros whose precondition is learned, at most: where each applies."""
    value_delta: float = 0.25
    """A macro applies only where rewards and value after it come to no less than this below the
    value before it, that of the best action; in the game's own (clipped) points."""
    head_size: int = 128
    """Width of the head that learns preconditions."""
    head_learning_rate: float = 2e-3
    """Adam's learning rate for that head; 0: no preconditions are learned."""
    head_every: int = 4
    """Updates of the model for each of that head, and for each batch that evidence is taken from:
    it costs about as much as a forward pass over macro.max_length steps."""

    def __post_init__(self) -> None:
        """Validates; raises ConfigError in one line."""
        _require_types("macro", self)
        require(1 <= self.min_length <= 8, "macro.min_length", self.min_length, "in 1..8")
        low, high = self.min_length, self.max_length
        allowed = f"in {low}..8, from macro.min_length on"
        require(low <= high <= 8, "macro.max_length", high, allowed)
        for name in (
            *("play_threshold", "tree_threshold", "deterministic_threshold"),
            *("certain_share", "sound_share", "evidence_decay"),
        ):
            value = getattr(self, name)
            require(0 <= value <= 1, f"macro.{name}", value, "in [0, 1]")
        distance, error = self.distance_threshold, self.reward_threshold
        require(0 <= distance <= 1, "macro.distance_threshold", distance, "in [0, 1]")
        require(0 <= error <= 1e6, "macro.reward_threshold", error, "in [0, 10^6]")
        trials = self.min_trials
        require(1 <= trials <= 10**6, "macro.min_trials", trials, "in 1..1000000")
        seen = self.min_occurrences
        require(1 <= seen <= 10**9, "macro.min_occurrences", seen, "in 1..1000000000")
        require(8 <= self.capacity <= 2**20, "macro.capacity", self.capacity, "in 8..1048576")
        buckets = self.num_buckets
        allowed = "an even number in 2..1024"
        require(2 <= buckets <= 1024 and buckets % 2 == 0, "macro.num_buckets", buckets, allowed)
        for name, most in (("slots", 4096), ("head_size", 8192), ("head_every", 10**9)):
            value = getattr(self, name)
            require(1 <= value <= most, f"macro.{name}", value, f"in 1..{most}")
        delta, rate = self.value_delta, self.head_learning_rate
        require(0 <= delta <= 1e9, "macro.value_delta", delta, "in [0, 10^9]")
        require(0 <= rate <= 1, "macro.head_learning_rate", rate, "in [0, 1]")
        warm = self.bucket_warmup_steps
        require(0 <= warm <= 10**12, "macro.bucket_warmup_steps", warm, "in 0..10^12")


@dataclass(frozen=True)
class EvalConfig:
    """Whole games, raw scores, greedy, no noise."""

    num_games: int = 32
    """Games of the final evaluation, shared equally by the lanes."""
    num_envs: int = 32
    """Lanes of an evaluation; each plays num_games / num_envs games, rounded up."""
    max_steps: int = 3_000
    """Agent steps after which an evaluation game is cut off; the share of cut games is reported."""
    noop_max: int = 30
    """Atari only: random no-op frames at each game's start."""
    every_env_steps: int = 0
    """Environment steps between two evaluations during training; 0: at the end only."""
    interim_games: int = 16
    """Games of an evaluation during training."""
    sticky_column: bool = False
    """Whether the final evaluation is repeated with sticky actions 0.25."""
    baselines: bool = True
    """Whether a random policy and every constant action are measured by the same code."""
    check_model: bool = True
    """Whether the model is checked on a replayed batch at each evaluation and checkpoint, and at
    the end. The run itself is the same with and without."""

    def __post_init__(self) -> None:
        """Validates; raises ConfigError in one line."""
        _require_types("eval", self)
        for name in ("num_games", "num_envs", "interim_games"):
            value = getattr(self, name)
            require(1 <= value <= 4096, f"eval.{name}", value, "in 1..4096")
        require(1 <= self.max_steps <= 27_000, "eval.max_steps", self.max_steps, "in 1..27000")
        require(0 <= self.noop_max <= 1000, "eval.noop_max", self.noop_max, "in 0..1000")
        every = self.every_env_steps
        require(every >= 0, "eval.every_env_steps", every, "at least 0")


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on."""

    experiment: str = "breakout"
    """Name of the experiment; runs are kept under runs/<experiment>/."""
    seed: int = 0
    """Seed of everything random in the run."""
    total_env_steps: int = 100_000
    """Agent steps over all lanes; the run's whole length (in Atari 4 emulator frames each)."""
    checkpoint_every_env_steps: int = 50_000
    """Environment steps between two checkpoints; one is always written at the end."""
    keep_checkpoint_every_env_steps: int = 0
    """Checkpoints at multiples of so many environment steps are kept; 0: the newest two, and the
    best by evaluation."""
    log_every: int = 1
    """Iterations between two rows of metrics.jsonl."""
    env: EnvConfig = field(default_factory=EnvConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    macro: MacroConfig = field(default_factory=MacroConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        """Validates what spans sections; raises ConfigError in one line."""
        _require_types("", self)
        is_plain = re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,99}", self.experiment) is not None
        allowed = "a plain name of letters, digits, _ . -"
        require(is_plain, "experiment", self.experiment, allowed)
        require(0 <= self.seed < 2**31, "seed", self.seed, "in 0..2147483647")
        require(self.log_every >= 1, "log_every", self.log_every, "at least 1")
        every = self.checkpoint_every_env_steps
        require(every >= 1, "checkpoint_every_env_steps", every, "at least 1")
        keep = self.keep_checkpoint_every_env_steps
        allowed = f"0 or a multiple of checkpoint_every_env_steps = {every}"
        fits = keep >= 0 and keep % every == 0
        require(fits, "keep_checkpoint_every_env_steps", keep, allowed)
        self._check_suite()
        self._check_iteration()
        self._check_windows()
        self._check_bytes()

    def _check_suite(self) -> None:
        """What goes with which kind of environment, and with which kind of network."""
        suite, family = self.env.suite, self.network.family
        column = self.eval.sticky_column
        allowed = f"false where env.suite is {suite}"
        require(not column or suite == "atari", "eval.sticky_column", column, allowed)
        allowed = "light, mlp or resnet where env.suite is atari"
        require(suite != "atari" or family != "board", "network.family", family, allowed)
        size = self.env.frame_size
        allowed = "at least 48 where network.family is resnet"
        require(family != "resnet" or size >= 48, "env.frame_size", size, allowed)
        weight = self.loss.reconstruction
        allowed = "0 while network.decoder_size is 0"
        fits = weight == 0 or self.network.decoder_size > 0
        require(fits, "loss.reconstruction", weight, allowed)

    def _check_iteration(self) -> None:
        """One iteration: a rollout of every lane, and the updates after it."""
        lanes, pools, total = self.env.num_envs, self.rollout.pools, self.total_env_steps
        steps = lanes * self.rollout.length
        allowed = f"at least one iteration: env.num_envs x rollout.length = {steps}"
        require(total >= steps, "total_env_steps", total, allowed)
        allowed = f"a divisor of env.num_envs = {lanes}"
        require(lanes % pools == 0, "rollout.pools", pools, allowed)
        rate, updates = self.learner.updates_per_env_step, self.updates_per_iteration
        allowed = f"0, or at least one update per {steps} steps (env.num_envs x rollout.length)"
        require(rate == 0 or updates >= 1, "learner.updates_per_env_step", rate, allowed)
        dispatch = self.learner.updates_per_dispatch
        allowed = (
            f"a divisor of the {updates} updates of an iteration "
            "(learner.updates_per_env_step x env.num_envs x rollout.length)"
        )
        require(updates % dispatch == 0, "learner.updates_per_dispatch", dispatch, allowed)

    def _check_windows(self) -> None:
        """The replay holds whole windows of every lane."""
        lanes, length = self.env.num_envs, self.rollout.length
        window = self.window_rows
        rows = (
            f"window of {window} rows from env.frame_stack, learner.unroll_steps, learner.td_steps"
        )
        capacity, size = self.replay.capacity, self.replay.min_size
        fits = capacity // lanes >= window + length
        least = lanes * (window + length)
        allowed = f"at least env.num_envs x ({rows}, + rollout.length) = {least}"
        require(fits, "replay.capacity", capacity, allowed)
        fits = self.learner.updates_per_env_step == 0 or size >= lanes * window
        allowed = f"at least env.num_envs x ({rows}) = {lanes * window}"
        require(fits, "replay.min_size", size, allowed)

    def _check_bytes(self) -> None:
        """No array is larger than any machine; in suites of unknown frames each has one byte."""
        pixels = self.env.frame_size**2 if self.env.suite == "atari" else 1
        search, embedding = self.search.num_simulations, self.network.embedding_size
        capacity, batch = self.replay.capacity, self.learner.batch_size
        window = self.window_rows
        for name, value, needed, factors in (
            ("replay.capacity", capacity, capacity * pixels, "env.frame_size^2"),
            ("learner.batch_size", batch, batch * window * pixels, "a window of env.frame_size^2"),
            (
                "search.num_simulations",
                search,
                4 * search * self.env.num_envs * embedding,
                "4 x env.num_envs x network.embedding_size",
            ),
        ):
            allowed = f"smaller: times {factors} it is {needed:,} of at most {MAX_BYTES:,} bytes"
            require(needed <= MAX_BYTES, name, value, allowed)

    @property
    def updates_per_iteration(self) -> int:
        """Learner updates after each rollout."""
        return round(self.learner.updates_per_env_step * self.env.num_envs * self.rollout.length)

    @property
    def window_rows(self) -> int:
        """W: rows of a sampled window, from the oldest stacked frame to the last bootstrap."""
        return self.env.frame_stack - 1 + self.learner.unroll_steps + self.learner.td_steps + 1
