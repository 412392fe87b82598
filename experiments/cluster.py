"""`python -m experiments.cluster EXPERIMENT --processes N [flags]`: one run over a Ray cluster.

Each of the run's processes is a task with cores of its own (and GPUs), on any node; the nodes see
this folder and the run's. Flags of this command come before the name of the experiment, all that
follow it are those of `python -m experiments.EXPERIMENT`. The first process prints here, the others
into --logs. Ctrl-C stops all, with a checkpoint saved.
"""

import dataclasses
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from smz_jax.config.check import Between, Checked, ConfigError, require
from smz_jax.config.cli import parse, read_request
from smz_jax.config.process import command_names, run_main
from smz_jax.run.joining import COORDINATOR, PROCESS_ID, free_port

PLACE_SECONDS = 60.0
"""That a cluster has to make room for all processes in."""
POLL_SECONDS = 0.5
KEPT = ("SMZ_COMPILE_CACHE", "PYTHONPATH", "XLA_FLAGS", "JAX_PLATFORMS")
"""Variables that go with the command."""


@dataclass(frozen=True)
class ClusterRequest(Checked):
    """Where the processes of a run go."""

    address: str = "auto"
    """auto: the cluster of this machine; HOST:PORT; or local: one of this machine's own cores."""
    cores: Annotated[int, Between(1, 1024)] = 1
    """Cores of each process."""
    gpus: Annotated[int, Between(0, 64)] = 0
    """GPUs of each process; as many as --devices."""
    logs: Path = Path("runs/cluster")
    """Folder that all nodes see, where process-0.log and so on are written."""


def split(argv: list[str]) -> tuple[ClusterRequest, str, list[str]]:
    """The request, the name of the experiment and its own words.

    Raises:
        ConfigError: in one line, if they do not fit.
    """
    names = {f"--{field.name}" for field in dataclasses.fields(ClusterRequest)}
    at = 0
    while at < len(argv) and argv[at].partition("=")[0] in names:
        at += 1 if "=" in argv[at] else 2
    at += at < len(argv) and argv[at].startswith("-")  # --help, or one that is refused here
    request = read_request(ClusterRequest, argv[:at], __doc__ or "")
    known = command_names(Path(__file__).parent)
    name = argv[at] if at < len(argv) else ""
    require(name in known, "EXPERIMENT", name or None, "a command of experiments/")
    return request, name, argv[at + 1 :]


def main() -> int:
    """Sends the processes to the cluster and waits; gives the exit code of the first that fails."""
    request, name, flags = split(sys.argv[1:])
    experiment: Any = getattr(importlib.import_module(f"experiments.{name}"), "EXPERIMENT", None)
    require(experiment is not None, "EXPERIMENT", name, "one that trains")
    count = parse(flags, experiment).config.processes
    words = ["-m", f"experiments.{name}", *flags]
    from experiments.sweep.ray_engine import connect  # heavy, and the flags are checked

    ray = connect(request.address, count * request.cores)
    group = reserve(ray, request, count)
    given = {name: os.environ[name] for name in KEPT if name in os.environ}

    def placed(function: Any, index: int) -> Any:
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        return ray.remote(function).options(
            name=f"process-{index}",
            num_cpus=request.cores,
            num_gpus=request.gpus,
            max_retries=0,  # it would come back to a run that ended with it
            scheduling_strategy=strategies.PlacementGroupSchedulingStrategy(group, index),
        )

    if count > 1:
        given[COORDINATOR] = ray.get(placed(meeting_point, 0).remote())
    logs = request.logs.absolute()
    logs.mkdir(parents=True, exist_ok=True)
    tasks = [
        placed(run_process, i).remote(
            words, {**given, PROCESS_ID: str(i)}, os.getcwd(), logs / f"process-{i}.log"
        )
        for i in range(count)
    ]
    return follow(ray, tasks, logs)


def reserve(ray: Any, request: ClusterRequest, count: int) -> Any:
    """Room for all processes at once; raises ConfigError in one line if there is none."""
    placement = importlib.import_module("ray.util.placement_group")
    bundle = {"CPU": request.cores} | ({"GPU": request.gpus} if request.gpus else {})
    group = placement.placement_group([bundle] * count, strategy="SPREAD")
    if not group.wait(PLACE_SECONDS):
        raise ConfigError(
            f"the cluster has no room for {count} x {bundle} within {PLACE_SECONDS:.0f} seconds"
        )
    return group


def meeting_point() -> str:
    """On the node of the first process: an address that the others reach it by."""
    host = importlib.import_module("ray").util.get_node_ip_address()
    return f"{host}:{free_port('')}"


def run_process(words: list[str], given: Mapping[str, str], root: str, log: Path) -> int:
    """On a node: one process of the run, to its end; gives its exit code.

    A cancelled task's process gets SIGTERM, and saves with the others.
    """
    from experiments.sweep.ray_engine import run_command

    with open(log, "wb") as file:
        return run_command([sys.executable, *words], given, root, file)


def follow(ray: Any, tasks: list[Any], logs: Path) -> int:
    """Prints what the first process prints until all have ended; the first exit code but 0."""
    left, codes, shown = list(tasks), {}, 0
    while left:
        try:
            done, left = ray.wait(left, num_returns=len(left), timeout=POLL_SECONDS)
            for task in done:
                codes[tasks.index(task)] = ray.get(task)
        except KeyboardInterrupt:
            ray.cancel(tasks[0])  # who tells the others
        except ray.exceptions.RayError as error:
            line = f"a process was lost ({str(error).splitlines()[0][:120]}); go on with --resume"
            raise ConfigError(line) from None
        log = logs / "process-0.log"
        text = log.read_bytes() if log.is_file() else b""
        sys.stdout.write(text[shown:].decode(errors="replace"))
        sys.stdout.flush()
        shown = len(text)
    failed = {index: code for index, code in sorted(codes.items()) if code}
    for index in failed if 0 not in failed else ():
        lines = (logs / f"process-{index}.log").read_text(errors="replace").splitlines()
        print(f"process {index}: {lines[-1] if lines else failed[index]}", file=sys.stderr)
    return next(iter(failed.values()), 0)


if __name__ == "__main__":
    run_main(main)
