"""A library in another game: its macros by what their actions mean there (NumPy only).

An action means what its name says: FIRE is FIRE in any Atari game. What is called otherwise and
does the same has to be named by the user, as LEFT for DOWN.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from smz_jax.config.check import require
from smz_jax.macros.library.controls import mixed_macros, random_macros
from smz_jax.macros.library.listing import rank


class Translated(NamedTuple):
    """A library's macros in another game."""

    macros: list[tuple[int, ...]]  # sound ones first, then the most frequent
    unknown: dict[str, int]  # actions that the game has not: macros left out for each
    too_long: int  # macros that mean something here, left out for their length


def translate(
    document: Mapping[str, Any],
    names: Sequence[str],
    meanings: Mapping[str, str],
    lengths: range,
    with_repeats: bool = True,
) -> Translated:
    """The macros of a `macros.json` that are not refuted, as actions of the game with these names.

    Args:
        document: what `macro_form.LIBRARY` reads.
        names: those of the game's actions.
        meanings: names here for names there, where they differ.
        lengths: of macros that are taken.
        with_repeats: whether those of one repeated action are.

    Raises:
        ConfigError: in one line, if a meaning names an action that there is not, here or there.
    """
    there = document["action_names"]
    for old, new in meanings.items():
        require(old in there, "macros_map", old, f"an action of the library: {', '.join(there)}")
        require(new in names, "macros_map", new, f"an action of this game: {', '.join(names)}")
    known = {name: meanings.get(name, name) for name in there}
    ranked = rank([x for x in document["macros"] if x["status"] != "refuted"], "count")
    ranked = sorted(ranked, key=lambda macro: macro["status"] != "sound")
    found: dict[tuple[int, ...], None] = {}
    unknown, too_long = Counter[str](), 0
    for macro in ranked:
        words = [known[there[action]] for action in macro["actions"]]
        missing = {word for word in words if word not in names}
        unknown.update(missing)
        if missing or (len(set(words)) == 1 and not with_repeats):
            continue
        if len(words) in lengths:
            found[tuple(names.index(word) for word in words)] = None
        else:
            too_long += 1
    return Translated(list(found), dict(unknown), too_long)


def compared_with(
    macros: Sequence[tuple[int, ...]], num_actions: int, seed: int
) -> dict[str, list[tuple[int, ...]]]:
    """Two libraries without the macros themselves: `shuffled`, `random`.

    The lengths are the same, as far as there are other sequences of them: fewer are shuffled where
    many macros repeat one action.
    """
    rng, lengths = np.random.default_rng(seed), [len(macro) for macro in macros]
    drawn = random_macros(lengths + lengths, num_actions, rng)
    others = [macro for macro in drawn if macro not in set(macros)]
    left, chosen = Counter(lengths), []
    for macro in others:
        if left[len(macro)]:
            left[len(macro)] -= 1
            chosen.append(macro)
    return {"shuffled": mixed_macros(macros, lengths, rng), "random": chosen}
