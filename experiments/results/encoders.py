"""What `experiments.encoders` left: its results.json as one run of the proof."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.results.worlds import ENCODER_VARIANT, STICKY
from smz_jax.report.data import Curve
from smz_jax.storage.documents.checks import is_number
from smz_jax.storage.metrics import read_metrics


def encoder_summary(raw: dict[str, Any]) -> dict[str, Any]:
    """A summary like a run's: `commit`, `platform`, `seconds_total`, and the jobs by stickiness.

    Args:
        raw: results.json of one seed: `results` holds a mapping for each variant and stickiness.
    """
    jobs = {x["sticky"]: x for x in raw["results"] if x["variant"] == ENCODER_VARIANT}
    seconds = [x.get("seconds") for x in jobs.values()]
    return {
        "commit": raw.get("commit"),
        "platform": raw.get("platform"),
        "seconds_total": sum(x for x in seconds if is_number(x)),
        "jobs": jobs,
    }


def encoder_value(sticky: float, name: str) -> Callable[[Any], float | None]:
    """Reads one number of the job of a stickiness from a finished run."""
    return lambda one: one.summary["jobs"].get(sticky, {}).get(name)


def entropy_ratio(one: Any) -> float | None:
    """Mean normalised entropy without sticky actions over that with them."""
    random, plain = (encoder_value(sticky, "entropy")(one) for sticky in STICKY)
    return None if not random or plain is None else plain / random


def roc_curve(path: Path) -> Curve:
    """ROC area over updates, with sticky actions, of one run."""
    steps, areas = [], []
    for rows in sorted((path / "jobs").glob(f"{ENCODER_VARIANT}-sticky{STICKY[0]:g}-*/rows.jsonl")):
        for row in read_metrics(rows):
            if is_number(row.get("roc")):
                steps.append(row["updates"])
                areas.append(row["roc"])
    return steps, areas
