"""The macros of a library in words: tables of them, and what is to be said of all together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from smz_jax.macros.library.listing import chosen_bits, rank
from smz_jax.report.data import RunData, macro_name
from smz_jax.report.tables import Table
from smz_jax.storage.documents.macro_form import GATES, STATUS_NAMES
from smz_jax.storage.estimate import Estimate

Macro = Mapping[str, Any]
LISTING = (
    *("#", "macro", "state", "length", "seen", "start states", "entropy", "certain", "trials"),
    *("held", "(at least)", "reward", "saves bits", "(missed)", "precondition"),
)
REPORT = (
    *("macro", "seen", "played", "state", "certain (at least)", "trials", "held (at least)"),
    *("entropy", "reward", "start states", "saves bits"),
)
RANKING = {
    **{"macro": "{names}", "states": "{generality}", "length": "{length}", "count": "{count}"},
    **{"entropy": "{mean_entropy:.3f}", "source": "{source}", "certain": "{certain:.0%}"},
    **{"held": "{held:.0%}", "trials": "{trials:.0f}", "status": "{status}"},
}
FORMS = {
    **{"length": "{length}", "seen": "{count:,}", "played": "{play_count:,}"},
    **{"start states": "{generality}", "entropy": "{mean_entropy:.3f}"},
    "reward": "{mean_reward:.3g}",
}
"""The columns that show one field of a macro, as it stands there."""
LEGEND = """\
seen: in search trees and played games. start states: kinds of states (buckets) it was seen from.
entropy: mean of its transitions, 0 certain, 1 anything. certain: share of the replayed windows with
its actions that the model foresees with certainty, which are its trials. held: share of its trials
whose end, sum of rewards and codes were as the model had foreseen; in brackets the lower bound that
the gate asks for. reward: of one run of it. saves bits: of the description of play, where it was
chosen and joins those before it; in brackets what it would cost to leave out it alone.
precondition: precision/recall of where it is predicted to hold."""
MACRO_NOTE = (
    "Certain: of the replayed windows with its actions, those that the model foresees "
    "with certainty; they are its trials. Held: of those, where end, sum of rewards and codes were "
    "as the model had foreseen. State: sound where the lower bounds in brackets of both are high "
    "enough. Seen: in search trees and played games. "
    "Entropy: mean over the macro's transitions, 0 certain, 1 uniform. Start states: kinds of "
    "states (buckets) that it was seen from. Saves bits: of the description of play, where it is "
    "in the library by compression."
)
PREFIX = "check/precondition/"
RANKINGS = {"generality": "Most general", "entropy": "Most deterministic", "count": "Most frequent"}
"""Title by measure."""


def macro_table(
    columns: Sequence[str], macros: Sequence[Macro], document: Mapping[str, Any], **texts: Any
) -> Table:
    """A table of macros.

    Args:
        columns: of `LISTING` or `REPORT`.
        macros: entries of `document`, in order; a file of an older schema knows less of them.
        document: their library, whose choice by compression knows what each saves.
        **texts: `title` and `note` of the table.
    """
    saved, missed = (chosen_bits(document, kind) for kind in ("saved_bits", "missed_bits"))
    rows = []
    for number, macro in enumerate(macros, 1):
        actions = tuple(macro.get("actions") or ())
        bits, cost = saved.get(actions), missed.get(actions)
        measured = macro.get("precondition") or {}
        parts = [measured.get(name) for name in ("precision", "recall")]
        quality = ["-" if part is None else f"{part:.2f}" for part in parts]
        cells = {name: form.format_map(macro) for name, form in FORMS.items()} | {
            "#": str(number),
            "macro": macro_name(macro),
            "state": str(macro.get("status", "-")),
            "trials": f"{macro['trials']:.0f}" if "trials" in macro else "-",
            "saves bits": "-" if bits is None else f"{bits:,.1f}",
            "(missed)": "-" if cost is None else f"({cost:,.1f})",
            "precondition": "-" if parts == [None, None] else "/".join(quality),
        }
        for name, of in (("certain", "windows"), ("held", "trials")):
            share, low = "-", "-"
            if macro.get(of):
                share, low = f"{macro[name]:.0%}", f"({macro[f'{name}_low']:.0%})"
            both = "-" if low == "-" else f"{share} {low}"
            cells |= {name: share, f"{name} (at least)": both, "(at least)": low}
        rows.append([cells[name] for name in columns])
    left = [number for number, name in enumerate(columns) if name in ("macro", "state")]
    return Table(columns, rows, left=left, **texts)


def format_table(document: Mapping[str, Any], macros: Sequence[Macro]) -> str:
    """Macros of a library, as `listed` gives them, as text: a head, numbered lines, a legend."""
    title = f"{len(macros)} of {len(document['macros'])} macros ({_states(document)})"
    return macro_table(LISTING, macros, document, title=title, note=LEGEND).to_text()


def _states(document: Mapping[str, Any], separator: str = "") -> str:
    """How many macros there are of each status."""
    counts = Counter(macro["status"] for macro in document["macros"])
    return ", ".join(f"{counts[name]:{separator}} {name}" for name in STATUS_NAMES)


def format_rankings(document: Mapping[str, Any], top: int = 10) -> str:
    """The best macros of a library by each measure as text, in tables of at most `top` rows."""
    tables = []
    for by, title in RANKINGS.items() if document["macros"] else ():
        best = enumerate(rank(document["macros"], by)[:top], 1)
        rows = [[str(n), *(x.format_map(macro) for x in RANKING.values())] for n, macro in best]
        tables.append(Table(("#", *RANKING), rows, title=f"{title} macros", left=(1, 6, 10)))
    return "\n\n".join(table.to_text() for table in tables) or "no macros found"


def format_selection(document: Mapping[str, Any]) -> str:
    """The library chosen by compression in a few lines; says so where it was not measured."""
    chosen = document.get("selection")
    if chosen is None:
        return "library by compression: not measured"
    play, sound = chosen["play"], chosen["of"] == "sound"
    of = "sound macros" if sound else "macros, none of which is sound"
    source = {"replay": "the replay of the run's last checkpoint", "games": "games of the model"}
    pieces = f"{play['pieces']:,} piece{'' if play['pieces'] == 1 else 's'}"
    bits, plain = chosen["bits_per_action"], chosen["bits_per_action_plain"]
    share = 1 - bits / plain if plain else 0.0
    lines = [
        f"library by compression: {len(chosen['phrases'])} of {chosen['allowed']} {of}; play: "
        f"{play['actions']:,} actions in {pieces}, {source[play['source']]}",
        f"  bits per action: {bits:.4f} with the library ({chosen['dictionary_bits']:,.0f} bits of "
        f"dictionary paid), {plain:.4f} without: {share:.1%} saved",
        f"  coverage: {chosen['coverage']:.1%} of the actions lie inside its macros",
        f"  redundancy: {chosen['redundancy']:.0%} of its macros begin another one, "
        f"{chosen['redundancy_allowed']:.0%} of those that it was chosen from",
    ]
    if chosen.get("tree_share"):
        lines.append(
            f"  search visits weigh in the choice as {chosen['tree_share']:.0%} more, imagined play"
        )
    if controls := chosen.get("controls"):
        said = f"{controls['held_out']:,} held-out actions"
        # A file of an older version has no interval.
        if any(row.get("saved_low") is not None for row in controls["libraries"]):
            said += " (95 %, by resampled pieces)"
        lines.append(f"  saved bits per action of {said}:")
        for row in controls["libraries"]:
            keys = ("saved_bits_per_action", "saved_low", "saved_high")
            saved = Estimate(*map(row.get, keys)).text("{:.4f}".format)
            lines.append(f"    {row['name']}: {saved} ({row['kept']} of {row['macros']} kept)")
    return "\n".join(lines)


def macro_lines(run: RunData) -> list[str]:
    """How many macros there are in each state, and what the library by compression saves."""
    sure = sum(bool(m.get("deterministic")) for m in run.macros)
    text = f"{len(run.macros):,} macros, {sure:,} of them deterministic."
    if not run.library:
        return [text]
    lines = format_selection(run.library).splitlines()
    if run.library.get("selection") is None:
        lines = ["Library by compression: not measured; experiments.macros does."]
    states = f"{text} By replay: {_states(run.library, ',')}."
    return [states, *gate_lines(run.library["stats"]), *lines]


def gate_lines(stats: Mapping[str, Any]) -> list[str]:
    """How many sound macros may be false, and what each gate refuses; none: an older file's."""
    if not stats.get("tested"):
        return []
    shares = ", ".join(f"{name} {stats[f'refused_{name}']:.0%}" for name in GATES)
    return [
        f"{stats['tested']:,.0f} had trials enough to be judged; of the {stats['sound']:,.0f} "
        f"sound ones at most {stats['expected_false']:.1f} are expected to be false. "
        f"{stats['refusals']:.1%} of all trials did not hold; of those the gates refused: {shares} "
        "(more than one may refuse a trial)."
    ]


def macro_tables(run: RunData) -> list[Table]:
    """Rankings; first, where it was measured, the library by compression."""
    by_actions = {tuple(m["actions"]): m for m in run.macros if isinstance(m.get("actions"), list)}
    chosen = [
        m for actions in chosen_bits(run.library, "saved_bits") if (m := by_actions.get(actions))
    ]
    ranked = [(title, rank(run.macros, by)[:10]) for by, title in reversed(RANKINGS.items())]
    if chosen:
        ranked.insert(0, ("Library by compression", chosen[:15]))
    return [macro_table(REPORT, macros, run.library, title=title) for title, macros in ranked]


def precondition_lines(run: RunData) -> list[str]:
    """Precision and recall at the last check in words, beside the baselines; none: not known."""
    windows, ece, raw = (run.last(PREFIX + name) for name in ("windows", "ece", "ece_raw"))
    if not windows:
        return []

    def share(name: str) -> str:
        value = run.last(PREFIX + name)
        return "-" if value is None else f"{value:.1%}"

    text = (
        f"Preconditions, on {windows:,.0f} held-out windows (older ones count for less): of those "
        f"that the head said a macro to apply in, it did in {share('precision')} (precision; "
        f"start-state bucket {share('bucket_precision')}, always {share('always_precision')}); of "
        f"those that one applied in, the head said so in {share('recall')} (recall; start-state "
        f"bucket {share('bucket_recall')}, always 100%)."
    )
    if ece is not None:
        without = "" if raw is None else f" ({raw:.3f} without temperature)"
        text += f" Its probabilities are {ece:.3f} off on average{without}."
    return [text]
