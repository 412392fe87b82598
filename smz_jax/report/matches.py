"""Games of two players: the agent against others, and a run's checkpoints against one another."""

from smz_jax.report.data import RunData
from smz_jax.report.tables import Table
from smz_jax.report.text import short_count
from smz_jax.report.verdict import score_text
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.estimate import Estimate, read_estimate

MATCHES = ("against", "games", "mean (95 %)", "won", "drawn", "lost")
MATCH_NOTE = (
    "Half of the games from each side, with the same dice. A mean is of the results: 1 a game won, "
    "-1 a game lost, or points. Intervals are over pairs of games."
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
        counts = [f"{known[x]:.0f}" if is_number(known.get(x)) else "-" for x in MATCHES[3:]]
        games = f"{known['games']:.0f}" if is_number(known.get("games")) else "-"
        rows.append((name, games, score_text(read_estimate(known)), *counts))
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
        columns = (ladder[x] for x in ("env_steps", "elo", "elo_low", "elo_high"))
        steps = [
            (short_count(at), Estimate(*elo).text("{:.0f}".format))
            for at, *elo in zip(*columns, strict=True)
        ]
        tables.append(Table((run.unit, "Elo (95 %)"), steps, note=LADDER_NOTE).to_html())
    return "".join(tables) or "<p>No matches have been played.</p>"
