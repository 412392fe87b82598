"""What a model foresees of action sequences, and where they are certain by it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.analysis.verify.probe import Probe
from smz_jax.config.settings import Config
from smz_jax.model.steps import imagine, make_place, predict
from smz_jax.types import Array, Networks, Params

ROWS, LOOKS = 256, 32
"""Rows of a compiled call, and of one over observations; calls are filled up to multiples."""


NEVER = 2**31 - 1


class Foreseen(NamedTuple):
    """What comes of N sequences, each transition through its likeliest code."""

    end: Any  # [N, E] float32, embedding after the last action, as `Foresight.place` gives it
    reward: Any  # [N] float32, sum of the rewards that are learned from
    over: Any  # [N] int32, number of the step that ends the episode; `NEVER`: none does


class Foresight(NamedTuple):
    """A model's functions, jitted, on NumPy rows of any number."""

    look: Callable[..., Any]  # (params, observation [N, F, ...]) -> embedding [N, ...]
    place: Callable[..., Any]  # (Measure, embedding) -> [N, E] where real ends are compared
    value: Callable[..., Any]  # (params, embedding) -> [N]
    foresee: Callable[..., Any]  # (Measure, embedding, actions [N, L]) -> Foreseen
    applies: Callable[..., Any]  # (params, embedding, actions [N, L]) -> [N] bool
    expand: Callable[..., Any]  # (params, embedding) -> certain [N, A], embedding [N, A, ...]


class Measure(NamedTuple):
    """By what ends are compared: their projection's batch norms take the statistics of `among`.

    A row's own batch would not do: it is the ends of one state, which differ by a few pixels, and
    rows that fill up a compiled call. Foreseen ends take the same statistics as real ones (in
    training each has those of its own batch; measured, it makes no difference).
    """

    params: Params
    among: Any  # [R, ...] embeddings of states of play


class Learned(NamedTuple):
    """What a head has learned of where macros apply."""

    slots: Mapping[tuple[int, ...], int]  # of each macro that owns one
    chance: Callable[[Any], np.ndarray]  # embedding [N, ...] -> [N, slots] that it applies


class Model(NamedTuple):
    """A model with its parameters."""

    foresight: Foresight
    params: Params
    learned: Learned | None = None


class View(NamedTuple):
    """How one model sees the S start states of a world."""

    model: Model
    measure: Measure  # among the start states
    places: np.ndarray  # [N, E] of known states, in the space where ends are compared
    centre: np.ndarray  # [E] their mean
    probes: Sequence[Probe] = ()  # for even and for odd games; none where no memory is known


def make_view(model: Model, starts: np.ndarray, known: np.ndarray | None = None) -> View:
    """The view of a model on start states, by their observations `[S, F, ...]`.

    `known [N, F, ...]` are of the states whose places are kept; None: the start states.
    """
    look = model.foresight.look
    embeddings = look(model.params, starts)
    measure = Measure(model.params, embeddings)
    seen = embeddings if known is None else look(model.params, known)
    places = np.asarray(model.foresight.place(measure, seen), np.float64)
    return View(model, measure, places, places.mean(axis=0))


def foresee(view: View, state: int, sequences: Sequence[tuple[int, ...]], length: int) -> Foreseen:
    """What comes of sequences from a start state.

    `length` is that of the longest sequence anywhere: one compilation.
    """
    rows = np.repeat(view.measure.among[state][None], len(sequences), axis=0)
    return view.model.foresight.foresee(view.measure, rows, padded(sequences, length))


def where_applies(
    model: Model, macros: Sequence[tuple[int, ...]], embeddings: np.ndarray, length: int
) -> np.ndarray:
    """The precondition: by the model all transitions are certain, and a macro's head agrees.

    `length` as in `foresee`.

    Returns:
        `[M, S]` bool, of each macro in each state. Where no head has learned of a macro, its word
        is not needed.
    """
    found, actions = np.zeros((len(macros), len(embeddings)), np.bool_), padded(macros, length)
    for state, embedding in enumerate(embeddings if len(macros) else ()):
        rows = np.repeat(embedding[None], len(actions), axis=0)
        found[:, state] = model.foresight.applies(model.params, rows, actions)
    if model.learned is not None and len(macros):
        slots, chance = model.learned.slots, model.learned.chance(embeddings)
        for row, macro in zip(found, macros, strict=True):
            if (slot := slots.get(tuple(macro))) is not None:
                row &= chance[:, slot] >= 0.5
    return found


def by_rows(function: Callable[..., Any], rows: int = ROWS) -> Callable[..., Any]:
    """Calls a jitted `(params, *arrays [N, ...])` in one shape only; gives NumPy arrays."""

    def call(params: Any, *arrays: Any) -> Any:
        count, found = len(arrays[0]), []
        for start in range(0, max(count, 1), rows):
            parts = [np.asarray(x[start : start + rows]) for x in arrays]
            short = rows - len(parts[0])
            filled = [np.pad(x, [(0, short)] + [(0, 0)] * (x.ndim - 1)) for x in parts]
            found.append(jax.device_get(function(params, *filled)))
        return jax.tree.map(lambda *x: np.concatenate(x)[:count], *found)

    return call


def make_foresight(networks: Networks, config: Config, num_actions: int) -> Foresight:
    """The functions for one model; ends are compared in the space of `smz_jax.model.steps`."""
    place = make_place(networks, config)

    def is_certain(entropy: Array) -> Array:
        return jnp.isfinite(entropy) & (entropy < config.macro.play_threshold)

    def foresee(measure: Measure, embedding: Array, actions: Array) -> Foreseen:
        played, params = actions.T >= 0, measure.params
        after = imagine(networks, params, embedding, jnp.maximum(actions.T, 0)).steps
        states = jnp.concatenate([embedding[None], after.state])
        end = states[played.sum(axis=0), jnp.arange(len(embedding))]
        reward = jnp.sum(jnp.where(played, after.reward, 0.0), axis=0, dtype=jnp.float32)
        over = played & (jnp.abs(after.discount) < 0.5)
        step = jnp.where(jnp.any(over, axis=0), jnp.argmax(over, axis=0) + 1, NEVER)
        return Foreseen(place(params, end, True, measure.among), reward, step.astype(jnp.int32))

    def applies(params: Params, embedding: Array, actions: Array) -> Array:
        played = imagine(networks, params, embedding, jnp.maximum(actions.T, 0)).afterstates
        return jnp.all(is_certain(played.entropy) | (actions.T < 0), axis=0)

    def expand(params: Params, embedding: Array) -> tuple[Array, Array]:
        count = len(embedding)
        actions = jnp.tile(jnp.arange(num_actions, dtype=jnp.int32), count)
        before = jnp.repeat(embedding, num_actions, axis=0)
        (afterstates, after) = imagine(networks, params, before, actions[None])
        certain = is_certain(afterstates.entropy).reshape(count, num_actions)
        return certain, after.state.reshape(count, num_actions, *embedding.shape[1:])

    return Foresight(
        by_rows(jax.jit(networks.representation), LOOKS),
        by_rows(jax.jit(lambda measure, x: place(measure.params, x, False, measure.among))),
        by_rows(jax.jit(lambda params, x: predict(networks, params, x).value)),
        *(by_rows(jax.jit(function)) for function in (foresee, applies, expand)),
    )


def padded(macros: Any, length: int) -> np.ndarray:
    """Sequences as `[N, length]` int32, filled up with -1."""
    rows = [[*macro, *[-1] * (length - len(macro))] for macro in macros]
    return np.array(rows, np.int32).reshape(len(rows), length)


def nearness(foreseen: np.ndarray, real: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """cos(foreseen_i - m, real_j - m) for all pairs, `[N, R]`; m `[E]` is a mean of real ends.

    Scaled embeddings point nearly one way; see `smz_jax.macros.judge.trials.relative_distance`.
    """
    away = [np.asarray(x, np.float64) - centre for x in (foreseen, real)]
    one, other = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9) for x in away)
    return one @ other.T
