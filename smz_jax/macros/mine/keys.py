"""Exact keys: an action sequence packed into two 32-bit words.

Every action takes one byte, `action + 1`, the first action in the highest byte of `high`; 0 means
"no action here". Up to 255 actions and length 8 fit without loss, so that equal keys are equal
sequences, and the order of keys is the lexicographic order of the sequences (a prefix first).
(64-bit integers are off in JAX by default, hence two words.)
"""

from typing import NamedTuple

import jax.numpy as jnp

from smz_jax.config.check import require
from smz_jax.storage.documents.macro_form import MAX_ACTIONS
from smz_jax.types import Array, Space

MAX_LENGTH = 8


class PackedWindows(NamedTuple):
    """Candidate windows as they travel: 24 bytes each. A slot without a window has key (0, 0)."""

    key_high: Array  # [P] uint32, actions 0..3 of the window
    key_low: Array  # [P] uint32, actions 4..7
    entropy: Array  # [P] float32, mean normalised entropy of the window's transitions
    reward: Array  # [P] float32, sum over the window
    bucket: Array  # [P] int32, start-state bucket at the window's own start
    weight: Array  # [P] int32, 1, or the end node's visits


def check_num_actions(num_actions: int) -> None:
    """Raises ConfigError in one line where an action would not fit into its byte of the key."""
    require(1 <= num_actions <= MAX_ACTIONS, "num_actions", num_actions, f"in 1..{MAX_ACTIONS}")


def why_no_macros(space: Space) -> str:
    """Why none are looked for among the actions of a space; empty: they are."""
    if space.is_continuous:
        return "actions have continuous parts"
    most = f"there are {space.size} actions, and they hold at most {MAX_ACTIONS}"
    return most if space.size > MAX_ACTIONS else ""


def prepend(key_high: Array, key_low: Array, action: Array) -> tuple[Array, Array]:
    """Key of the sequence that is `action` [...] int32, in 0..254, then the given one.

    Keys are two words [...] uint32; the given sequence has at most 7 actions.
    """
    byte = (action + 1).astype(jnp.uint32)
    return (key_high >> 8) | (byte << 24), (key_low >> 8) | (key_high << 24)


def pack(actions: Array) -> tuple[Array, Array]:
    """Keys of sequences [..., L] int32, L at most 8, padded with -1 at their ends.

    Returns:
        The two words, [...] uint32 each.
    """
    padding = [(0, 0)] * (actions.ndim - 1) + [(0, MAX_LENGTH - actions.shape[-1])]
    byte = (jnp.pad(actions, padding, constant_values=-1) + 1).astype(jnp.uint32)
    shifts = jnp.array([24, 16, 8, 0], jnp.uint32)
    words = byte.reshape(*byte.shape[:-1], 2, 4) << shifts
    words = jnp.sum(words, axis=-1, dtype=jnp.uint32)
    return words[..., 0], words[..., 1]


def same_keys(actions: Array, key_high: Array, key_low: Array) -> Array:
    """Whether each of [N] keys is that of each of the sequences [S, L], [S, N]; no empty one is."""
    high, low = pack(actions)
    return (high[:, None] == key_high) & (low[:, None] == key_low) & (high > 0)[:, None]


def unpack(key_high: Array, key_low: Array, max_length: int) -> Array:
    """Actions [..., max_length] int32 of the given keys, padded with -1; inverse of `pack`."""
    shifts = jnp.array([24, 16, 8, 0], jnp.uint32)
    words = jnp.stack([key_high, key_low], axis=-1)[..., None]
    byte = ((words >> shifts) & 255).astype(jnp.int32)
    return byte.reshape(*key_high.shape, MAX_LENGTH)[..., :max_length] - 1
