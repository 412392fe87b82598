"""Which gate keeps the macros of a library from being sound, and whether it is full of prefixes."""

from collections.abc import Mapping
from typing import Any

from smz_jax.config.training import MacroConfig
from smz_jax.storage.documents.macro_form import prefix_share

PREFIXES = 0.5
"""Above this share of macros that begin another one, a table holds little but prefixes."""
_FAILURES = {
    "near": "the foreseen end was not near the real one",
    "paid": "the sum of the rewards was not the foreseen one",
    "agreed": "the codes were not the foreseen ones",
    "ends": "the game did not end just where that was foreseen",
}


def closed_gate(document: Mapping[str, Any]) -> str | None:
    """Which gate keeps every macro from being sound, in one line; None if some macro is sound."""
    found = gate_and_reason(document)
    return None if found is None else ": ".join(found)


def gate_and_reason(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """The same as two parts: "certainty", "trials" or "repeatability", and why."""
    macros, config = document["macros"], MacroConfig(**document["config"])
    if any(macro["status"] == "sound" for macro in macros):
        return None
    if not macros:
        return "certainty", _why_no_macro(document["stats"], config)
    of_all, needed = f"of {len(macros)} macros", f"and {config.min_trials} are needed"
    most = max(macros, key=lambda macro: macro["effective"])
    tried = [macro for macro in macros if macro["effective"] >= config.min_trials]
    if not tried and max(macro["windows"] for macro in macros) >= config.min_trials:
        return "certainty", (
            f"certain too rarely: {of_all} the one that is certain most often is so in "
            f"{most['trials']:.0f} of {most['windows']:.0f} replayed windows with its actions, "
            f"{needed}"
        )
    if not tried:
        return "trials", (
            f"too few trials: {of_all} the most tried one has {most['effective']:.0f} trials in "
            f"replay, {needed}"
        )
    both = [
        macro
        for macro in tried
        if macro["held_low"] >= config.sound_share and macro["certain_low"] >= config.certain_share
    ]
    if both:
        best = min(macro["p_value"] for macro in both)
        return "repeatability", (
            f"too many candidates: {len(both)} {of_all} pass the bounds, but of {len(tried)} that "
            f"were tried some do so by chance; the best of them would with {best:.2g}, and "
            f"at most {config.false_share:.0%} of the sound ones may be false"
        )
    hold = [macro for macro in tried if macro["held_low"] >= config.sound_share]
    if hold:
        best = max(hold, key=lambda macro: macro["certain_low"])
        return "certainty", (
            f"certain too rarely: {len(hold)} {of_all} hold where they are certain, "
            f"the one that is so most often in {best['certain']:.0%} of the replayed windows with "
            f"its actions, at least {best['certain_low']:.0%}, and {config.certain_share:.0%} is "
            "needed"
        )
    total = sum(macro["trials"] for macro in tried)
    shares = {
        name: sum(macro[name] * macro["trials"] for macro in tried) / total for name in _FAILURES
    }
    worst = min(shares, key=lambda name: shares[name])
    best = max(tried, key=lambda macro: macro["held_low"])
    rates = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return "repeatability", (
        f"most of all '{worst}' ({_FAILURES[worst]}): {len(tried)} {of_all} have "
        f"{config.min_trials} trials, the best of them held {best['held']:.0%}, at least "
        f"{best['held_low']:.0%}, and {config.sound_share:.0%} is needed; of their trials {rates}"
    )


def _why_no_macro(stats: Mapping[str, Any], config: MacroConfig) -> str:
    seen, certain = stats.get("transitions", 0), stats.get("certain", 0)
    limits = f"{config.play_threshold:g} in play, {config.tree_threshold:g} in search trees"
    if not seen:
        return "no transition has been read yet"
    if not certain:
        return f"no certain windows: none of {seen:,} transitions had an entropy under {limits}"
    windows = stats.get("candidates_tree", 0) + stats.get("candidates_play", 0)
    share = f"{certain:,} of {seen:,} transitions were certain (under {limits})"
    if not windows:
        return f"no certain windows: {share}, but never {config.min_length} in a row"
    often = f"no sequence of actions came {config.min_occurrences} times"
    return f"too few occurrences: {share}, in {windows:,} windows, but {often}"


def prefix_line(document: Mapping[str, Any]) -> str | None:
    """A warning where all macros, the sound ones or the chosen ones are mostly prefixes."""
    macros, chosen = document["macros"], document.get("selection")
    sound = [macro["actions"] for macro in macros if macro["status"] == "sound"]
    shares = {"macros": prefix_share([macro["actions"] for macro in macros])}
    if sound:
        shares["sound ones"] = prefix_share(sound)
    if chosen is not None:
        shares["library by compression"] = chosen["redundancy"]
    if max(shares.values()) <= PREFIXES:
        return None
    parts = ", ".join(f"{share:.0%} of the {name}" for name, share in shares.items())
    return f"prefixes count one thing often: {parts} begin another macro."
