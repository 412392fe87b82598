"""The peer beside runs of this project, by CPU time: a table and a figure."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from smz_jax.config.check import require
from smz_jax.report import style
from smz_jax.report.data import Curve, RunData, load_run, load_runs
from smz_jax.report.tables import Table
from smz_jax.report.text import short_count
from smz_jax.report.verdict import score_text
from smz_jax.storage.documents.forms import is_number
from smz_jax.storage.documents.results_json import PEER
from smz_jax.storage.estimate import Estimate, read_estimate
from smz_jax.storage.files import atomic_write_text
from smz_jax.storage.run_dir import WRITABLE

NAME = "PPO (stable-baselines3)"
NEAR = 0.1  # how far from the peer's CPU minutes a run's score may be, as a share of them
NOTE = (
    "Evaluations: raw scores of whole games with 95 % bootstrap intervals over the games of one "
    "seed, which say nothing of other seeds; PPO draws its actions, runs have their eval.noise. "
    "Training: the mean of the last 100 games, which explore. CPU minutes are user and system "
    "time: PPO's without its evaluations, a run's with all that it did."
)


class Score(NamedTuple):
    """A score of a run, and when it was measured."""

    minutes: float  # of CPU
    estimate: Estimate
    kind: str  # evaluation or training


def read_runs(folders: Sequence[Path], game: str) -> list[RunData]:
    """The runs to compare with; none where no folder is given.

    Raises:
        ConfigError: in one line, if a folder is no run, of another game or without CPU time.
    """
    runs = load_runs(folders) if folders else []
    for run in runs:
        require(run.game == game, "against", str(run.path), f"a run of {game}, not of {run.game}")
        allowed = "a run whose metrics.jsonl has cpu_seconds; runs of earlier versions have none"
        require(bool(scores_of(run, "score/mean")), "against", str(run.path), allowed)
    return runs


def scores_of(run: RunData, key: str) -> list[Score]:
    """A metric and its interval at each row whose CPU time is known."""
    kind = "evaluation" if key.startswith("eval/") else "training"
    return [
        Score(row["cpu_seconds"] / 60, found, kind)
        for row in run.rows
        if is_number(row.get("cpu_seconds")) and (found := read_estimate(row, key))
    ]


def score_at(run: RunData, minutes: float) -> Score | None:
    """The first evaluation at most a tenth after some CPU minutes, else the nearest training score.

    None: the run has neither within a tenth.
    """
    reach = NEAR * minutes
    for found in scores_of(run, "eval/mean"):
        if minutes <= found.minutes <= minutes + reach:
            return found
    known = scores_of(run, "score/mean")
    near = min(known, key=lambda found: abs(found.minutes - minutes), default=None)
    return near if near and abs(near.minutes - minutes) <= reach else None


def make_table(document: dict[str, Any], runs: Sequence[RunData]) -> Table:
    """A line for each evaluation of the peer."""
    columns = ["CPU minutes", "steps", f"{NAME}, training", "evaluation", "games"]
    lines = []
    for row in document["rows"]:
        result, score = row["evaluation"], row["score"]
        games = f"{result['games']} ({result['distinct']} distinct)"
        trained = score_text(None if score is None else Estimate(score))
        line = [f"{row['cpu_minutes']:.1f}", short_count(row["env_steps"]), trained]
        line += [score_text(read_estimate(result)), games]
        for run in runs:
            at = score_at(run, row["cpu_minutes"])
            line.append(f"{score_text(at.estimate)}, {at.kind} at {at.minutes:.1f}" if at else "-")
        lines.append(line)
    title = f"{document['game']}, seed {document['seed']} of the peer"
    return Table([*columns, *(run.label for run in runs)], lines, title, NOTE)


def draw(peer: RunData, runs: Sequence[RunData]) -> Figure:
    """Training scores over CPU minutes, and the evaluations with their intervals."""
    figure, (axes,) = style.new_figure("Score by CPU time, one thread")
    names = [NAME, *(style.plot_text(run.label) for run in runs)]
    colours = [style.BLACK, *(x for x in style.RUN_COLOURS if x != style.BLACK)]
    for number, (run, name) in enumerate(zip([peer, *runs], names, strict=True)):
        turn, place = divmod(number, len(colours))
        colour, dash = colours[place], style.RUN_DASHES[turn % len(style.RUN_DASHES)]
        trained = scores_of(run, "score/mean")
        curve: Curve = ([x.minutes for x in trained], [x.estimate.mean for x in trained])
        style.draw_curve(axes, curve, colour, name, dash)
        if found := scores_of(run, "eval/mean"):
            means = np.array([x.estimate.mean for x in found])
            ends = np.array([(x.estimate.floor, x.estimate.ceiling) for x in found]).T
            errors = np.maximum([means - ends[0], ends[1] - means], 0.0)
            look: Any = {"fmt": "o", "markersize": 6, "color": colour, "capsize": 4, "zorder": 4}
            axes.errorbar([x.minutes for x in found], means, errors, **look)
    axes.set_xlabel("CPU minutes (dots: evaluations with 95 % intervals)")
    axes.set_ylabel("raw score per game (lines: mean of the last 100)")
    axes.set_xlim(left=0)
    style.scale_axis(axes, "free")
    style.add_legend(figure, 2)
    return figure


def compare(folder: Path, against: Sequence[Path]) -> str:
    """Writes peer.md and peer.png into the folder of a measurement; gives the table as text.

    Raises:
        ConfigError: in one line, if it is none, cannot be written, or a run does not fit it.
    """
    document, peer = PEER.read(folder), load_run(folder)
    runs = read_runs(against, document["game"])
    require(os.access(folder, os.W_OK), "measured", str(folder), WRITABLE)
    table = make_table(document, runs)
    text = f"{table.title}\n\n{table.to_markdown()}\n\n{table.note}\n"
    atomic_write_text(folder / "peer.md", text)
    with rc_context(style.RC):
        style.save_figure(draw(peer, runs), folder / "peer.png")
    return f"{table.to_text()}\n\nwrote peer.md and peer.png in {folder}"
