"""The process beside a run that mirrors it to Weights & Biases: its start, and its end.

It reads what the run writes (`smz_jax.storage.wandb_sink`). The run waits for it once, at its own
end and for a limited time; whatever happens to it is a line for the user.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal

from smz_jax.config.check import ConfigError, require
from smz_jax.config.cli import Invocation
from smz_jax.storage.wandb_sink import TRACK_FILE, TRACK_LOG, require_wandb

WAIT_VARIABLE, WAIT_SECONDS = "SMZ_TRACK_SECONDS", 60.0
"""How long the end of a run waits for what is still to be sent."""
STOPPED_SECONDS = 5.0
"""The same after a signal, whose sender may not wait."""
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from smz_jax.storage.wandb_sink import main; main()"
)


def chosen_service(invocation: Invocation) -> Literal["wandb"] | None:
    """What a run is mirrored to: as `--track` says; unset, as before where it is resumed.

    Raises:
        ConfigError: in one line, if it was named and is not installed.
    """
    named, run_dir = invocation.request.track, invocation.run_dir
    if named == "wandb":
        seconds_to_wait()
        require_wandb("track = 'wandb'")
        return "wandb"
    if named is None and invocation.resume and run_dir and (run_dir / TRACK_FILE).exists():
        try:
            require_wandb(f"the run is not mirrored to W&B as before ({TRACK_FILE})")
        except ConfigError as error:
            print(error, file=sys.stderr)
        else:
            return "wandb"
    return None


def seconds_to_wait() -> float:
    """How long the end of a run waits; raises ConfigError where the variable is no number."""
    text = os.environ.get(WAIT_VARIABLE, str(WAIT_SECONDS))
    with suppress(ValueError):
        if 0 <= float(text) < 1e6:
            return float(text)
    require(False, WAIT_VARIABLE, text, "a number of seconds")
    return WAIT_SECONDS


class Tracker:
    """Mirrors the run of a folder, within a `with` block; never raises, never waits for long.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._dir, self._watch, self._over = run_dir, None, threading.Event()

    def __enter__(self) -> "Tracker":
        """Starts the process, in the run's folder and out of reach of the terminal's Ctrl-C."""
        path = [os.path.abspath(x) for x in sys.path]
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CODE, json.dumps(path)],
                cwd=self._dir,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._tell(str(error))
            return self
        self._watch = threading.Thread(target=self._wait, daemon=True)
        self._watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Lets the process end by itself, with the run as one that failed, unless it was ended."""
        self._close(b"")

    def end(self, code: int) -> None:
        """Says that the run is over, and its exit code; waits for what is still to be sent."""
        limit = min(STOPPED_SECONDS, seconds_to_wait()) if code > 128 else seconds_to_wait()
        self._close(b"%d" % code)
        if self._watch is None or self.process is None:
            return
        self._watch.join(min(limit, 1.0))
        if self._watch.is_alive() and limit > 1:
            print(f"W&B: sending the rest, for at most {limit:g} s", flush=True)
            self._watch.join(limit - 1.0)
        if self._watch.is_alive():
            print(
                f"W&B: still sending; process {self.process.pid} goes on by itself. What is "
                f"missing then is sent by `python -m experiments.track {self._dir}`",
                file=sys.stderr,
            )
        self._over.set()

    def _close(self, last: bytes) -> None:
        if self.process and self.process.stdin and not self.process.stdin.closed:
            with suppress(OSError):  # it has ended
                self.process.stdin.write(last)
                self.process.stdin.flush()
            with suppress(OSError):
                self.process.stdin.close()

    def _wait(self) -> None:
        """Waits for the process beside the run, and tells if it failed."""
        code = self.process.wait() if self.process else 0
        if code and not self._over.is_set():
            lines: list[str] = []
            with suppress(OSError):
                lines = (self._dir / TRACK_LOG).read_text("utf-8", "replace").split("\n")
            reason = next((x for x in reversed(lines) if x.strip()), "") if code == 1 else ""
            self._tell(reason or f"its process ended with code {code}")

    def _tell(self, reason: str) -> None:
        """One line for the user: the run goes on."""
        print(
            f"W&B: the run is not mirrored from here on: {reason[:200]}. The run goes on; "
            f"afterwards `python -m experiments.track {self._dir}` sends it",
            file=sys.stderr,
        )
