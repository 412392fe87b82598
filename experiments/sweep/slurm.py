"""A sweep as an array job of Slurm: one script, a task for each run that is left."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.sweep.engines import ONE_THREAD, is_pinned
from experiments.sweep.jobs import Job
from smz_jax.config.check import ConfigError
from smz_jax.storage.files import atomic_write_text

SCRIPT = "sweep.sbatch"
SECONDS_TO_SAVE = 120
"""Before its time is over a run gets SIGTERM; it saves, and its task is queued again."""
SUBMIT_SECONDS = 60.0
_HEAD = """\
#!/bin/bash
# A sweep of experiments.sweep: each task is one run. Written by: {command}
# What else this cluster wants (partition, account, time) goes before {script}:
#   sbatch --partition=gpu --time=04:00:00 {script}
#SBATCH --job-name={name}
#SBATCH --array=0-{last}{limit}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cores}{gpus}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@{seconds}
set -u
cd {root} || exit 1
"""
_TASK = """
run() {{ # FOLDER LOG COMMAND...: continues what its folder holds, begins it otherwise
    local folder=$1 log=$2 code
    shift 2
    mkdir -p "$(dirname "$folder")"
    if [ -e "$folder/config.yaml" ]; then set -- "$@" --resume; fi
    "$@" >>"$log" 2>&1 &
    local child=$!
    trap 'kill -TERM "$child" 2>/dev/null' TERM
    wait "$child"
    code=$?
    while kill -0 "$child" 2>/dev/null; do # the wait ended by the signal, not by the run
        wait "$child"
        code=$?
    done
    if [ "$code" = 143 ] && [ -n "${{SLURM_JOB_ID:-}}" ]; then
        scontrol requeue "${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
    fi
    return "$code"
}}
case "$SLURM_ARRAY_TASK_ID" in
{cases}
*) echo "no run $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;
esac
"""


def write_script(jobs: Sequence[Job], folder: Path, name: str, most: int | None) -> Path:
    """Writes the script of what is left to do, into the folder of the sweep; gives its path.

    Args:
        jobs: of the sweep; finished ones get no task.
        folder: of the sweep, on storage that all nodes see.
        name: of the sweep.
        most: runs at a time; None: as Slurm likes.
    """
    left = [(job, words) for job in jobs if (words := job.command()) is not None]
    folder, preset = folder.absolute(), jobs[0].preset
    cases = []
    for number, (job, words) in enumerate(left):
        words = [word for word in words if word != "--resume"]  # the script looks when it runs
        paths = [str(job.run_dir), str(job.log)]
        cases.append(f"{number}) run {shlex.join([*paths, *words])} ;;")
    settings = {"PYTHONPATH": os.environ.get("PYTHONPATH"), "JAX_PLATFORMS": None}
    settings |= {"SMZ_COMPILE_CACHE": os.environ.get("SMZ_COMPILE_CACHE"), "XLA_FLAGS": None}
    cores = max((job.cores for job, _ in left), default=1)
    if is_pinned(preset):
        settings |= {"JAX_PLATFORMS": "cpu"} | ({"XLA_FLAGS": ONE_THREAD} if cores == 1 else {})
    text = _HEAD.format(
        command=shlex.join(["python", "-m", "experiments.sweep", *sys.argv[1:]]).replace("\n", " "),
        script=SCRIPT,
        name=name,
        last=max(len(left) - 1, 0),
        limit=f"%{most}" if most else "",
        cores=cores,
        gpus="\n#SBATCH --gres=gpu:1" if preset == "gpu" else "",
        log=str(folder / "slurm-%A_%a.log").replace(" ", "\\ "),
        seconds=SECONDS_TO_SAVE,
        root=shlex.quote(os.getcwd()),
    )
    given = [f"export {key}={shlex.quote(x)}" for key, x in settings.items() if x]
    atomic_write_text(
        folder / SCRIPT, text + "\n".join(given) + _TASK.format(cases="\n".join(cases))
    )
    return folder / SCRIPT


def submit(script: Path) -> str:
    """Hands a script to `sbatch`; gives what that prints.

    Raises:
        ConfigError: in one line, if there is no sbatch, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError(f"no sbatch on this machine: {script} is written, submit it where it is")
    command = ["sbatch", "--parsable", str(script)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SUBMIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"sbatch did not answer within {SUBMIT_SECONDS:.0f} seconds") from None
    if done.returncode:
        raise ConfigError(f"sbatch refused {script}: {' '.join(done.stderr.split())[:300]}")
    return done.stdout.strip()
