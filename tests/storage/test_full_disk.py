"""A full disk: what was saved is whole, it is said, and the run goes on or ends in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from smz_jax.storage.checkpoint import CheckpointStore

ROOT = Path(__file__).resolve().parents[2]
SAID = "a checkpoint could not be written"
TMPFS = ("unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && "$@"')
"""A file system of a limited size for one process, without being root."""


def run(*words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600
    )


def train(folder, *words):
    return [sys.executable, "-m", "tests.support.full_disk", str(folder), *words]


@pytest.mark.slow
def test_saves_fail_for_a_while_and_the_training_goes_on(tmp_path):
    """No file may grow as large as a checkpoint's; the metrics still can."""
    done = run(*train(tmp_path, "limit", "3", "7"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(SAID) >= 3 and "finished True, saved True" in done.stdout
    store = CheckpointStore(tmp_path)
    assert store.newest_good("last")[0] == 320 and store.newest_good("best")[2] == []
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.tmp"))


def test_no_room_for_anything_ends_the_run_in_one_line(tmp_path):
    if run(*TMPFS[:2], "true").returncode:
        pytest.skip("this machine lets nobody mount a file system of their own")
    # Filled up, read while it is mounted, then gone on with once there is room.
    inner = f"""
        {" ".join(train(tmp_path, "tmpfs", "3", "99"))}; echo code $?
        {" ".join(train(tmp_path, "tmpfs", "99", "99", "resume"))}
    """
    done = run(*TMPFS, "tmpfs", "40m", str(tmp_path), "sh", "-c", inner)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and "No space left on device" in errors[0], done.stderr
    # (A save under way at that moment leaves lines of Orbax's own around it.)
    assert "code 1" in done.stdout and "finished True, saved True" in done.stdout
    whole = re.search(r"whole \((\d+), \[\]\)", done.stdout)
    assert whole and int(whole[1]) >= 32  # which save was the last that found room varies
    assert f"resumed at {whole[1]} " in done.stdout
