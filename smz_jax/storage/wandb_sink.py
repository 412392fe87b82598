"""A run's record at Weights & Biases: the rows of `metrics.jsonl`, figures, report and scores.

What is sent is read from the run's folder, by a process of its own beside the run
(`smz_jax.run.tracker`) or afterwards (`experiments.track`); so nothing of it can change a run, or
hold it up. `docs/tracking.md` says what arrives.
"""

import fcntl
import json
import os
import secrets
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from smz_jax.config.check import ConfigError
from smz_jax.storage.files import read_json, write_json
from smz_jax.storage.metrics import METRICS_FILE
from smz_jax.storage.run_dir import CONFIG_NAME, read_config

TRACK_FILE, TRACK_LOG = "track.json", "track.log"
PROJECT = "smz_jax"
"""W&B's project where `WANDB_PROJECT` names none."""
POLL_SECONDS = 1.0
"""Between two looks at the run's metrics."""
LAST_SECONDS = 600
"""That the process beside a run has for the rest, once the run is over."""
SCORES = ("evaluation", "evaluation_greedy", "evaluation_sticky")


def require_wandb(name: str) -> None:
    """Raises ConfigError in one line that begins with `name` if wandb is not installed."""
    try:
        version("wandb")
    except PackageNotFoundError:
        line = f"{name}: wandb is not installed: pip install '.[wandb]'"
        raise ConfigError(line) from None


class Sent(NamedTuple):
    """What `track.json` keeps: which run of W&B this is, and how much of it has gone there."""

    id: str  # of the run at W&B
    rows: int  # lines of metrics.jsonl
    ended: bool  # its end, with figures and report, too
    url: str | None  # of its page; None: offline


def read_sent(run_dir: Path) -> Sent:
    """What has been sent of a run; a new id, and nothing, where that is not known."""
    with suppress(ConfigError, KeyError, TypeError, ValueError):
        found = read_json(run_dir / TRACK_FILE)
        name, rows = found["id"], int(found["rows"])
        if isinstance(name, str) and name.isalnum() and len(name) <= 64 and rows >= 0:
            return Sent(name, rows, found["ended"] is True, found.get("url"))
    return Sent(secrets.token_hex(4), 0, False, None)


class RowReader:
    """Whole new rows of a `metrics.jsonl` that may be written, cut, or not yet there.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._offset, self._number = -1, 0, 0

    def new(self) -> list[tuple[int, dict[str, Any]]]:
        """The rows since the last call with the numbers of their lines, from 1 on.

        They begin again at 1 where the file is another one: a resumed run has cut it.
        """
        try:
            file = open(self._path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return []
        with file:
            about = os.fstat(file.fileno())
            if about.st_ino != self._inode or about.st_size < self._offset:
                self._inode, self._offset, self._number = about.st_ino, 0, 0
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.split(b"\n")[:-1]:
            self._number += 1
            with suppress(ValueError):
                found.append((self._number, dict(json.loads(line))))
        return found


def place(run_dir: Path) -> dict[str, str | None]:
    """W&B's name, group and job type of a run: sweep and variant, where it is a run of a sweep."""
    variant, sweep = run_dir.parent, run_dir.parent.parent
    marks = (run_dir.with_suffix(".json"), sweep / "sweep.json")
    if any(x.is_file() for x in marks):
        name, group = f"{variant.name}-{run_dir.name}", sweep.name
        return {"name": name, "group": group, "job_type": variant.name}
    return {"name": run_dir.name, "group": None, "job_type": None}


class WandbSink:
    """One run of W&B: continues where `track.json` says, and keeps that up to date.

    Args:
        run_dir: folder of the run, with its `config.yaml`.

    Raises:
        ConfigError: if the folder holds no settings of a run.
        Exception: whatever wandb raises, here and below.
    """

    def __init__(self, run_dir: Path) -> None:
        import wandb  # of a second, and optional

        self._wandb, self._dir, self.sent = wandb, run_dir, read_sent(run_dir)
        config = read_config(run_dir)
        of = place(run_dir.resolve())
        # Not what this process prints and uses, which says nothing of the run.
        quiet = {"console": "off", "silent": True, "x_disable_stats": True}
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=self.sent.id,
            resume="allow",
            dir=str(run_dir),
            name=os.environ.get("WANDB_NAME") or of["name"],
            group=os.environ.get("WANDB_RUN_GROUP") or of["group"],
            job_type=os.environ.get("WANDB_JOB_TYPE") or of["job_type"],
            tags=[config.experiment],
            config=asdict(config),
            settings=wandb.Settings(**quiet, disable_code=True, disable_git=True),
        )
        self._run.define_metric("*", step_metric="env_steps")
        self.sent = self.sent._replace(ended=False, url=self._run.url)
        self._keep()

    def write(self, rows: list[tuple[int, dict[str, Any]]]) -> None:
        """Sends what is new of numbered rows; an entry that is null is left out."""
        new = [(number, row) for number, row in rows if number > self.sent.rows]
        for number, row in new:
            self._run.log({name: x for name, x in row.items() if x is not None})
            self.sent = self.sent._replace(rows=number)
        if new:
            self._keep()

    def end(self, code: int) -> int:
        """Sends figures, report and final scores, and ends the run with an exit code.

        Returns:
            The number of figures.
        """
        figures = sorted((self._dir / "figures").glob("*.png"))
        shown: dict[str, Any] = {
            f"figures/{path.stem}": self._wandb.Image(str(path)) for path in figures
        }
        page = self._dir / "report.html"
        if page.is_file():
            shown["report"] = self._wandb.Html(page.read_text("utf-8"), inject=False)
        if shown:
            self._run.log(shown)
        self._run.summary.update(final_scores(self._dir))
        self._run.finish(exit_code=code)
        self.sent = self.sent._replace(ended=True)
        self._keep()
        return len(figures)

    def _keep(self) -> None:
        write_json(self._dir / TRACK_FILE, {"service": "wandb", **self.sent._asdict()})


def final_scores(run_dir: Path) -> dict[str, Any]:
    """The end of a run as `summary.json` has it, without single games; empty before its end."""
    summary: Mapping[str, Any] = {}
    with suppress(ConfigError):
        summary = read_json(run_dir / "summary.json")
    found = {
        f"final/{name}/{key}": x
        for name in SCORES
        for key, x in (summary.get(name) or {}).items()
        if isinstance(x, (int, float))
    }
    plain = ("preset", "finished", "env_steps", "learner_steps", "seconds_total", "commit")
    return found | {f"final/{x}": summary[x] for x in plain if summary.get(x) is not None}


@contextmanager
def sending(run_dir: Path) -> Iterator[int]:
    """Holds `track.log`, so that one process at a time sends a run; gives its descriptor.

    Raises:
        ConfigError: in one line, if another process does.
        OSError: if the file cannot be written.
    """
    with open(run_dir / TRACK_LOG, "ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{run_dir} is being sent by another process") from None
        yield log.fileno()


def follow(run_dir: Path, ended: Callable[[], int | None]) -> None:
    """Mirrors a run while it goes, from its first row on.

    Args:
        run_dir: its folder.
        ended: waits a little; gives the run's exit code once it is over, else None.
    """
    reader, sink, code, rows = RowReader(run_dir / METRICS_FILE), None, None, []
    while code is None and not rows:  # a start that comes to nothing leaves nothing
        code, rows = ended(), reader.new()
    if not rows:
        return
    with sending(run_dir) as log:
        os.dup2(log, 1)
        os.dup2(log, 2)
        sink = WandbSink(run_dir)
        sink.write(rows)
        while code is None:
            code = ended()
            sink.write(reader.new())
        sink.end(code)


def main() -> NoReturn:
    """The process beside a run, whose folder is its working directory; see `smz_jax.run.tracker`.

    The run says its exit code on stdin when it is over. One that is killed closes it without.
    """
    parent, text = os.getppid(), b""
    os.nice(10)

    def ended() -> int | None:
        nonlocal text
        if select.select([0], [], [], POLL_SECONDS)[0]:
            if more := os.read(0, 100):
                text += more
                return None
        elif os.getppid() == parent:
            return None
        signal.alarm(LAST_SECONDS)
        return int(text or b"1")

    # By this name wandb too finds the folder, and makes no other, when it is renamed meanwhile.
    here, code = Path(f"/proc/{os.getpid()}/cwd"), 0
    try:
        follow(here if here.is_dir() else Path.cwd(), ended)
    except BaseException as error:  # whatever it was: the last line of track.log
        reason = " ".join(str(error).split())
        print(f"{time.strftime('%F %T')} {type(error).__name__}: {reason}", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what wandb still waits for at an exit is not waited for


def send_again(run_dir: Path, *, anew: bool = False) -> str:
    """Sends a run that is over, or what is missing of it; gives a line for the user.

    Args:
        run_dir: its folder.
        anew: as another run of W&B, from its first row on.

    Raises:
        ConfigError: in one line, if the folder holds no run, or another process sends it.
        OSError: if it cannot be written.
        Exception: whatever wandb raises.
    """
    read_config(run_dir)
    rows = RowReader(run_dir / METRICS_FILE).new()
    if not rows:
        raise ConfigError(f"{run_dir} holds {CONFIG_NAME} but no rows in {METRICS_FILE}")
    with sending(run_dir):
        if anew:
            (run_dir / TRACK_FILE).unlink(missing_ok=True)
        before = read_sent(run_dir)
        if before.ended and before.rows >= len(rows):
            return f"{run_dir}: all of it had been sent before ({before.url or 'offline'})"
        sink = WandbSink(run_dir)
        sink.write(rows)
        finished = final_scores(run_dir).get("final/finished")
        figures = sink.end(0 if finished else 1)
    where = sink.sent.url or f"{run_dir / 'wandb'}, for `wandb sync`"
    return f"{run_dir}: {sink.sent.rows - before.rows} rows, {figures} figures to {where}"
