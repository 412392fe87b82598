"""The library by compression: which macros shorten the description of play, for macros.json."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from smz_jax.look.streams import count_actions
from smz_jax.macro_file import decode
from smz_jax.macros.compression import select


def measure_selection(
    library: Mapping[str, Any],
    pieces: Sequence[np.ndarray],
    *,
    source: Literal["replay", "games"],
) -> dict[str, Any]:
    """Chooses the library of the fewest bits among the sound macros.

    Where no macro is sound, it chooses among all of the table, and says so in `of`: what is saved
    then is no claim about the game.

    Args:
        library: as `read_macros_json` gives it.
        pieces: of play, each 1-D.
        source: where play is from.

    Returns:
        `selection` of macros.json, see `docs/macros_json.md`; the bits are those of
        `macros.coding`.
    """
    names = library["action_names"]
    sound = [macro for macro in library["macros"] if macro["status"] == "sound"]
    allowed = sound or library["macros"]
    chosen = select(pieces, [macro["actions"] for macro in allowed], len(names))
    encoding = chosen.encoding
    bits = zip(chosen.saved_bits, chosen.missed_bits, strict=True)
    phrases = zip(chosen.phrases, encoding.uses, bits, strict=True)
    return {
        "play": {"source": source, "actions": count_actions(pieces), "pieces": len(pieces)},
        "of": "sound" if sound else "table",
        "allowed": len(allowed),
        "bits_per_action": encoding.bits_per_action,
        "bits_per_action_plain": encoding.plain_bits_per_action,
        "dictionary_bits": encoding.dictionary_bits,
        "coverage": encoding.coverage,
        "redundancy": chosen.redundancy,
        "redundancy_allowed": chosen.allowed_redundancy,
        "phrases": [
            {
                "actions": list(actions),
                "names": decode(actions, names),
                "uses": int(uses),
                "saved_bits": float(saved),
                "missed_bits": float(missed),
            }
            for actions, uses, (saved, missed) in phrases
        ],
    }
