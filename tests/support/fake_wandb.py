"""A package `wandb` that keeps what it is given, or misbehaves: for tests of what follows a run.

`FAKE_WANDB` says how: record; or raise, hang, die, in one of init, log, finish (`hang_log`).
"""

import json
import os
import sys
import time
from pathlib import Path


def install(folder: Path, how: str = "record") -> dict[str, str]:
    """Puts the fake into a folder for `sys.path`; gives environment variables for its user."""
    (folder / "wandb").mkdir(parents=True, exist_ok=True)
    (folder / "wandb" / "__init__.py").write_text(Path(__file__).read_text("utf-8"), "utf-8")
    about = folder / "wandb-99.0.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 99.0\n")
    return {"FAKE_WANDB": how, "FAKE_WANDB_OUT": str(folder / "calls.jsonl")}


def calls(folder: Path) -> list[tuple[str, dict]]:
    """What the fake in a folder was called with: names and arguments."""
    path = folder / "calls.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [(name, arguments) for name, arguments in map(json.loads, lines)]


def _note(called: str, /, **arguments) -> None:
    how = os.environ["FAKE_WANDB"]
    with open(os.environ["FAKE_WANDB_OUT"], "a", encoding="utf-8") as out:
        out.write(json.dumps([called, arguments], default=str) + "\n")
    if how == f"raise_{called}":
        raise RuntimeError(f"no {called}\ntoday")
    if how == f"hang_{called}":
        time.sleep(600)
    if how == f"die_{called}":
        os.kill(os.getpid(), 9)


class Image(str):
    """Of a path."""


def Html(text: str, inject: bool = True) -> str:
    """Of a page."""
    return f"page of {len(text)} characters"


def Settings(**settings):
    """Settings as they are."""
    return settings


class Run:
    """A run that notes its calls."""

    url = "https://wandb.invalid/runs/1"

    def define_metric(self, name, step_metric):
        _note("define_metric", name=name, step_metric=step_metric)

    def log(self, values):
        _note("log", values=values)

    @property
    def summary(self):
        return self

    def update(self, values):
        _note("summary", values=values)

    def finish(self, exit_code):
        _note("finish", exit_code=exit_code)


def init(**arguments):
    """A run."""
    _note("init", **arguments)
    print("wandb: noise", file=sys.stderr)
    return Run()
