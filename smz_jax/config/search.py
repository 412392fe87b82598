"""Settings of the tree search, checked on construction."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from smz_jax.config.check import Between, Checked


@dataclass(frozen=True)
class SearchConfig(Checked, section="search"):
    """The tree search."""

    engine: Literal["batched", "mctx"] = "batched"
    """batched: this project's loop over plain arrays. mctx: the reference, slower the more
    simulations; it knows nothing of the settings marked "batched only"."""
    num_simulations: Annotated[int, Between(0, 10_000)] = 16
    """Expansions per search; a step of the game takes two (decision and chance), or one where the
    chance node is collapsed. 0: the prior."""
    max_depth: Annotated[int | None, Between(1, 10_000, words="unset or in 1..10000")] = None
    """Longest path from the root, in edges of the tree (a collapsed one counts two); unset: as deep
    as the simulations go."""
    collapse_threshold: Annotated[float, Between(0.0, 1.0)] = 0.0
    """An afterstate whose normalised H(sigma) is strictly below continues through its most likely
    outcome in the same simulation. 0: never. Batched only."""
    jump_collapses: bool = False
    """Where the jump foretells that an action is certain, its one call stands for the two of a
    collapsed step (docs/planning.md). Needs network.jump_length and a collapse_threshold."""
    macros: bool = False
    """A decision node has one more edge, a macro that the jump foresees in one call: of those that
    the gain head holds certain there the one that gains most (docs/planning.md). Needs
    network.gain_slots."""
    macro_share: Annotated[float, Between(0.0, 1.0)] = 0.5
    """Prior of a node's macro where its first action was chosen; the rest is that action's own."""
    macro_agreement: Annotated[float, Between(0.0)] = 0.1
    """A jump whose return is further than this from the gain that was foretold is refused."""
    static: bool | None = None
    """Each way down has as many steps as `max_depth` allows, and nothing is skipped, so that an
    accelerator never waits for the host to read a condition. Unset: on accelerators. Changes the
    time alone. Batched only."""
    sampled_actions: Annotated[int | None, Between(1, 1000, words="unset or in 1..1000")] = None
    """K: each decision node has the edges of at most so many actions, drawn from its policy
    (docs/actions.md); of no more actions than that, all. Unset: all, or 20 where an action has
    several parts. Batched only."""
    uniform_candidates: Annotated[float, Between(0.0, 1.0)] = 0.25
    """Share of the root's K draws that are uniform over all actions, in training only."""
    root: Literal["puct", "gumbel"] = "puct"
    """puct: visit counts with Dirichlet noise. gumbel: sequential halving with Gumbel noise, and
    completed Q-values as the policy target (Danihelka et al. 2022); no Dirichlet noise, and the
    rollout's temperature is not used. Batched only."""
    interior: Literal["puct", "gumbel"] = "puct"
    """Choice of actions below a gumbel root: PUCT, or the Gumbel interior rule."""
    qtransform: Literal["siblings", "tree"] = "siblings"
    """What PUCT scales Q-values by: the bounds of the node and its children (mctx), or the running
    bounds of the whole tree (MuZero, appendix B). Batched only."""
    dirichlet_fraction: Annotated[float, Between(0.0, 1.0)] = 0.25
    """Share of Dirichlet noise in the root prior, in training only; of a sampled root, the share
    of the uniform distribution."""
    dirichlet_alpha: Annotated[float, Between(0, ends="(]")] = 0.3
    """Concentration of that noise."""
    pb_c_init: Annotated[float, Between(0, ends="(]")] = 1.25
    """PUCT's c1 (MuZero, appendix B)."""
    pb_c_base: Annotated[float, Between(0, ends="(]")] = 19_652.0
    """PUCT's c2 (MuZero, appendix B)."""
    q_epsilon: Annotated[float, Between(0, ends="(]")] = 1e-8
    """Smallest range of Q that is stretched to [0, 1] (mctx's epsilon). With few simulations a
    larger one keeps noise in the values from deciding the visits."""
    gumbel_considered: Annotated[int, Between(1, 1000)] = 16
    """Most actions that a gumbel root considers."""
    gumbel_maxvisit_init: Annotated[float, Between(0)] = 50.0
    """c_visit of the Gumbel rules: Q counts (c_visit + most visits) * c_scale."""
    gumbel_value_scale: Annotated[float, Between(0)] = 0.1
    """c_scale of the Gumbel rules."""
    row_multiple: Annotated[int | None, Between(1, 100_000, words="unset or in 1..100000")] = None
    """A network function runs on the rows that need it, filled up to a multiple of this many;
    unset: on the whole batch. Each multiple up to env.num_envs is compiled. Pays where a row costs
    as much in a small batch (CPUs). Changes the time alone; not in engine mctx."""

    def __post_init__(self) -> None:
        """Checks which settings go together, too."""
        super().__post_init__()
        batched, plain = self.engine == "batched", self.root == "puct"
        only_batched = (
            ("collapse_threshold", 0),
            ("jump_collapses", False),
            ("macros", False),
            ("static", None),
            ("sampled_actions", None),
            ("root", "puct"),
            ("qtransform", "siblings"),
        )
        for name, only in only_batched:
            fits = batched or getattr(self, name) == only
            self._require(f"search.{name}", fits, f"{only!r} where search.engine is mctx")
        can = self.collapse_threshold > 0 or not self.jump_collapses
        allowed = "above 0 where search.jump_collapses is true"
        self._require("search.collapse_threshold", can, allowed)
        puct = self.interior == "puct"
        self._require("search.interior", puct or not plain, "'puct' where search.root is puct")
        allowed = "'siblings' where search.interior is gumbel"
        self._require("search.qtransform", puct or self.qtransform == "siblings", allowed)


def check_planning(
    need: Callable[[str, bool, str], None],
    network: Any,
    search: SearchConfig,
    rollout: Any,
    macro: Any,
) -> None:
    """Checks which settings of planning with jumps and macros go together.

    `need(name, fits, allowed)` refuses the setting of that name where it does not fit; `network`,
    `rollout` and `macro` are the settings of those names.
    """
    jumps, gains = network.jump_length > 0, network.gain_slots > 0
    for name, wanted in (
        ("search.jump_collapses is true", search.jump_collapses),
        ("network.gain_slots is above 0", gains),
    ):
        need("network.jump_length", jumps or not wanted, f"above 0 where {name}")
    allowed = f"at most macro.slots = {macro.slots}"
    need("network.gain_slots", network.gain_slots <= macro.slots, allowed)
    need("network.gain_slots", gains or not search.macros, "above 0 where search.macros is true")
    fits = not gains or network.jump_length >= macro.min_length
    allowed = f"at least macro.min_length = {macro.min_length} where network.gain_slots is above 0"
    need("network.jump_length", fits, allowed)
    learned = macro.head_learning_rate > 0 or not gains
    allowed = "above 0 where network.gain_slots is: slots have no owners otherwise"
    need("macro.head_learning_rate", learned, allowed)
    plain, where = not rollout.execute_macros, "where rollout.execute_macros is true"
    need("search.macros", plain or search.macros, f"true {where}")
    need("rollout.policy", plain or rollout.policy == "search", f"search {where}")
    allowed = f"above 1 {where}, for it ends with the rollout"
    need("rollout.length", plain or rollout.length > 1, allowed)
    every = search.sampled_actions is None or not search.macros
    need("search.sampled_actions", every, "unset where search.macros is true")
