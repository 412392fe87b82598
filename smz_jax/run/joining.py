"""How the processes of one run are started and joined, and how they end (`docs/devices.md`)."""

import contextlib
import itertools
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from smz_jax.config.check import ConfigError, require
from smz_jax.config.cli import Invocation
from smz_jax.run.devices import prepare_jax
from smz_jax.run.processes import gather, stop_waiting

JOIN_SECONDS = 120
"""That processes wait for each other at the start."""
BEAT_SECONDS, SILENCE_SECONDS = 2.0, 20.0
"""How often processes of several machines say that they are there; after so long a silence one
counts as dead. Of those of this machine that is seen at once, and all may be suspended."""
LEAVE_SECONDS = 10
"""That processes wait for each other at the end."""
POLL_SECONDS = 0.2
COORDINATOR, PROCESS_ID = "JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID"
PARENT = "SMZ_PARENT"
"""Of a process that another one started: number of that one."""
LAUNCHED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
"""Where launchers that JAX knows say how many processes they started: Slurm's `srun`, Open MPI."""


@contextlib.contextmanager
def joined(invocation: Invocation) -> Iterator[None]:
    """Starts JAX as a run needs it, and starts or joins the processes of the run.

    These are the tasks of a launcher that JAX knows, those that `--coordinator` brings together, or
    copies of this command on this machine: spawned, each on its own share of the cores.

    Raises:
        ConfigError: in one line, if they cannot be joined.
    """
    count, request = invocation.config.processes, invocation.request
    fast = invocation.preset == "tiny"
    coordinator = request.coordinator or os.environ.get(COORDINATOR)
    if count == 1:
        require(not request.coordinator, "coordinator", coordinator, "left out with one process")
        require(request.process_id is None, "process_id", request.process_id, "left out likewise")
        prepare_jax(fast)
        yield
        return
    launched = next((os.environ[name] for name in LAUNCHED if os.environ.get(name)), None)
    with contextlib.ExitStack() as stack:
        if coordinator:
            index = request.process_id
            named = os.environ.get(PROCESS_ID, "")
            index = int(named) if index is None and named.isdecimal() else index
            allowed = f"0 to {count - 1} with a coordinator: which of the processes this one is"
            require(index is not None and 0 <= index < count, "process_id", index, allowed)
            _join(coordinator, count, index)
            if PARENT in os.environ:
                _end_with(int(os.environ[PARENT]))
            else:
                stack.enter_context(_listening())
        elif launched and launched != "1":
            allowed = f"{launched}, as many as were launched"
            require(launched == str(count), "processes", count, allowed)
            _join(None, count, None)
            stack.enter_context(_listening())
        else:
            address, helpers = f"127.0.0.1:{free_port('127.0.0.1')}", []
            stack.enter_context(_spawned(invocation, address, helpers))
            _join(address, count, 0)
        prepare_jax(fast)
        _connect()
        stack.callback(stop_waiting)  # before the others are ended
        yield
        gather("the end")
        import jax

        jax.distributed.shutdown()


def free_port(host: str) -> int:
    """A port that is free now, of the host's address; of any of this machine's if that is empty."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _join(coordinator: str | None, count: int, index: int | None) -> None:
    """Has JAX join the processes, and lets the first alone write to stdout.

    Raises:
        ConfigError: in one line, if the address cannot be used or processes do not come.
    """
    import jax
    from jax._src.distributed import global_state

    given: dict[str, Any] = {}
    if coordinator:
        host, _, port = coordinator.rpartition(":")
        fits = bool(host) and port.isdecimal() and 0 < int(port) < 2**16
        require(fits, "coordinator", coordinator, "HOST:PORT of the first process")
        if index == 0:
            given["coordinator_bind_address"] = _free_address(coordinator, host, int(port))
        given |= {"num_processes": count, "process_id": index}
        given |= {"coordinator_address": coordinator, "cluster_detection_method": "deactivate"}
    jax.config.update("jax_enable_preemption_service", False)  # it swallows SIGTERM
    timer = threading.Timer(JOIN_SECONDS, _give_up, [count, coordinator])
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            initialization_timeout=2 * JOIN_SECONDS,  # it would abort, in many lines
            heartbeat_timeout_seconds=10**6,  # JAX would end processes in many lines
            shutdown_timeout_seconds=LEAVE_SECONDS,
            **given,
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{count} processes cannot be joined: {reason}") from None
    finally:
        timer.cancel()
    if global_state.process_id:
        sys.stdout.flush()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)


def _give_up(count: int, coordinator: str | None) -> None:
    """Ends this process in one line, since others do not come."""
    where = f" at {coordinator}" if coordinator else ""
    line = f"{count} processes did not come together{where} within {JOIN_SECONDS} seconds"
    print(f"error: {line}", file=sys.stderr, flush=True)
    os._exit(2)


def _free_address(coordinator: str, host: str, port: int) -> str:
    """Where the first process listens; raises ConfigError in one line where it cannot."""
    is_local = host in ("127.0.0.1", "localhost")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1" if is_local else "", port))
        except OSError as error:
            allowed = f"HOST:PORT with a free port of the first process ({error.strerror})"
            raise ConfigError(
                f"coordinator = {coordinator!r} is not allowed: it must be {allowed}"
            ) from None
    return f"127.0.0.1:{port}" if is_local else f"[::]:{port}"


def _connect() -> None:
    """Exchanges one number, when all are there: at the first exchange Gloo waits for 30 s only."""
    import jax
    from jax._src.distributed import global_state
    from jax.experimental import multihost_utils

    gather("joined")
    with _silenced():
        multihost_utils.process_allgather(jax.numpy.zeros(()))
    if jax.default_backend() == "cpu":
        # JAX keeps the first one's programs for the next start; on CPUs each process has its own.
        global_state.process_id = 0
        yield_to_computation()


def yield_to_computation() -> None:
    """Gives threads of this process that wait for sockets the lowest priority, where that is known.

    Gloo's asks without a pause while an exchange is under way. On the core of the thread that
    computes an exchange of a few numbers took 3.6 ms so, a turn of the scheduler, in place of 0.16.
    """
    for _ in range(5):  # one that is just awake is not seen
        for thread in Path("/proc/self/task").glob("*"):
            with contextlib.suppress(OSError):  # it ended, or the system does not tell
                where = (thread / "wchan").read_text()
                if "epoll" in where or where == "ep_poll":
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)
        time.sleep(0.02)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Drops what libraries in C print meanwhile."""
    sys.stdout.flush()
    sys.stderr.flush()
    former = [(number, os.dup(number)) for number in (1, 2)]
    try:
        with open(os.devnull, "wb") as nowhere:
            for number, _ in former:
                os.dup2(nowhere.fileno(), number)
        yield
    finally:
        for number, kept in former:
            os.dup2(kept, number)
            os.close(kept)


def shares(cores: list[int], count: int) -> list[list[int]]:
    """The cores of each process: as even as can be; if there are fewer, processes share them."""
    if len(cores) < count:
        return [[cores[i % len(cores)]] for i in range(count)]
    cuts = [i * len(cores) // count for i in range(count + 1)]
    return [cores[low:high] for low, high in itertools.pairwise(cuts)]


class Helper:
    """A process that this one started: the `index`-th of the run."""

    def __init__(self, index: int, words: list[str], cores: list[int]) -> None:
        self.index = index
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as it lives
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env={**os.environ, PARENT: str(os.getpid())},
            start_new_session=True,  # Ctrl-C is for the first process, who tells the others
        )
        if cores:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self.process.pid, cores)

    def fate(self) -> str | None:
        """How it failed, in one line; None: it has not."""
        code = self.process.poll()
        if not code:
            return None
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        reason = f": {lines[-1].removeprefix('error: ')[:200]}" if lines and code > 0 else ""
        return f"process {self.index} {how}{reason}"


@contextlib.contextmanager
def _spawned(invocation: Invocation, address: str, helpers: list[Helper]) -> Iterator[None]:
    """Starts the other processes; ends them at the end, and this one where one of them dies."""
    allowed = "1 where a run is called from Python"
    require(bool(invocation.words), "processes", invocation.config.processes, allowed)
    command = [sys.executable, *shlex.split(invocation.command)[1:], "--coordinator", address]
    can_pin = hasattr(os, "sched_setaffinity")
    cores = sorted(os.sched_getaffinity(0)) if can_pin else []
    own = shares(cores, invocation.config.processes) if can_pin else []
    try:
        for index in range(1, invocation.config.processes):
            words = [*command, "--process_id", str(index)]
            helpers.append(Helper(index, words, own[index] if can_pin else []))
        if can_pin:
            os.sched_setaffinity(0, own[0])
        with _watched(lambda: _fates(helpers), POLL_SECONDS, patience=5.0):
            yield
    finally:
        for helper in helpers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if sys.exc_info()[0] is None:
                    helper.process.wait(LEAVE_SECONDS)
            helper.process.kill()
            helper.process.wait()
        if can_pin:
            os.sched_setaffinity(0, cores)


def _fates(helpers: list[Helper]) -> str | None:
    """How the first one failed; the others are ended then. None: none did."""
    found = next((fate for helper in helpers if (fate := helper.fate())), None)
    for helper in helpers if found else ():
        helper.process.kill()
    return found


@contextlib.contextmanager
def _watched(fault: Callable[[], str | None], every: float, patience: float) -> Iterator[None]:
    """Ends this process in one line when `fault` says that another one died.

    An error waits for so many seconds whether it comes of that.
    """
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(every):
            if found := fault():
                kept = "go on with --resume: the last good checkpoint is kept"
                line = f"error: {found}, and the run with it; {kept}"
                print(line, file=sys.stderr, flush=True)
                os._exit(1)  # the main thread may wait for who is dead

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except Exception as error:
        if not isinstance(error, ConfigError):  # an exchange with one that died, which it names
            thread.join(patience)
        raise
    finally:
        is_over.set()


def _listening() -> contextlib.AbstractContextManager[None]:
    """Watches for a process that says no more that it is there, as this one does meanwhile."""
    import jax
    from jax._src.distributed import global_state

    client: Any = global_state.client
    own, count = global_state.process_id, global_state.num_processes
    heard, since = [""] * count, [time.monotonic()] * count

    def beat() -> str | None:
        try:
            client.key_value_set(f"smz/there/{own}", repr(time.time()), allow_overwrite=True)
            said = dict(client.key_value_dir_get("smz/there/"))
        except jax.errors.JaxRuntimeError:
            return "process 0 is gone"
        now = time.monotonic()
        for one in range(count):
            if (word := said.get(f"smz/there/{one}", "")) != heard[one]:
                heard[one], since[one] = word, now
            elif now - since[one] > SILENCE_SECONDS:
                return f"process {one} was not heard of for {SILENCE_SECONDS:.0f} s"
        return None

    return _watched(beat, BEAT_SECONDS, patience=SILENCE_SECONDS + 2 * BEAT_SECONDS)


def _end_with(parent: int) -> None:
    """Ends this process when the one that started it is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
