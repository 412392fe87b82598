"""Macros of another game in a run: candidates from the start, and what becomes of them.

Nothing of them is believed. They stand in the table as if they had been seen `min_occurrences`
times in trees, with an entropy of `play_threshold`; their evidence begins at nothing, and where
counts are halved those that never come up here leave. So do the others that they are followed
beside; they alone own slots of the precondition head from the start.
"""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from smz_jax.config.check import require
from smz_jax.config.settings import Config
from smz_jax.macros.judge.evidence import SOUND, judge
from smz_jax.macros.library.transfer import compared_with, translate
from smz_jax.macros.mine.keys import PackedWindows, pack, same_keys, why_no_macros
from smz_jax.macros.mine.table import merge, table_size
from smz_jax.macros.precondition.slots import MacroSlots
from smz_jax.storage.documents.macro_form import LIBRARY
from smz_jax.storage.pretrained import find_model
from smz_jax.types import Array, EnvSpec, MacroTable

KINDS = ("given", "shuffled", "random", "native")
"""What is followed: the macros from elsewhere, their actions in another order, random ones of the
same lengths, and as many of the run's own: the most frequent that are none of these."""


class Transfer:
    """The macros of `macros_from`.

    Raises:
        ConfigError: in one line, if they cannot be read, or none means anything in this game.
    """

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        self._settings, space = config.macro, spec.action_space
        why = why_no_macros(space)
        require(not why, "macros_from", config.macros_from, f"unset here: {why}")
        folder = Path(os.path.expanduser(config.macros_from or ""))
        folder = find_model(folder, "macros_from")
        lengths = range(self._settings.min_length, self._settings.max_length + 1)
        names = list(spec.action_names)
        kinds = lengths, self._settings.include_repeats
        found = translate(LIBRARY.read(folder), names, config.meanings, *kinds)
        allowed = f"a library with macros of this game's actions ({', '.join(names)})"
        require(bool(found.macros), "macros_from", config.macros_from, allowed)
        # The game's own need slots, too, and places in the table.
        most = min(self._settings.slots // 2, table_size(self._settings, space.size) // 8)
        given = found.macros[: max(1, most)]
        self._num_actions = space.size
        followed = {"given": given, **compared_with(given, space.size, config.seed)}
        self._followed = {name: self._padded(x) for name, x in followed.items() if x}
        self._seeded = {macro for macros in followed.values() for macro in macros}
        others = " and ".join(f"{len(x)} {name}" for name, x in list(followed.items())[1:])
        self.note = f"{len(given)} of the {len(found.macros)} macros that mean something here, "
        self.note += f"beside {others} ones"
        if found.unknown:
            lost = (f"{name} (in {count})" for name, count in found.unknown.items())
            self.note += f"; left out for actions unknown here: {', '.join(lost)}"
        if found.too_long:
            self.note += f"; {found.too_long} left out for their length"
        self._follow = jax.jit(self._shares)

    def _padded(self, macros: list[tuple[int, ...]]) -> Array:
        longest = self._settings.max_length
        rows = [(*macro, *[-1] * (longest - len(macro))) for macro in macros]
        return jnp.array(rows, jnp.int32)

    def begin(self, train: Any, macros: Any) -> tuple[Any, Any]:
        """The learner's state and the macros' of a run that begins; both are consumed."""
        settings, every = self._settings, self._padded(sorted(self._seeded))
        windows = PackedWindows(
            *pack(every),
            entropy=jnp.full(len(every), settings.play_threshold, jnp.float32),
            reward=jnp.zeros(len(every), jnp.float32),
            bucket=jnp.full(len(every), settings.num_buckets, jnp.int32),  # of no start state
            weight=jnp.full(len(every), settings.min_occurrences, jnp.int32),
        )
        kind = {"config": settings, "num_actions": self._num_actions}
        table = merge(macros.table, windows, played=False, **kind)
        slots: MacroSlots = train.head.slots
        given = self._followed["given"]
        # Every second one: what reads the first slots alone finds the game's own there, too.
        owners = slots.actions.at[1 + 2 * np.arange(len(given))].set(given, mode="drop")
        owned = MacroSlots(owners, jnp.sum(owners >= 0, axis=1, dtype=jnp.int32))
        head = train.head._replace(slots=owned)
        return train._replace(head=head), macros._replace(table=table)

    def mark(self, document: dict[str, Any]) -> None:
        """Says in a `macros.json` which macros were not seen here: their source is `given`."""
        for macro in document["macros"]:
            is_unseen = macro["count"] <= self._settings.min_occurrences
            if is_unseen and not macro["play_count"] and tuple(macro["actions"]) in self._seeded:
                macro["source"] = "given"

    def row(self, table: MacroTable) -> dict[str, float]:
        """How many of each kind are sound, and have trials enough to tell: shares of that kind."""
        found = jax.device_get(self._follow(table))
        return {f"transfer/{name}": float(share) for name, share in found.items()}

    def _shares(self, table: MacroTable) -> dict[str, Array]:
        sound = judge(table, self._settings).status == SOUND
        tested = table.trials >= self._settings.min_trials
        keys, shares = pack(table.actions), {}
        places = {name: same_keys(actions, *keys) for name, actions in self._followed.items()}
        is_other = jnp.any(jnp.concatenate(list(places.values())), axis=0)
        count = jnp.where(is_other, 0, table.count)  # that of an empty place is 0
        most, native = jax.lax.top_k(count, min(len(places["given"]), len(count)))
        places["native"] = (native[:, None] == np.arange(len(count))) & (most > 0)[:, None]
        for name, place in places.items():
            for what, is_so in (("sound", sound), ("tested", tested)):
                shares[f"{name}_{what}"] = jnp.mean(jnp.any(place & is_so, axis=1))
        return shares
