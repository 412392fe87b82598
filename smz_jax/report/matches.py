"""Games of two players: the agent against others, and a run's checkpoints against one another."""

from collections.abc import Callable, Mapping
from typing import Any

from smz_jax.report.data import RunData
from smz_jax.report.tables import Table
from smz_jax.report.text import short_count
from smz_jax.report.verdict import number_text, score_text
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.estimate import Estimate, read_estimate

MATCHES = ("against", "games", "mean (95 %)", "won", "drawn", "lost", "cut off")
MATCH_NOTE = (
    "Half of the games from each side, with the same dice. A mean is of the results: 1 a game won, "
    "-1 a game lost, or points. Intervals are over pairs of games; there is none "
    "where all pairs ended alike. Games that were cut off at the step limit count as draws."
)
POSITIONS = ("connect four", "moves that keep the outcome (95 %)", "of wins")
POSITIONS_NOTE = (
    "In stored positions that are solved exactly, in each of which some moves are worse than "
    "others: the share of a player's moves that keep the outcome of best play."
)
LADDER_NOTE = (
    "Checkpoints of this run, each against each. Elo: 200 more win three games of four against a "
    "player of 0, which is the first one; drawn games are halves, points do not count."
)


def has_matches(run: RunData) -> bool:
    """Whether there is something to show."""
    return bool(run.ladder) or any(
        isinstance(run.summary.get(x), dict) for x in ("matches", "positions")
    )


def match_tables(run: RunData) -> str:
    """All tables in HTML, as far as there is something for them."""
    rows = []
    matches = run.summary.get("matches")
    for name, found in matches.items() if isinstance(matches, dict) else ():
        known = found if isinstance(found, dict) else {}
        counts = [f"{known[x]:.0f}" if is_number(known.get(x)) else "-" for x in MATCHES[3:6]]
        cut = f"{known['cut_share']:.1%}" if is_number(known.get("cut_share")) else "-"
        games = f"{known['games']:.0f}" if is_number(known.get("games")) else "-"
        score = read_estimate(known)
        rows.append((name, games, _text(score, number_text) if score else "-", *counts, cut))
    tables = [Table(MATCHES, rows, note=MATCH_NOTE).to_html()] if rows else []
    positions = run.summary.get("positions")
    moves = positions.get("moves") if isinstance(positions, dict) else None
    if isinstance(moves, dict):
        judged = [
            (
                name.replace("_", " "),
                *(score_text(read_estimate(x, y)) for y in ("mean", "wins_kept")),
            )
            for name, x in moves.items()
        ]
        tables.append(Table(POSITIONS, judged, note=POSITIONS_NOTE).to_html())
    if ladder := run.ladder:
        tables.append(ladder_table(ladder, run.unit).to_html())
    return "".join(tables) or "<p>No matches have been played.</p>"


def ladder_table(ladder: Mapping[str, Any], unit: str) -> Table:
    """The checkpoints of ladder.json; `unit` is what their steps are."""
    columns = (ladder[x] for x in ("env_steps", "elo", "elo_low", "elo_high"))
    rows = [
        (short_count(at), _text(Estimate(*elo), "{:.0f}".format) if number else "0")
        for number, (at, *elo) in enumerate(zip(*columns, strict=True))
    ]
    note, matches = LADDER_NOTE, ladder["matches"]
    if alike := sum(_is_alike(read_estimate(x)) for x in matches):
        note += (
            f" In {alike} of {len(matches)} matches all pairs of games ended alike: of those no "
            "interval can be known."
        )
    games = sum(x["games"] for x in matches)
    cut = sum(x["games"] * (x.get("cut_share") or 0) for x in matches)
    if cut:
        note += f" {cut / games:.1%} of the games were cut off at the step limit: they are draws."
    return Table((unit, "Elo (95 %)"), rows, note=note)


def _is_alike(found: Estimate | None) -> bool:
    """Whether nothing differed that an interval could be told from."""
    return found is not None and found.low is not None and found.low == found.high


def _text(found: Estimate, number: Callable[[float], str]) -> str:
    return f"{number(found.mean)} (no interval)" if _is_alike(found) else found.text(number)
