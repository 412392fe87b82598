"""Writes a run folder with made-up but realistic numbers, without playing anything."""

import json
import math
from pathlib import Path

import numpy as np
import yaml

ACTION_NAMES = ("NOOP", "FIRE", "RIGHT", "LEFT")

CONFIG = {
    "experiment": "breakout",
    "seed": 0,
    "total_env_steps": 100_000,
    "env": {"id": "Breakout", "num_envs": 32, "mode": "deterministic"},
    "network": {
        "family": "light",
        "codebook_size": 32,
        "value_support": 300,
        "reward_support": 300,
    },
    "macro": {
        "play_threshold": 0.2,
        "tree_threshold": 0.4,
        "capacity": 1024,
        "num_buckets": 64,
        "deterministic_threshold": 0.1,
    },
    "eval": {"num_games": 32, "max_steps": 3000},
}
LOSSES = {
    "policy": 1.38,
    "value": 4.0,
    "reward": 2.0,
    "afterstate_value": 4.1,
    "chance": 3.4,
    "commitment": 0.8,
    "consistency": 0.9,
    "code_entropy": -3.0,
}
PHASE_SHARES = {
    "environment": 0.13,
    "search": 0.38,
    "macros": 0.02,
    "replay": 0.03,
    "learning": 0.33,
    "evaluation": 0.06,
    "compilation": 0.05,
}


def evaluation(mean: float, spread: float, games: int = 32, seed: int = 0) -> dict:
    """An evaluation as in summary.json, of scores drawn around `mean`."""
    scores = np.maximum(np.random.default_rng(seed).normal(mean, spread, games), 0.0).round()
    half = 1.96 * float(scores.std()) / math.sqrt(games)
    mean = float(scores.mean())
    return {
        "games": games,
        "mean": mean,
        "mean_low": mean - half,
        "mean_high": mean + half,
        "median": float(np.median(scores)),
        "iqm": mean - 0.1,
        "iqm_low": mean - half,
        "iqm_high": mean + half,
        "min": float(scores.min()),
        "max": float(scores.max()),
        "length_mean": 610.0,
        "cut_share": 0.0,
        "scores": scores.tolist(),
    }


def make_rows(config: dict, iterations: int = 98, target: float = 9.0) -> list[dict]:
    """Rows of metrics.jsonl for a run that learns up to a score of about `target`."""
    rng = np.random.default_rng(config["seed"])
    rows: list[dict] = [
        {
            "iteration": 0,
            "env_steps": 0,
            "baseline/random": 1.6,
            "baseline/random_low": 1.2,
            "baseline/random_high": 2.0,
            **{
                f"baseline/constant/{n}": s
                for n, s in zip(ACTION_NAMES, (0, 0, 2.6, 3.4), strict=True)
            },
        }
    ]
    for i in range(1, iterations + 1):
        share, steps = i / 98, i * 1024
        row = {
            "iteration": i,
            "env_steps": steps,
            "env_frames": steps * 4,
            "wall_seconds": 9.0 * i,
            "score/count": min(3 * i, 100),
            "speed/env_steps_per_second": float(rng.normal(130, 8)),
            "search/transition_entropy": float(
                0.9 * math.exp(-3 * share) + rng.normal(0, 0.02) + 0.08
            ),
            "search/value": share,
        }
        if i >= 2:
            row["score/mean"] = 1.6 + (target - 2) * share**1.5 + float(rng.normal(0, 0.15))
            row["episode/length_mean"] = 180 + 420 * share + float(rng.normal(0, 8))
        if i >= 3:
            row |= _learner(rng, share, i)
        row |= _macros(share, i)
        row |= {f"time/{name}": part * 9.0 * i for name, part in PHASE_SHARES.items()}
        if i % 20 == 0:
            mean = 1.6 + (target - 1.6) * share
            row |= {"eval/mean": mean, "eval/mean_low": mean - 1.1, "eval/mean_high": mean + 1.2}
            row |= check_entries(share)
        rows.append(row)
    return rows


def _learner(rng: np.random.Generator, share: float, i: int) -> dict:
    losses = {
        f"loss/{name}": start * (0.35 + 0.65 * math.exp(-4 * share)) + float(rng.normal(0, 0.08))
        for name, start in LOSSES.items()
    }
    return {
        "learner_steps": i * 51,
        "loss/total": sum(losses.values()),
        **losses,
        "learner/grad_norm": float(rng.lognormal(0.5, 0.4)),
        "learner/learning_rate": 1e-3,
        "model/code_perplexity": 1 + 9 * share,
        "model/agreement": 0.2 + 0.5 * share,
        "model/embedding_variance": 0.02 + 0.05 * share,
    }


SHARES = {"policy": 0.3, "value": 0.2, "reward": 0.1, "chance": 0.3, "code_entropy": 0.1}


def check_entries(share: float) -> dict:
    """A check of the model as in metrics.jsonl, with 3 unroll steps; `share` of the run is over."""
    row = {
        "check/code_perplexity": 1 + 8 * share,
        "check/agreement": 0.3 + 0.5 * share,
        "check/embedding_variance": 0.02 + 0.04 * share,
        "check/transition_entropy": 1 - 0.8 * share,
        "check/encoder_gradient": 0.02,
    }
    row |= {f"check/reward_error_{i}": (1.2 - share) * (i + 1) / 10 for i in range(3)}
    row |= {f"check/value_error_{i}": (1.2 - share) * (i + 1) for i in range(4)}
    row |= {f"check/consistency_{i}": share * (1 - i / 10) for i in range(3)}
    row |= {f"calibration/stored_{i}": share * (i + 1) / 10 for i in range(8)}
    row |= {f"calibration/real_{i}": share * (i + 2) / 10 for i in range(8)}
    row |= {"calibration/real_0": None}
    row |= {f"calibration/stored_by_spread_{i}": share * (i + 3) / 5 for i in range(4)}
    row |= {f"calibration/real_by_spread_{i}": share * (i + 4) / 5 for i in range(4)}
    histogram = np.exp(-((np.arange(20) / 20 - (1 - share)) ** 2) * 40)
    row |= {
        f"check/entropy_histogram_{i}": float(x) for i, x in enumerate(histogram / histogram.sum())
    }
    row |= {f"check/gradient_share/{name}": part for name, part in SHARES.items()}
    row |= {
        "check/precondition/windows": 4000.0,
        "check/precondition/precision": 0.5 + 0.4 * share,
        "check/precondition/recall": 0.4 + 0.5 * share,
        "check/precondition/bucket_precision": 0.6,
        "check/precondition/bucket_recall": 0.7,
        "check/precondition/always_precision": 0.5,
        "check/precondition/ece": 0.1 - 0.08 * share,
        "check/precondition/ece_raw": 0.2 - 0.1 * share,
    }
    return row | {"check/gradient_share/commitment": 0.0}


def add_rules(path: Path) -> dict:
    """Adds what a run of the grid world has; gives its grid.json: two states, three actions."""
    lines = []
    for row in map(json.loads, (path / "metrics.jsonl").read_text().splitlines()):
        if "check/agreement" in row:
            share = row["env_steps"] / 100_000
            row |= {
                "rules/roc_area": 0.5 + 0.5 * share,
                "rules/entropy_error": 1 - share,
                "rules/entropy_random": 1.0,
                "rules/entropy_certain": 1 - share,
            }
        lines.append(json.dumps(row) + "\n")
    (path / "metrics.jsonl").write_text("".join(lines))
    grid = {
        "roc_area": 0.987,
        "entropy_error": 0.123,
        "entropy_errors": [[0.1, 0.2, 9.0], [0.05, 0.4, 0.3]],
        "true_entropy": [[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]],
        "visits": [[5, 1, 0], [2, 3, 4]],
        "returns": {"optimum": 0.79, "random": -0.74},
    }
    (path / "grid.json").write_text(json.dumps(grid))
    return grid


def _macros(share: float, i: int) -> dict:
    play, tree = round(160 * share**2), round(420 * share**1.3)
    return {
        "macros/total": play + tree,
        "macros/play": play,
        "macros/tree": tree,
        "macros/candidates": round(90_000 * share**2),
        "macros/trees": i * 1024,
        "macros/trajectories": i * 32,
        "macros/transitions_tree": i * 10_000,
        "macros/transitions_play": i * 1024,
        "macros/certain_tree": round(i * 6000 * share),
        "macros/certain_play": round(i * 500 * share),
        "macros/certain_rate_tree": 0.62 * share**0.7,
        "macros/certain_rate_play": 0.45 * share,
        "macros/generality_mean": 1 + 3 * share,
        "macros/generality_max": round(1 + 40 * share),
        "macros/dropped": 0,
        "macros/refusals": 0.3 + 0.4 * (1 - share),
        "macros/refused_near": 0.9,
        "macros/refused_paid": 0.2,
        "macros/refused_agreed": 0.1,
        "macros/refused_ends": 0.05,
    }


def make_macros(seed: int, number: int = 120) -> list[dict]:
    """Distinct macros of 2 to 6 actions, the shorter ones seen more often."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], dict] = {}
    while len(found) < number:
        length = int(rng.integers(2, 7))
        actions = tuple(int(a) for a in rng.choice(4, size=length, p=(0.1, 0.1, 0.4, 0.4)))
        count = 3 + int(rng.exponential(9000 / length**3))
        played = int(count * rng.uniform(0, 0.3)) if rng.uniform() < 0.35 else 0
        entropy = float(rng.uniform(0.005, 0.19 if played else 0.38))
        status = ("candidate", "sound", "refuted")[count % 3] if count >= 25 else "candidate"
        held = {"candidate": 0.88, "sound": 0.95, "refuted": 0.4}[status]
        found[actions] = {
            "actions": list(actions),
            "names": " → ".join(ACTION_NAMES[a] for a in actions),
            "length": length,
            "count": count,
            "play_count": played,
            "mean_entropy": entropy,
            "total_reward": count * 0.01,
            "mean_reward": 0.01,
            "generality": min(1 + count // 40, 64),
            "buckets": list(range(min(1 + count // 40, 64))),
            "source": "play" if played else "tree",
            "deterministic": entropy < 0.1,
            "status": status,
            "windows": 1.25 * count,
            "certain": 0.8,
            "certain_low": 0.75,
            "trials": float(count),
            "effective": float(count),
            "p_value": 0.01,
            **dict.fromkeys(("held", "near", "paid", "agreed", "ends"), held),
            "held_low": held - 0.05,
            "held_high": held + 0.05,
            "slot": None,
            "precondition": None,
        }
    return list(found.values())


def make_summary(config: dict, score: float) -> dict:
    """A summary.json of a finished run with a final score of about `score`."""
    constant = {n: evaluation(s, 0.6) for n, s in zip(ACTION_NAMES, (0, 0, 2.6, 3.4), strict=True)}
    return {
        "experiment": config["experiment"],
        "name": f"seed{config['seed']}",
        "seed": config["seed"],
        "preset": "laptop",
        "finished": True,
        "env_steps": 98 * 1024,
        "env_frames": 98 * 4096,
        "learner_steps": 98 * 51,
        "seconds_total": 890.0,
        "seconds": {name: share * 890.0 for name, share in PHASE_SHARES.items()},
        "evaluation": evaluation(score, 3.0, seed=config["seed"]),
        "evaluation_sticky": evaluation(score * 0.8, 3.0, seed=config["seed"] + 1),
        "baselines": {"random": evaluation(1.6, 1.2, seed=5), "constant": constant},
        "macros": {"total": 120},
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "commit": "0123abc",
        "platform": "Linux, 2 cores",
    }


def write_run(
    path: Path,
    seed: int = 0,
    score: float = 9.0,
    iterations: int = 98,
    finished: bool = True,
    **config,
) -> Path:
    """Writes a run folder; unfinished ones have neither summary.json nor macros.json."""
    path.mkdir(parents=True)
    settings = {**CONFIG, "seed": seed, **config}
    (path / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    rows = make_rows(settings, iterations, score)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        (path / "summary.json").write_text(json.dumps(make_summary(settings, score)))
        macros = {
            "schema": 4,
            "action_names": ACTION_NAMES,
            "config": settings["macro"],
            "stats": {"transitions": 100_000, "certain": 60_000},
            "macros": make_macros(seed),
        }
        (path / "macros.json").write_text(json.dumps(macros))
    return path
