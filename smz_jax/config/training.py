"""Settings of play, replay, losses, updates, macros and evaluation, checked on construction."""

from dataclasses import dataclass
from typing import Annotated, Literal

from smz_jax.config.check import Between, Checked
from smz_jax.config.kept import Kept, read_keep

Opponents = Literal["random", "exact", "alpha_beta", "gnubg0", "gnubg2"]
"""Who plays against an agent in games of two players, see `EvalConfig.opponent`."""


@dataclass(frozen=True)
class RolloutConfig(Checked, section="rollout"):
    """How games are played for training."""

    policy: Literal["search", "prior"] = "search"
    """search: act by the tree's visits. prior: the bare policy head, epsilon-greedy; of a dataset
    nothing is searched anew, and the policy learns the actions that were played."""
    length: Annotated[int, Between(1, 10_000)] = 32
    """T: steps of every lane between two rounds of learning."""
    pools: Annotated[int, Between(1, 2, words="1 or 2")] = 1
    """2: half of the lanes step while the device searches for the other half; for accelerators."""
    temperature: Annotated[float, Between(0.0, 100.0)] = 1.0
    """Actions are drawn in proportion to visits^(1/temperature), at the start of the run."""
    temperature_end: Annotated[float, Between(0.0, 100.0)] = 0.25
    """Temperature at the end of its schedule; 0 is greedy."""
    epsilon: Annotated[float, Between(0.0, 1.0)] = 0.25
    """Plain-policy mode: chance of a uniformly random action, at the start of the run."""
    epsilon_end: Annotated[float, Between(0.0, 1.0)] = 0.01
    """Plain-policy mode: that chance at the end of its schedule."""
    schedule: Literal["linear", "exponential"] = "linear"
    """Shape of both schedules."""
    schedule_fraction: Annotated[float, Between(0.0, 1.0, "(]")] = 0.5
    """Share of the run's environment steps over which both schedules run."""
    execute_macros: bool = False
    """A macro whose edge the root's search took more often than its first action's own is played
    to its end, as long as it is valid, certain, and the game goes on (docs/planning.md). In
    training alone. Needs search.macros."""


@dataclass(frozen=True)
class ReplayConfig(Checked, section="replay"):
    """The replay buffer (flashbax, on the device)."""

    capacity: Annotated[int, Between(1, 10**9, words="in 1..10^9")] = 100_000
    """Environment steps kept over all lanes."""
    min_size: int = 2_000
    """Environment steps collected before learning starts."""
    prioritised: bool = True
    """Sample by priority (value error) rather than uniformly."""
    priority_exponent: Annotated[float, Between(0.0, 1.0)] = 0.6
    """Alpha of prioritised replay; 0 is uniform."""
    importance_exponent: Annotated[float, Between(0.0, 1.0)] = 0.4
    """Beta of prioritised replay: how far importance weights undo the bias."""
    keep: str = "all"
    """Which whole games are kept of `dataset` or `demonstrations`, or drawn where view is kept:
    all, or as best:20, newest:100 or min_score:10, or several with commas between them, of which a
    game must pass each. A score is the sum of the rewards, or what a dataset says."""
    view: Literal["none", "recent", "best", "kept"] = "none"
    """A second priority, by which the share `view_share` of each batch is drawn. recent: falls
    linearly with a row's age. best: by how far the rewards of the row's game add up to more than
    the mean, of games that are whole in the replay. kept: all windows of those among them that
    `keep` keeps alike, none of others."""
    view_share: Annotated[float, Between(0.0, 1.0)] = 0.25
    """Share of a batch that is drawn by `view`; no importance weight undoes it."""
    demonstration_share: Annotated[float, Between(0.0, 1.0)] = 0.25
    """Share of a batch that is drawn from `demonstrations`, at the start of the run."""
    demonstration_share_end: Annotated[float, Between(0.0, 1.0)] = 0.0
    """That share at the end of the run; it changes linearly over the updates."""

    def __post_init__(self) -> None:
        """Checks that the buffer can hold `min_size`, and that `keep` can be read, too."""
        super().__post_init__()
        allowed = f"in 1..{self.capacity} (replay.capacity)"
        self._require("replay.min_size", 1 <= self.min_size <= self.capacity, allowed)
        read_keep(self.keep)

    @property
    def kept(self) -> Kept:
        """What `keep` says."""
        return read_keep(self.keep)


@dataclass(frozen=True)
class ReanalyseConfig(Checked, section="reanalyse"):
    """Stored targets that are searched anew (MuZero Reanalyse, appendix H) and written back."""

    ratio: Annotated[float, Between(0.0, 10**6, words="in 0..10^6")] = 0.0
    """Stored environment steps whose policy and value targets are searched anew, with the newest
    parameters, for each one that is played; rounded up to whole searches of about 128 roots. 0, and
    always where rollout.policy is prior: targets stay as old as the play. Of a dataset the rows of
    each iteration are searched, whatever this is."""
    mode: Literal["ratio", "chance"] = "ratio"
    """ratio: as many in every iteration. chance: as many on average; how many is drawn, as if each
    search of a rollout's rows were made by that chance, which is at most 1."""
    order: Literal["sweep", "sampled"] = "sweep"
    """sweep: from the oldest row to the newest, over and over. sampled: four times as many are
    drawn as batches are, by priority, and those with the oldest targets are searched."""
    num_simulations: Annotated[int | None, Between(1, 10_000, words="unset or in 1..10000")] = None
    """Simulations of these searches; unset: search.num_simulations."""

    def __post_init__(self) -> None:
        """Checks the ratio as a chance, too."""
        super().__post_init__()
        fits = self.mode == "ratio" or self.ratio <= 1.0
        self._require("reanalyse.ratio", fits, "at most 1 where reanalyse.mode is chance")


@dataclass(frozen=True)
class LossConfig(Checked, section="loss"):
    """Weights of the loss terms; a weight of 0 turns a term off."""

    policy: Annotated[float, Between(0, 10**9)] = 1.0
    """Cross-entropy of the policy with the search's action weights."""
    value: Annotated[float, Between(0, 10**9)] = 0.25
    """Cross-entropy of the categorical value with the n-step target."""
    reward: Annotated[float, Between(0, 10**9)] = 1.0
    """Cross-entropy of the categorical reward."""
    afterstate_value: Annotated[float, Between(0, 10**9)] = 0.25
    """Cross-entropy of the afterstate's value with the value target of the state before it."""
    chance: Annotated[float, Between(0, 10**9)] = 1.0
    """Cross-entropy of the chance prior with the encoder's code."""
    commitment: Annotated[float, Between(0, 10**9)] = 0.1
    """Squared distance of the code probabilities from the (stopped) code."""
    commitment_start: Annotated[int, Between(0, 10**9)] = 0
    """Learner steps before the commitment term begins to rise to its weight."""
    representation: Annotated[float, Between(0, 10**9)] = 0.0
    """Cross-entropy of the code probabilities with the (stopped) chance prior, so that a code tells
    only what is worth a surprise (DreamerV3's representation loss); it rises as the commitment."""
    consistency: Annotated[float, Between(0, 10**9)] = 2.0
    """Negative cosine with the embedding of the real next observation (EfficientZero)."""
    contrast: Annotated[float, Between(0, 10**9)] = 0.0
    """Cross-entropy of finding that embedding among those of the window's other steps and of other
    windows (InfoNCE): it has to tell what differs between them, however small."""
    code_entropy: Annotated[float, Between(0, 10**9)] = 0.02
    """Bonus on the entropy of the batch's mean code, which keeps codes alive."""
    reconstruction: Annotated[float, Between(0, 10**9)] = 0.0
    """Squared error of the standardised next frame, from the afterstate and from the next state."""
    reconstruction_end: Annotated[float | None, Between(0, 10**9)] = None
    """Weight that the reconstruction falls to, over `learner.schedule_steps` learner steps from
    that many on, once codes live; unset: it stays."""
    auxiliary_every: Annotated[int, Between(1, 1000)] = 1
    """One transition in so many has a consistency and a reconstruction, which count for so many:
    the same on average, in less time."""
    jump: Annotated[float, Between(0, 10**9)] = 0.0
    """The jump's loss, if there is a jump, as a term of the model's own: its gradient then reaches
    representation and dynamics (docs/planning.md). Needs network.jump_length."""
    continuation: Annotated[float, Between(0, 10**9)] = 1.0
    """Cross-entropy of whether the game goes on, where `network.continuation` is on."""


@dataclass(frozen=True)
class LearnerConfig(Checked, section="learner"):
    """The training step."""

    batch_size: Annotated[int, Between(1, 65_536)] = 64
    """Windows per update."""
    unroll_steps: Annotated[int, Between(1, 64)] = 5
    """K: model steps unrolled from the root of each window."""
    td_steps: Annotated[int, Between(1, 1_000)] = 10
    """n of the n-step value target."""
    cut_below: Annotated[float, Between(0.0, 1.0)] = 0.0
    """A value target looks no further than to an action with less than this share of the best
    one's weight in the policy target: there the stored value stands in, so that moves played to
    explore count neither for nor against. 0: what was played counts, whatever it was."""
    gamma: Annotated[float, Between(0.0, 1.0)] = 0.997
    """Discount per agent step (not per frame)."""
    bootstrap: Literal["search", "target"] = "search"
    """Value at the end of the n steps: the stored search value, or the target network's."""
    updates_per_env_step: Annotated[float, Between(0.0, 64.0)] = 0.05
    """Learner updates for each environment step of a lane."""
    frame_shift: Annotated[int, Between(0, 16)] = 0
    """Pixels by which the frames of a batch's window are shifted at most, all by the same
    (Kostrikov et al. 2021, DrQ: 4)."""
    learning_rate: Annotated[float, Between(0, ends="(]")] = 1e-3
    """Peak learning rate of AdamW."""
    learning_rate_end: Annotated[float, Between(0)] = 1e-4
    """Learning rate at the end of the run (cosine from the peak)."""
    warmup_steps: Annotated[int, Between(0, 10**9)] = 100
    """Learner steps over which the learning rate rises from 0."""
    weight_decay: Annotated[float, Between(0)] = 1e-4
    """AdamW's weight decay, on matrices only."""
    max_grad_norm: Annotated[float, Between(0, ends="(]")] = 5.0
    """Gradients are scaled down to this global norm."""
    target_update_period: Annotated[int, Between(1, 10**9)] = 200
    """Learner steps between two copies into the target network."""
    target_update_share: Annotated[float, Between(0.0, 1.0, "(]")] = 1.0
    """Share of the learned parameters in a copy. Below 1 the target network is their moving
    average, which then also plays, is evaluated, verified and exported."""
    dynamics_gradient_scale: Annotated[float, Between(0.0, 1.0)] = 0.5
    """Gradient that passes into the embedding at each unroll step (MuZero)."""
    max_skipped: Annotated[int, Between(0, 10**9)] = 10
    """Updates with a loss or gradient that is not finite are skipped; with more the run stops."""
    updates_per_dispatch: Annotated[int, Between(1, 10_000)] = 1
    """Updates in one compiled call (lax.scan); 1 is fastest on a CPU, more on an accelerator."""
    jump_every: Annotated[int, Between(1, 10**9)] = 1
    """Updates of the model for each of the jump, if there is one."""
    jump_learning_rate: Annotated[float, Between(0, ends="(]")] = 1e-3
    """Adam's learning rate for the jump."""
    schedule_steps: Annotated[int, Between(1, 10**9)] = 4_000
    """Learner steps over which encoder noise falls and the commitment rises."""


@dataclass(frozen=True)
class MacroConfig(Checked, section="macro"):
    """Extraction of macros from search trees and played games."""

    min_length: Annotated[int, Between(1, 8)] = 2
    """Shortest macro, in environment actions."""
    max_length: int = 6
    """Longest macro."""
    play_threshold: Annotated[float, Between(0.0, 1.0)] = 0.2
    """A played transition is certain below this normalised entropy."""
    tree_threshold: Annotated[float, Between(0.0, 1.0)] = 0.4
    """A transition in a search tree is certain below this normalised entropy."""
    min_occurrences: Annotated[int, Between(1, 10**9)] = 3
    """A candidate seen this often is a macro."""
    capacity: Annotated[int | None, Between(8, 2**20, words="unset or in 8..1048576")] = None
    """Slots of the table; when it is full the least useful entry goes, and is counted. Unset: one
    for each sequence that there is of these lengths, at most 8,192."""
    halve_every: Annotated[int, Between(0, 10**12, words="in 0..10^12")] = 0
    """Environment steps after which the counts of all macros are halved, so that the play of long
    ago weighs less than that of now; an eighth of a full table is then kept for sequences that are
    seen often now. 0: never."""
    num_buckets: int = 64
    """Start-state buckets (arg max of a fixed random projection of the embedding); even."""
    tree_weight: Literal["path", "visits"] = "path"
    """path: each tree path counts once per root. visits: by its end node's visits."""
    include_repeats: bool = True
    """Whether windows of one repeated action count."""
    bucket_warmup_steps: Annotated[int, Between(0, 10**12, words="in 0..10^12")] = 20_000
    """Environment steps after which the mean that buckets are centred on is frozen, and start
    states begin to be counted. It must be the mean of a model that has begun to learn."""
    deterministic_threshold: Annotated[float, Between(0.0, 1.0)] = 0.1
    """A macro with a mean entropy below this is reported as deterministic."""
    distance_threshold: Annotated[float, Between(0.0, 1.0)] = 0.5
    """A trial is near if the foreseen end is no farther from the real one than this share of its
    mean distance from the ends of other windows, and nearer than what was seen 1, 2 and 4 steps
    before and after it."""
    reward_threshold: Annotated[float, Between(0, 10**6, words="in [0, 10^6]")] = 0.25
    """A trial is paid if the sum of its rewards is no farther from the foreseen sum than this."""
    min_trials: Annotated[int, Between(1, 10**6)] = 25
    """Trials needed before a macro is called sound or refuted: of fewer no bound reaches a
    sound_share of 0.9."""
    certain_share: Annotated[float, Between(0.0, 1.0)] = 0.25
    """Share of the replayed windows with a macro's actions that must be certain, by the lower bound
    of its interval. 0: a macro that is certain in few states only may be sound, too."""
    sound_share: Annotated[float, Between(0.0, 1.0)] = 0.9
    """Share of trials that must hold, likewise."""
    false_share: Annotated[float, Between(0.0, 1.0)] = 0.05
    """Share of the sound macros that may be false, of many candidates (Benjamini and Hochberg
    1995); 1: each is judged as if it were the only one."""
    evidence_decay: Annotated[float, Between(0.0, 1.0)] = 0.95
    """Evidence is multiplied by this after every iteration's updates: the model that it was
    of keeps learning."""
    slots: Annotated[int, Between(1, 4096)] = 64
    """Macros whose precondition is learned, at most: where each applies."""
    value_delta: Annotated[float, Between(0, 10**9, words="in [0, 10^9]")] = 0.25
    """A macro applies only where rewards and value after it come to no less than this below the
    value before it, that of the best action; in the game's own (clipped) points."""
    head_size: Annotated[int, Between(1, 8192)] = 128
    """Width of the head that learns preconditions."""
    head_learning_rate: Annotated[float, Between(0.0, 1.0)] = 2e-3
    """Adam's learning rate for that head; 0: no preconditions are learned."""
    head_every: Annotated[int, Between(1, 10**9)] = 4
    """Updates of the model for each of that head, and for each batch that evidence is taken from:
    it costs about as much as a forward pass over macro.max_length steps."""

    def __post_init__(self) -> None:
        """Checks the lengths against each other, too."""
        super().__post_init__()
        allowed = f"in {self.min_length}..8, from macro.min_length on"
        self._require("macro.max_length", self.min_length <= self.max_length <= 8, allowed)
        fits = self.num_buckets in range(2, 1025, 2)
        self._require("macro.num_buckets", fits, "an even number in 2..1024")


@dataclass(frozen=True)
class EvalConfig(Checked, section="eval"):
    """Whole games, raw scores, at temperature 0."""

    policy: Literal["search", "prior"] = "search"
    """search: the most visited action. prior: the likeliest of the bare policy head, for models
    that were never searched (behaviour cloning)."""
    num_games: Annotated[int, Between(1, 4096)] = 32
    """Games of the final evaluation, shared equally by the lanes."""
    num_envs: Annotated[int, Between(1, 4096)] = 32
    """Lanes of an evaluation; each plays num_games / num_envs games, rounded up."""
    noise: Annotated[float, Between(0.0, 1.0)] = 0.0
    """Scale of the root's noise in all evaluations; 0: greedy, 1: as in training. A game without
    chance repeats itself under greedy play. Above 0, up to 32 greedy games are also played at the
    end."""
    max_steps: Annotated[int, Between(1, 27_000)] = 3_000
    """Agent steps after which an evaluation game is cut off; the share of cut games is reported."""
    noop_max: Annotated[int, Between(0, 1000)] = 30
    """Atari only: random no-op frames at each game's start."""
    every_env_steps: Annotated[int, Between(0)] = 0
    """Environment steps between two evaluations during training; 0: at the end only."""
    interim_games: Annotated[int, Between(1, 4096)] = 16
    """Games of an evaluation during training."""
    opponent: Opponents = "random"
    """Games of several players: who plays against the agent, which has each seat in turn.
    exact: the best play (Pig, tic_tac_toe). alpha_beta: four moves ahead (connect_four). gnubg0,
    gnubg2: GNU Backgammon, if it is installed, looking so many rolls ahead. A score is then the
    mean result, 1 a game won and -1 a game lost, or points."""
    sticky_column: bool = False
    """Whether the final evaluation is repeated with sticky actions 0.25."""
    baselines: bool = True
    """Whether a random policy and every constant action are measured by the same code."""
    check_model: bool = True
    """Whether the model is checked on a replayed batch at each evaluation and checkpoint, and at
    the end. The run itself is the same with and without."""
