"""What a model foresees of action sequences, and where it holds them to be certain."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.settings import Config
from smz_jax.model.steps import imagine, make_place, predict
from smz_jax.types import Array, Networks, Params

ROWS, LOOKS = 256, 32
"""Rows of a compiled call, and of one over observations; calls are filled up to multiples."""


class Foreseen(NamedTuple):
    """What comes of N sequences, each transition through the code that is held likeliest."""

    end: Array  # [N, E] float32, embedding after the last action, as `Foresight.place` gives it
    reward: Array  # [N] float32, sum of the rewards that are learned from


class Foresight(NamedTuple):
    """A model's functions as this package asks them: jitted, on NumPy rows of any number."""

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
    """A model that is asked."""

    foresight: Foresight
    params: Params
    learned: Learned | None = None


def where_applies(
    model: Model, macros: Sequence[tuple[int, ...]], embeddings: np.ndarray, length: int
) -> np.ndarray:
    """The precondition: the model holds all transitions to be certain, and a macro's head agrees.

    `length` is that of the longest sequence anywhere: one compilation.

    Returns:
        `[M, S]` bool, of each macro in each state. Where no head has learned of a macro, its word
        is not needed.
    """
    found = np.zeros((len(macros), len(embeddings)), np.bool_)
    actions = padded(macros, length)
    for state, embedding in enumerate(embeddings if len(macros) else ()):
        rows = np.repeat(embedding[None], len(actions), axis=0)
        found[:, state] = model.foresight.applies(model.params, rows, actions)
    if model.learned is not None and len(macros):
        chance = model.learned.chance(embeddings)
        for row, macro in zip(found, macros, strict=True):
            if (slot := model.learned.slots.get(tuple(macro))) is not None:
                row &= chance[:, slot] >= 0.5
    return found


def by_rows(function: Callable[..., Any], rows: int = ROWS) -> Callable[..., Any]:
    """Calls a jitted `(params, *arrays [N, ...])` in one shape only; gives NumPy arrays."""

    def call(params: Any, *arrays: Any) -> Any:
        count, found = len(arrays[0]), []
        for start in range(0, max(count, 1), rows):
            parts = [np.asarray(x[start : start + rows]) for x in arrays]
            short = rows - len(parts[0])
            padded = [np.pad(x, [(0, short)] + [(0, 0)] * (x.ndim - 1)) for x in parts]
            found.append(jax.device_get(function(params, *padded)))
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
        return Foreseen(place(params, end, True, measure.among), reward)

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

    functions = (
        networks.representation,
        lambda measure, embedding: place(measure.params, embedding, False, measure.among),
        lambda params, embedding: predict(networks, params, embedding).value,
        foresee,
        applies,
        expand,
    )
    look, *others = (jax.jit(function) for function in functions)
    return Foresight(by_rows(look, LOOKS), *(by_rows(function) for function in others))


def padded(macros: Any, length: int) -> np.ndarray:
    """Sequences as `[N, length]` int32, filled up with -1."""
    rows = np.full((len(macros), length), -1, np.int32)
    for row, macro in zip(rows, macros, strict=True):
        row[: len(macro)] = macro
    return rows


def nearness(foreseen: np.ndarray, real: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """cos(foreseen_i - m, real_j - m) for all pairs, `[N, R]`; m `[E]` is a mean of real ends.

    Scaled embeddings point nearly one way; see `smz_jax.macros.judge.trials.relative_distance`.
    """

    def direction(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64) - centre
        return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)

    return direction(foreseen) @ direction(real).T
