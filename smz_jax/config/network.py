"""Settings of the networks, checked on construction."""

from dataclasses import dataclass
from typing import Annotated, Literal

from smz_jax.config.check import Between, Checked

MAX_SUPPORT = 5000
"""Largest support of rewards and values."""
MARGIN = 3
"""Bins beyond each end of the support that a bell around the end reaches into."""
SEQUENCES = ("lstm", "transformer", "light_lstm", "resnet_lstm", "resnet_transformer")
"""Values of `network.family` that read the frames of an observation one after the other."""


@dataclass(frozen=True)
class NetworkConfig(Checked, section="network"):
    """The six functions of the model."""

    family: Literal[
        "light", "mlp", "board", "resnet",
        "lstm", "transformer", "light_lstm", "resnet_lstm", "resnet_transformer",
    ] = "light"  # fmt: skip
    """light: small conv torso, flat embedding (CPUs). mlp: flat 256-wide. board: planes of a
    board's size, weights shared by its lines (pgx). resnet: 6x6 planes. lstm, transformer: over
    the frames of an observation one after the other (`env.frame_stack` of 2 or more), for games
    whose newest frame does not tell all. light_lstm (CPUs), resnet_lstm, resnet_transformer: the
    same over images, each through a conv torso first."""
    embedding_size: Annotated[int, Between(4, 8192)] = 256
    """Length of a flat embedding, or channels of the planes of resnet and board."""
    hidden_size: Annotated[int, Between(4, 8192)] = 256
    """Width of the hidden layers of dynamics and heads."""
    num_blocks: Annotated[int, Between(1, 64)] = 1
    """Residual blocks in each dynamics function (and per resolution in the resnet torso)."""
    torso_channels: Annotated[int, Between(1, 1024)] = 16
    """Channels of the light torso's first layer; its second has twice as many, and so has that of
    resnet_lstm and resnet_transformer."""
    layers: Annotated[int, Between(1, 16)] = 1
    """Layers of an lstm or a transformer, each `hidden_size` wide."""
    heads: Annotated[int, Between(1, 64)] = 4
    """Attention heads of a transformer; they divide its width, and the half of the encoder's."""
    number_policy: Literal["bins", "gaussian"] = "bins"
    """How the policy weighs a number's values (`env.action_bins`). bins: a logit for each.
    gaussian: a squashed Gaussian, summed up around each; for many values (docs/actions.md)."""
    codebook_size: Annotated[int, Between(1, 1024)] = 32
    """C: chance outcomes that the model distinguishes. 1 makes the model MuZero's, and its search
    as deep with `search.collapse_threshold` above 0."""
    encoder_input: Literal["frames", "embedding"] = "frames"
    """What e sees of the observation after the step: its own torso, or the target embedding."""
    encoder_sees_afterstate: bool = True
    """Whether e also sees the afterstate (gradient stopped)."""
    reward_sees_afterstate: bool = False
    """Whether the reward is predicted from the afterstate as well as from the next state: where
    the move itself settles it, as in 2048, the next state alone need not determine it."""
    encoder_noise: Annotated[float, Between(0.0, 10.0)] = 1.0
    """Scale of the Gumbel noise on the code logits at the start of training; 0 turns it off."""
    encoder_noise_end: Annotated[float, Between(0.0, 10.0)] = 0.0
    """Scale that the noise falls to, over `learner.schedule_steps`."""
    encoder_uniform: Annotated[float, Between(0.0, 1.0, "[)")] = 0.01
    """Share of the uniform distribution mixed into the code probabilities."""
    value_support: Annotated[int, Between(1, MAX_SUPPORT)] = 300
    """The value's support reaches from minus this to this, over the transformed value, in bins of
    `value_width`. Targets beyond it are cut to its end and counted (`learner/values_cut`): 10 holds
    117, 60 holds 3,325, 300 holds 58,706."""
    value_transform: Literal["hyperbolic", "none"] = "hyperbolic"
    """hyperbolic: large values are squeezed (MuZero, appendix F). none: values as they are, so that
    a win, a draw and a loss are classes."""
    value_width: Annotated[float, Between(0.01, 1.0)] = 1.0
    """Width of the value's bins, over the transformed value; it divides `value_support`."""
    value_code: Literal["two_hot", "hl_gauss"] = "two_hot"
    """How a value target is spread over the bins. two_hot: over the two next to it (MuZero).
    hl_gauss: as a normal distribution of 0.75 bins, so that neighbouring bins learn together
    (Farebrother et al. 2024); with a value_width of 0.1, say; three more bins at each end."""
    reward_support: Annotated[int, Between(1, MAX_SUPPORT)] = 300
    """Likewise for the reward, as `reward_transform` leaves it, in bins of 1."""
    reward_transform: Literal["hyperbolic", "none"] = "hyperbolic"
    """hyperbolic: as values are transformed. none: rewards as they are, so that clipped ones are
    classes -1, 0, 1 (hyperbolic makes 1 a mixture of two bins, which no head can be sure of)."""
    continuation: bool = False
    """Whether a head foresees ends (lost lives, where they are ends), as a discount in search."""
    decoder_size: Annotated[int, Between(0, 210)] = 0
    """Height and width of the frame that the auxiliary heads predict; 0: no such heads. Vectors are
    predicted whole, whatever the number."""
    decoder_target: Literal["standardised", "difference", "balanced_difference"] = "standardised"
    """What those heads predict: the next frame, each pixel by its own mean and deviation; or how it
    differs from the frame before, all pixels by one deviation (large things count for more), or
    half so and half by each pixel's own (balanced: small things count as much; needs
    `env.frame_stack` of 2 or more)."""
    input_norm: bool = True
    """Standardise each pixel by its running mean and deviation (frozen in search)."""
    embedding_norm: Literal["layer", "batch"] = "batch"
    """Normalisation before an embedding is scaled; batch uses running statistics."""
    embedding_scale: Literal["min_max", "simplex"] = "min_max"
    """How embeddings are kept within bounds. min_max: each scaled to [0, 1] (MuZero, appendix G).
    simplex: softmax over each 8 neighbouring features (Hansen et al. 2024, TD-MPC2), so that none
    depends on the largest and the smallest one."""
    jump_length: Annotated[int, Between(0, 8)] = 0
    """Actions of the longest sequence whose end the jump foresees in one call; it is learned beside
    the model (docs/planning.md). 0: there is no jump."""
    gain_slots: Annotated[int, Between(0, 4096)] = 0
    """Slots of macros whose gain is learned beside the jump (docs/planning.md). 0: none."""
    bfloat16: bool = False
    """Compute in bfloat16; parameters stay float32."""

    def __post_init__(self) -> None:
        """Checks `heads` too."""
        super().__post_init__()
        fits = "transformer" not in self.family or self.hidden_size % (2 * self.heads) == 0
        allowed = f"a divisor of half of network.hidden_size = {self.hidden_size}"
        self._require("network.heads", fits, allowed)
        bins = round(self.value_support / self.value_width)
        fits = abs(bins * self.value_width - self.value_support) < 1e-6 and bins <= MAX_SUPPORT
        allowed = (
            f"network.value_support = {self.value_support} divided by a whole number, "
            f"{MAX_SUPPORT} at most"
        )
        self._require("network.value_width", fits, allowed)

    @property
    def value_bins(self) -> int:
        """Bins of the value on each side of 0."""
        margin = MARGIN if self.value_code == "hl_gauss" else 0
        return round(self.value_support / self.value_width) + margin
