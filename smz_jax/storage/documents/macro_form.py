"""macros.json: its form, whether its parts agree, and words for macros (no JAX).

`docs/macros_json.md` says what each field means. A change that older readers would misread raises
`SCHEMA`; a field that may be missing does not.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from smz_jax.config.check import require, shorten
from smz_jax.config.training import MacroConfig
from smz_jax.storage.documents import forms
from smz_jax.storage.documents.forms import COUNTS, SHARE, every, fields, kind, number, optional
from smz_jax.storage.files import atomic_write_text

SCHEMA = 4
MAX_ACTIONS = 255
"""Of a game with macros: an action is a byte of a sequence's key."""
STATUS_NAMES = ("candidate", "sound", "refuted")
"""Of a macro, in the order of `macros.judge.evidence`'s numbers."""
ARROW = " → "
TIMES = "\N{MULTIPLICATION SIGN}"
GATES = ("near", "paid", "agreed", "ends")
"""What a trial has to pass, `smz_jax.macros.judge.evidence`."""
PRECONDITION_SHARES = ("precision", "recall", "always_precision")
_SLACK = 1e-5
"""Shares are kept as float32."""

_POSITIVE = number(0)
MACRO = fields(
    actions=kind(list),
    names=kind(str),
    buckets=kind(list),
    source=kind(str),
    deterministic=forms.TRUTH,
    status=kind(str),
    slot=optional(kind(int)),
    precondition=optional(kind(dict)),
    length=number(1, 8, whole=True),
    count=number(1, forms.COUNT, whole=True),
    play_count=COUNTS,
    generality=number(0, 1024, whole=True),
    mean_entropy=number(0, 1, slack=_SLACK),
    total_reward=number(),
    mean_reward=number(),
    windows=_POSITIVE,
    trials=_POSITIVE,
    effective=_POSITIVE,
    **dict.fromkeys(("certain", "certain_low", "held", "held_low", "held_high"), SHARE),
    **dict.fromkeys((*GATES, "p_value"), SHARE),
)
"""An entry of `macros`."""
PRECONDITION = fields(windows=_POSITIVE, **dict.fromkeys(PRECONDITION_SHARES, optional(SHARE)))
_CONTROL = fields(
    name=forms.one_of("macros", "shuffled play", "random"),
    macros=COUNTS,
    kept=COUNTS,
    saved_bits_per_action=number(),
    saved_low=optional(number()),
    saved_high=optional(number()),
)
SELECTION = fields(
    play=fields(source=forms.one_of("replay", "games"), actions=COUNTS, pieces=COUNTS),
    of=forms.one_of("sound", "table"),
    allowed=COUNTS,
    **dict.fromkeys(("bits_per_action", "bits_per_action_plain", "dictionary_bits"), _POSITIVE),
    **dict.fromkeys(("coverage", "redundancy", "redundancy_allowed"), SHARE),
    sampled=optional(number(1, forms.COUNT, whole=True)),
    tree_share=optional(_POSITIVE),
    controls=optional(fields(held_out=number(0, forms.COUNT), libraries=every(_CONTROL))),
    phrases=every(fields(uses=COUNTS, saved_bits=number(), missed_bits=optional(number()))),
)
"""The library chosen by compression."""


def _part(of: type) -> forms.Form:
    return lambda found, where: None if isinstance(found, of) else f"{where} is missing"


def decode(actions: Sequence[int], action_names: Sequence[str]) -> str:
    """Action ids in the environment's own words, e.g. "FIRE → RIGHT → RIGHT"."""
    return ARROW.join(action_names[action] for action in actions)


_SHOWN = fields(
    source=forms.value(lambda x: True),
    names=optional(kind(str, list)),
    actions=optional(kind(str, list)),
    **dict.fromkeys(("length", "count", "play_count", "generality"), number()),
    **dict.fromkeys(("mean_entropy", "total_reward", "mean_reward"), number()),
)


def is_macro_list(found: Any) -> bool:
    """Whether the `macros` of a `macros.json` of any schema are what figures show, or left out."""
    return found is None or every(_SHOWN)(found, "") is None


def _schema(found: Any, where: str) -> str | None:
    advice = ""
    if type(found) is int:
        if found == SCHEMA:
            return None
        older = ": an older version wrote it, which kept less evidence; run the experiment again"
        advice = ": a newer version wrote it; update this project" if found > SCHEMA else older
        advice += ", or read it with the commit in the run's summary.json"
    return f"{where} = {shorten(found)}, allowed is {SCHEMA}{advice}"


def _contradictions(document: Mapping[str, Any]) -> Iterator[str]:
    """Where a library of the right form contradicts itself."""
    try:
        config = MacroConfig(**document["config"])
    except (TypeError, ValueError, OverflowError) as error:
        yield f"config: {error}"
        return
    names, macros = document["action_names"], document["macros"]
    for name, found in document["stats"].items():
        high = 1 if name.startswith("certain_rate") else forms.HUGE
        if fault := number(0, high)(found, f"stats.{shorten(name)}"):
            yield fault
    for index, macro in enumerate(macros):
        where = f"macros[{index}]"
        yield from _of_actions(macro, names, where)
        claims = (*_of_macro(macro, config), *_of_status(macro, config))
        yield from (f"{where}{problem}" for holds, problem in claims if not holds)
        # Slot and precondition are both there and right, or both null.
        slot, found = macro.get("slot"), macro.get("precondition")
        if (slot is None) != (found is None) or not 0 <= (slot or 0) < config.slots:
            yield f"{where}.slot = {shorten(slot)} with precondition = {shorten(found)}"
        if found is not None and (fault := PRECONDITION(found, f"{where}.precondition")):
            yield fault
    yield from _of_copies(macros, "macros")
    slots = Counter(macro["slot"] for macro in macros if macro.get("slot") is not None)
    for slot, count in slots.items():
        if count > 1:
            yield f"macros: {count} of them have slot = {slot}, allowed is one"
    phrases = (document.get("selection") or {}).get("phrases", ())
    for index, phrase in enumerate(phrases):
        where = f"selection.phrases[{index}]"
        yield from _of_actions(phrase, names, where)
        if not phrase["actions"]:
            yield f"{where}.actions = []"
    yield from _of_copies(phrases, "selection.phrases")


def _of_actions(entry: Mapping[str, Any], action_names: Sequence[str], where: str) -> Iterator[str]:
    """Faults of actions that are not known ones, and of names that are not theirs."""
    actions, num_actions = entry.get("actions"), len(action_names)
    if not isinstance(actions, list):
        yield f"{where}.actions = {shorten(actions)}"
        return
    for action in actions:
        if type(action) is not int or not 0 <= action < num_actions:
            yield f"{where}.actions has {shorten(action)}, allowed is 0..{num_actions - 1}"
    if entry.get("names") != decode(actions, action_names):
        yield f"{where}.names = {shorten(entry.get('names'))}"


def _of_copies(entries: Sequence[Mapping[str, Any]], where: str) -> Iterator[str]:
    """Faults of entries with the same actions."""
    seen = Counter(tuple(entry["actions"]) for entry in entries)
    for entry in entries:
        if seen[tuple(entry["actions"])] > 1:
            yield f"{where}: {shorten(entry['names'])} is there more than once"


Claims = Iterator[tuple[bool, str]]
"""Whether something holds, and the fault if it does not."""


def _of_macro(macro: Mapping[str, Any], config: MacroConfig) -> Claims:
    """What length, buckets, counts and entropy say of each other."""
    length, shortest, longest = macro["length"], config.min_length, config.max_length
    yield length == len(macro["actions"]), ".length is wrong"
    allowed = f"allowed is {shortest} to {longest}, as in config"
    yield shortest <= length <= longest, f".length = {length}, {allowed}"
    buckets, kinds = macro["buckets"], config.num_buckets
    are_buckets = all(type(bucket) is int and 0 <= bucket < kinds for bucket in buckets)
    allowed = f"allowed are distinct ones of 0..{kinds - 1}"
    distinct = are_buckets and len(set(buckets)) == len(buckets)
    yield distinct, f".buckets = {shorten(buckets)}, {allowed}"
    yield macro["generality"] == len(buckets), ".generality is wrong"
    played, count = macro["play_count"], macro["count"]
    yield played <= count, f".play_count = {played}, allowed is 0 to count = {count}"
    sources = ("play", "dataset") if played else ("tree", "given")
    allowed = f"allowed is {sources[0]}, by play_count = {played}"
    yield macro["source"] in sources, f".source = {shorten(macro['source'])}, {allowed}"
    sure = macro["mean_entropy"] < config.deterministic_threshold
    yield macro["deterministic"] is sure, ".deterministic contradicts mean_entropy"


def _of_status(macro: Mapping[str, Any], config: MacroConfig) -> Claims:
    """Whether the status is what windows and trials say."""
    state, share = macro["status"], config.sound_share
    yield state in STATUS_NAMES, f".status = {shorten(state)}"
    low, held, high = (macro[name] for name in ("held_low", "held", "held_high"))
    bounds = f"held_low = {low}, held = {held}, held_high = {high}"
    ordered = low <= held + _SLACK and held <= high + _SLACK
    yield ordered, f": {bounds}, allowed are rising ones"
    effective = min(macro["effective"], macro["trials"])
    enough = effective >= config.min_trials * (1 - _SLACK)
    trials = f"status = {state} after {effective} trials"
    allowed = f"allowed is {config.min_trials} or more (config.min_trials)"
    yield state == "candidate" or enough, f": {trials}, {allowed}"
    allowed = f"allowed is at most trials = {macro['trials']}"
    fits = macro["effective"] <= macro["trials"] * (1 + _SLACK)
    yield fits, f": effective = {macro['effective']}, {allowed}"
    windows, certain, certain_low = (macro[x] for x in ("windows", "certain", "certain_low"))
    right = abs(certain * windows - macro["trials"]) <= _SLACK * max(windows, 1.0)
    yield right, f": certain = {certain}, allowed is trials / windows"
    allowed = f"allowed is at most certain = {certain}"
    yield certain_low <= certain + _SLACK, f": certain_low = {certain_low}, {allowed}"
    least = config.certain_share
    allowed = f"allowed is config.certain_share = {least} or more of a sound macro"
    good = state != "sound" or certain_low >= least - _SLACK
    yield good, f": certain_low = {certain_low}, {allowed}"
    allowed = f"allowed is config.sound_share = {share} or more of a sound macro"
    yield state != "sound" or low >= share - _SLACK, f": held_low = {low}, {allowed}"
    allowed = f"allowed is below config.sound_share = {share} of a refuted macro"
    yield state != "refuted" or high < share + _SLACK, f": held_high = {high}, {allowed}"


LIBRARY = forms.Document(
    "macros.json",
    lambda document: next(_contradictions(document), None),
    kind="a macro library",
    advice="; a run writes it anew at each checkpoint",
    schema=_schema,
    action_names=every(forms.TEXT),
    stats=_part(dict),
    config=_part(dict),
    macros=lambda found, where: _part(list)(found, where) or every(MACRO)(found, where),
    selection=optional(SELECTION),
)


def fold(names: Sequence[str]) -> str:
    """Action names with repeats folded: FIRE, then RIGHT twice."""
    runs = [(name, len(list(run))) for name, run in groupby(names)]
    return ARROW.join(name if times == 1 else f"{name} {TIMES}{times}" for name, times in runs)


def prefix_share(phrases: Sequence[Sequence[int]]) -> float:
    """Share of the phrases that are a proper prefix of another one; 0 where there are none."""
    whole = {tuple(phrase) for phrase in phrases}
    starts = {phrase[:end] for phrase in whole for end in range(len(phrase))}
    return len(whole & starts) / len(whole) if whole else 0.0


def check_fits(document: Mapping[str, Any], action_names: Sequence[str], longest: int) -> None:
    """Checks that a library is of a model's game and of its `macro.max_length`, `longest`.

    Raises:
        ConfigError: in one line, if its actions are others, or a macro is longer.
    """
    names = document["action_names"]
    shown = ", ".join(map(str, action_names))
    allowed = f"those of the model: {shown}; take a library of the same game and action set"
    require(names == list(action_names), "macros.json: action_names", names, allowed)
    length = max((macro["length"] for macro in document["macros"]), default=0)
    allowed = f"at most macro.max_length = {longest} of the model's settings"
    require(length <= longest, "macros.json: length", length, allowed)


def write_macros_json(folder: Path, document: Mapping[str, Any]) -> None:
    """Writes the library of `summarise`; a reader sees the old file or the new, never a part."""
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
    atomic_write_text(folder / LIBRARY.file, text)
