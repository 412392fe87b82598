"""Macros: certain, recurring action sequences, mined from search trees and played games.

A macro is an open-loop action sequence (the literature's "option" with a fixed course). This
package reads trees and rows of play; it knows no network.
"""

from smz_jax.macro_file import prefix_share, read_macros_json, write_macros_json
from smz_jax.macros.buckets import BucketState, assign_buckets, init_buckets, update_buckets
from smz_jax.macros.coding import Encoding
from smz_jax.macros.compression import Selection, encode, expand, parse, select
from smz_jax.macros.controls import random_macros, shuffled
from smz_jax.macros.evidence import Trials, count_trials, outcomes, status, weigh
from smz_jax.macros.keys import PackedWindows, unpack_windows
from smz_jax.macros.library import (
    format_rankings,
    rank_macros,
    summarise,
    table_stats,
)
from smz_jax.macros.quality import Tally, quality, slot_entries
from smz_jax.macros.slots import MacroSlots, assign_slots, slot_targets
from smz_jax.macros.table import init_table, merge
from smz_jax.macros.windows import PlayCarry, PlayRows, init_carry, play_windows, tree_windows

__all__ = [
    "BucketState",
    "Encoding",
    "MacroSlots",
    "PackedWindows",
    "PlayCarry",
    "PlayRows",
    "Selection",
    "Tally",
    "Trials",
    "assign_buckets",
    "assign_slots",
    "count_trials",
    "encode",
    "expand",
    "format_rankings",
    "init_buckets",
    "init_carry",
    "init_table",
    "merge",
    "outcomes",
    "parse",
    "play_windows",
    "prefix_share",
    "quality",
    "random_macros",
    "rank_macros",
    "read_macros_json",
    "select",
    "shuffled",
    "slot_entries",
    "slot_targets",
    "status",
    "summarise",
    "table_stats",
    "tree_windows",
    "unpack_windows",
    "update_buckets",
    "weigh",
    "write_macros_json",
]
