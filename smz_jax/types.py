"""Every pytree that crosses a module border.

Shape legend, used in all docstrings of the project:

    B  batch: parallel environment lanes, or sampled windows in a training step
    T  time steps of a rollout           K  unroll steps of the model
    W  rows of a sampled replay window   A  environment actions
    C  codebook size (chance outcomes)   N  nodes of a search tree
    D  embedding size (or H', W', D)     S  bins of a categorical support
    P  candidate macro windows           L  longest macro
    M  macro table capacity              F  frames stacked in an observation
    O  options of all parts of an action, A where an action is one choice

An observation is always `[B, F, *frame_shape]`, newest frame last; an environment without frame
stacking has F = 1. Where `EnvSpec.is_marked` one row more comes first, whose every number says how
many of the F frames are of the game in progress: those before repeat its first one. Bits are then
int8.
"""

if __name__ == "types":  # `python smz_jax` finds this file in place of Python's own
    import os

    os.write(2, b"error: type `python -m smz_jax` in the folder above smz_jax\n")
    os._exit(2)

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

Array = jax.Array
Params = Any
"""Flax variables `{"params": ..., "batch_stats": ...}`; each has one entry per sub-network."""


class Part(NamedTuple):
    """One of the choices that an action is made of."""

    names: tuple[str, ...]  # of its options
    values: tuple[float, ...] = ()  # of a number: its options' places in the range, from -1 to 1;
    #                                 empty where options have no order


def strides(sizes: tuple[int, ...]) -> np.ndarray:
    """What one more option of each part adds to an action's number: int32 `[parts]`."""
    return np.array([math.prod(sizes[i + 1 :]) for i in range(len(sizes))], np.int32)


def options_of(actions: Any, sizes: tuple[int, ...]) -> Any:
    """Actions `[...]` to the options of their parts, int32 `[..., parts]`; NumPy's or JAX's."""
    return actions[..., None] // strides(sizes) % np.array(sizes, np.int32)


class Space(NamedTuple):
    """The actions of an environment, numbered 0..A-1.

    An action may be made of several choices, its parts: then its number is that of their options,
    the last part's counting fastest.
    """

    size: int  # A
    names: tuple[str, ...]  # of its actions, e.g. ("NOOP", "FIRE", "RIGHT", "LEFT"); empty where a
    #                         part is a number, or there are too many: then there are no macros
    parts: tuple[Part, ...] = ()  # empty: one choice among the names

    @property
    def sizes(self) -> tuple[int, ...]:
        """Options of each part."""
        return tuple(len(part.names) for part in self.parts) or (self.size,)

    @property
    def is_continuous(self) -> bool:
        """Whether a part is a number."""
        return any(part.values for part in self.parts)

    def name(self, action: int) -> str:
        """Of an action."""
        if self.names:
            return self.names[action]
        options = options_of(np.int32(action), self.sizes)
        return " ".join(x.names[i] for x, i in zip(self.parts, options, strict=True))


class EnvSpec(NamedTuple):
    """What the rest of the program must know of an environment."""

    name: str
    frame_shape: tuple[int, ...]  # (84, 84) for Atari, (D,) for vectors, [H, W, P] for boards
    context: int  # F, frames in an observation
    frame_dtype: np.dtype
    action_space: Space
    frames_per_step: int  # emulator frames for one agent step (4 in Atari)
    is_marked: bool = False  # observations begin with a row of the number of the game's frames
    players: int = 1  # 2: they move in turn, and what one gains the other loses; of more than two
    #                   each has gains of its own
    has_dice: bool = False  # of several players: no game of greedy players is like another

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation without its batch axis: `(F, *frame_shape)`; marked, F + 1."""
        return (self.context + self.is_marked, *self.frame_shape)

    @property
    def sides(self) -> int:
        """Numbers in a value: of more than two players one of each, else the mover's."""
        return self.players if self.players > 2 else 1

    @property
    def num_actions(self) -> int:
        """A."""
        return self.action_space.size

    @property
    def num_options(self) -> int:
        """O, the width of policies and masks."""
        return sum(self.action_space.sizes)

    @property
    def action_names(self) -> tuple[str, ...]:
        """A names, or none; see `Space`."""
        return self.action_space.names


class Timestep(NamedTuple):
    """What the environments give after `reset` or `step` (NumPy arrays on the host).

    After a step with `terminated` and `game_over`, or with `truncated`, the observation is the
    final one. The step that follows ignores its action and gives the first observation of the
    next game with `is_first` set and reward 0 (next-step autoreset). After a lost life (episodic
    life) `terminated` is set without `game_over`, and the game continues without a reset.
    """

    observation: np.ndarray  # [B, F, ...] stack, newest last; as the mover sees it
    reward: np.ndarray  # [B] float32, as trained on (clipped if configured): of who just moved
    raw_reward: np.ndarray  # [B] float32, as scored: of player 0; of P > 2 players [B, P] by seat
    terminated: np.ndarray  # [B] bool, true end: the value after it is 0
    truncated: np.ndarray  # [B] bool, cut off: the value after it is unknown
    game_over: np.ndarray  # [B] bool, the whole game ended (terminated or truncated)
    is_first: np.ndarray  # [B] bool, first observation of a game: no transition leads to it
    invalid_actions: np.ndarray  # [B, O] float32, 1 = invalid; 0 where actions have several parts
    player: np.ndarray  # [B] int32, who moves now; 0 began the game


class Prediction(NamedTuple):
    """What f says of a state."""

    policy_logits: Array  # [B, O]
    value_logits: Array  # [B, S], of P > 2 players [B, P, S] from the mover on


class AfterstatePrediction(NamedTuple):
    """What psi says of an afterstate."""

    chance_logits: Array  # [B, C]
    value_logits: Array  # [B, S], of P > 2 players [B, P, S] from who moved on


class DynamicsOutput(NamedTuple):
    """What g makes of an afterstate and a code."""

    embedding: Array  # [B, D]
    reward_logits: Array  # [B, S], of P > 2 players [B, P, S] from who moved on


class DecodedFrames(NamedTuple):
    """The next frame as it is foreseen."""

    with_code: Array  # [B, pixels] from the next state
    without: Array  # [B, pixels] from the afterstate


class Networks(NamedTuple):
    """The model as pure functions of `(params, ...)`; holds no arrays.

    Categorical heads return logits `[B, S]`; `value_of` and `reward_of` turn them into scalars. Of
    more than two players they return those of each, and the scalars are the mover's.
    `smz_jax.model.steps` puts them together.
    """

    init: Callable[..., Params]  # (rng_key) -> params
    representation: Callable[..., Any]  # (params, observation [B, F, ...]) -> embedding [B, D]
    prediction: Callable[..., Prediction]  # (params, embedding)
    afterstate_dynamics: Callable[..., Any]  # (params, embedding, action [B]) -> afterstate
    afterstate_prediction: Callable[..., AfterstatePrediction]  # (params, afterstate)
    dynamics: Callable[..., DynamicsOutput]  # (params, afterstate, code [B, C])
    encoder: Callable[..., Any]  # (params, after [B, F, ...] or [B, D], afterstate) -> code [B, C]
    representation_train: Callable[..., Any]  # (params, observation) -> embedding, batch_stats
    project: Callable[..., Any]  # (params, embedding, predict[, among]) -> [B, projection]
    decode: Callable[..., DecodedFrames]  # (params, embedding, afterstate)
    frame_target: Callable[..., Any]  # (params, frame, frame before [B, ...]) -> [B, pixels]
    value_of: Callable[..., Array]  # (logits [..., S]) -> scalar [...]
    reward_of: Callable[..., Array]  # (logits [..., S]) -> scalar [...]
    parts: tuple[int, ...] = ()  # sizes of an action's parts, whose logits the policy's are; empty:
    #        there is one
    encoder_input: Literal["frames", "embedding"] = "frames"
    discount: Callable[..., Array] | None = None  # (params, embedding) -> [B] in [-1, 1]: 0 where
    #        the game has ended; multiplies gamma in search; None: a model without ends, all 1
    continuation: Callable[..., Array] | None = None  # (params, embedding) -> logits [B] that the
    #        game goes on, or of two players [B, 3]: the other one moves now, the game is over, the
    #        same one moves; of P > 2 [B, P + 1]: who moves now is so many seats on, or it is over;
    #        None: there is no such head
    jump: Callable[..., Any] | None = None  # (params, embedding, actions [B, L] padded with -1)
    #        -> (embedding, logits of the discounted sum of rewards); None: there is no jump
    certain: Callable[..., Array] | None = None  # (params, embedding) -> logits [B, A]: the model
    #        is certain of what an action leads to; None likewise
    reward_sum_of: Callable[..., Array] | None = None  # (logits [..., S]) -> scalar [...]
    gains: Callable[..., tuple[Array, Array]] | None = None  # (params, embedding) -> what the macro
    #        of each slot gains there, and logits that it is certain, [B, G] each; None: not learned
    all_values: Callable[..., Array] | None = None  # (logits [..., P, S]) -> [..., P]; None: there
    #        are no more than two players
    all_rewards: Callable[..., Array] | None = None  # likewise
    turn: Callable[..., Array] | None = None  # (params, embedding) -> [B] int32, how many seats on
    #        from who moved before the mover sits; None likewise


LEAPT = 2.0
"""Entropy of an edge that a jump took: the model itself said nothing of it, so none is mined. So
the miner sees a played step that followed a macro."""


class NodeEmbedding(NamedTuple):
    """What a node of the search tree stores beside mctx's own statistics."""

    state: Array  # [B, N, D] embedding of a decision node, or afterstate of a chance node
    is_chance: Array  # [B, N] bool
    entropy: Array  # [B, N] float32, normalised H(sigma): of the chance node itself, or of the
    #                 collapsed edge that led to a decision node (`LEAPT`: by a jump); 0 elsewhere
    faults: Any = None  # [B, N] int32, outputs of the networks that were not finite, replaced
    action: Any = None  # [B, N] int32, of a sampled search: the action that led to the node, -1
    #                     where none did; None: edges are actions
    macro: Any = None  # [B, N, L] int32, of a search with macros: the actions of the node's one,
    #                    padded with -1, whose edge comes after those of the actions
    worth: Any = None  # [B, N, P] float32, of P > 2 players: what the edge to a node is worth to
    #                    each, from the root's mover on; the root's is the network's value


class SearchOutput(NamedTuple):
    """What a search (or the bare policy) decided at the root."""

    action: Array  # [B] int32
    action_weights: Array  # [B, O] float32, the policy target: the weight of each part's options
    value: Array  # [B] float32, the root's searched value
    tree: Any  # mctx.Tree, embeddings are NodeEmbedding; None in plain-policy mode
    faults: Array  # [B] int32, outputs of the networks that were not finite and were replaced
    all_invalid: Array  # [B] bool, no action was valid (the action given is 0, or of the prior)
    usage: Any = None  # what a search with jumps did, [B] float32 by name; None: it has none
    values: Any = None  # [B, P] float32, of P > 2 players, from the mover on; else None
    spread: Any = None  # [B] float32, largest less smallest Q of the actions that were tried; None:
    #                     nothing was searched


class Decision(NamedTuple):
    """What one jitted call decides for a pool of lanes; stays on the device but for the action."""

    search: SearchOutput
    embedding: Array  # [B, ...] of the root
    transition_entropy: Array  # [B] normalised H(sigma) of the chosen action
    follows: Any = None  # [B] bool, the action is that of a macro which the lane has begun, not the
    #                      search's; None: macros are not played to their end


class Trajectory(NamedTuple):
    """Rows of experience; row t holds what was seen at t and what followed the action at t.

    The row before one with `is_first` is a final observation: its action was ignored, its
    transition is not real. `discount` is 0 where the action led to a true end. Of several players
    all is told from the side of who moves in the row, but for `rewards`.
    """

    frame: Array  # [B, T, *frame_shape] newest frame only
    action: Array  # [B, T] int32
    reward: Array  # [B, T] float32, r_{t+1}
    discount: Array  # [B, T] float32, 0 at termination, -1 where another player moves next, else 1
    is_first: Array  # [B, T] bool
    invalid_actions: Array  # [B, T, O] uint8
    action_weights: Array  # [B, T, O] float32
    search_value: Array  # [B, T] float32
    search_spread: Array  # [B, T] float32, `SearchOutput.spread`; 0 where nothing was searched
    transition_entropy: Array  # [B, T] float32, normalised H(sigma) of the played action
    target_step: Array  # [B, T] int32, learner step of the parameters that made the targets
    player: Any = None  # [B, T] int32, of P > 2 players: who moves; None: no more than two play
    rewards: Any = None  # [B, T, P] float32, r_{t+1} by seat; None likewise
    values: Any = None  # [B, T, P] float32, searched, from the mover on; None likewise


TARGETS = ("action_weights", "search_value", "search_spread", "target_step", "values")
"""Fields of a `Trajectory` that a reanalysis writes anew; the others never change."""


class Experience(NamedTuple):
    """What a source of experience gives for one iteration."""

    rows: Trajectory  # [B, T, ...]
    games: list[tuple[float, int]]  # raw score and length of each game that ended
    metrics: dict[str, Any]  # counts, on the device
    restarts: int  # how often games that failed were opened anew meanwhile
    replay: Any = None  # the replay's state with the rows in it
    follows: Any = None  # [B, T] bool, as in `Decision`: no macro is mined of such steps


def is_end(discount: Any) -> Any:
    """Whether transitions led to a true end, by their discounts: `[...]` bool."""
    return discount == 0


class ReplaySample(NamedTuple):
    """A batch of windows for one training step; the root of each is its row F - 1."""

    rows: Trajectory  # [B, W, ...]
    indices: Array | None  # [B] int32, for `set_priorities`; None if uniform
    weights: Array  # [B] float32, importance weights, 1 for the largest of the batch


class UnrollTargets(NamedTuple):
    """Targets of one unrolled training window; vmapped over B by the caller."""

    policy: Array  # [K+1, O]
    value: Array  # [K+1]
    reward: Array  # [K]
    discount: Array  # [K] float32, 0 where the step led to a true end, and past it; its sign is
    #                  that of the rows
    value_mask: Array  # [K+1] float32, 1 up to and past a termination, 0 past a truncation
    policy_mask: Array  # [K+1] float32, 1 while the window's own episode lasts
    transition_mask: Array  # [K] float32, 1 where the transition really happened in it
    decision_value: Any = None  # [K], or of P > 2 players [K, P] float32, Q of what was done, from
    #                             who did it on; None: the value of the state
    values: Any = None  # [K+1, P] float32, of P > 2 players, from the mover on; else None
    rewards: Any = None  # [K, P] float32, likewise
    turn: Any = None  # [K] int32, likewise: how many seats on the next mover sits; P: it is over

    @property
    def of_states(self) -> Array:
        """Targets `[K+1, ...]` of the states' values, the time axis first."""
        return self.value if self.values is None else self.values

    @property
    def of_decisions(self) -> Array:
        """Targets `[K, ...]` of the afterstates' values, likewise."""
        return self.of_states[:-1] if self.decision_value is None else self.decision_value

    @property
    def of_rewards(self) -> Array:
        """Targets `[K, ...]` of the rewards, likewise."""
        return self.reward if self.rewards is None else self.rewards


class TrainState(NamedTuple):
    """Everything the learner carries from step to step."""

    params: Params
    target_params: Params
    opt_state: Any
    rng_key: Array
    step: Array  # [] int32, learner steps done
    head: Any = None  # `macros.precondition.updates.HeadState`; None: nothing is learned of macros
    jump: Any = None  # `learning.jump.JumpState`; None: there is none


class MacroTable(NamedTuple):
    """Fixed-capacity table of macros, on the device. An empty slot has length 0."""

    actions: Array  # [M, L] int32, padded with -1
    length: Array  # [M] int32
    count: Array  # [M] int32, weighted occurrences
    entropy_sum: Array  # [M] float32, weighted sum of window mean entropies
    reward_sum: Array  # [M] float32, weighted sum of window rewards
    buckets: Array  # [M, num_buckets] bool, start-state buckets seen
    play_count: Array  # [M] int32, the part of count that was really played
    dropped: Array  # [] int32, entries dropped because the table was full
    # Evidence, forgotten slowly: `smz_jax.macros.judge.evidence`.
    windows: Array  # [M] float32, sum of the weights of replayed windows of these actions
    squares: Array  # [M] float32, sum of the squares of those weights
    trials: Array  # [M] float32, of the windows: the model held every transition to be certain
    held: Array  # [M] float32, of the trials: passed all gates
    near: Array  # [M] float32, what was seen at the end was as foreseen
    paid: Array  # [M] float32, the sum of the rewards was
    agreed: Array  # [M] float32, the codes were
    ends: Array  # [M] float32, the game ended just where it was foreseen to end, if anywhere


class MacroStats(NamedTuple):
    """What the extraction read: int32 scalars of one call, or their sums on the host."""

    trees: Array | int
    trajectories: Array | int
    transitions_tree: Array | int
    transitions_play: Array | int
    certain_tree: Array | int
    certain_play: Array | int
    candidates_tree: Array | int
    candidates_play: Array | int
