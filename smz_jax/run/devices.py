"""How the programs of a run are compiled, kept on disk, quickly or well; and the devices they use.

JAX is imported within the functions: settings are checked before.
"""

import contextlib
import ctypes
import os
from importlib import metadata
from pathlib import Path
from typing import Any

from smz_jax.config.check import ConfigError, require
from smz_jax.config.process import RESTS_ON
from smz_jax.storage.metrics import PhaseTimers

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
FAST_COMPILE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's `mallopt`."""


def prepare_jax(fast: bool = False) -> None:
    """Sets JAX up, before it computes anything, and keeps compiled programs for the next start.

    Their folder is `SMZ_COMPILE_CACHE`, or `~/.cache/smz_jax/xla`; without a home nothing is kept.
    `fast` is for runs of seconds: programs that are ready soon, not fast.

    Raises:
        ConfigError: in one line, if JAX finds no device of the kind that JAX_PLATFORMS names.
    """
    import jax

    keep_freed_memory()
    if fast:
        use_fast_compiler()
    if not os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS"):
        # Also back: a process may have made a run of seconds before.
        jax.config.update("jax_disable_most_optimizations", fast)
    for name, value in RESTS_ON.items():
        if (given := getattr(jax.config, name)) not in (value, None):
            print(f"{name.upper()} = {given!r} is not used: it must be {value!r}", flush=True)
            jax.config.update(name, value)
    try:
        jax.default_backend()
    except Exception as error:  # RuntimeError, or an AssertionError without a word
        platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
        reason = " ".join(str(error).split())[:300] or "JAX finds no such device"
        raise ConfigError(f"JAX_PLATFORMS = {platforms!r} cannot be used: {reason}") from None
    folder = os.environ.get("SMZ_COMPILE_CACHE") or "~/.cache/smz_jax/xla"
    try:
        path = Path(folder).expanduser()
        path.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(path, os.W_OK) else f"{path} cannot be written"
    except (OSError, RuntimeError) as error:  # RuntimeError: no home
        path, reason = None, str(error)
    if reason:
        print(f"no program is kept for the next start: {reason} (SMZ_COMPILE_CACHE names a folder)")
    jax.config.update("jax_compilation_cache_dir", None if reason else str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def make_mesh(devices: int, processes: int = 1) -> Any:
    """A `jax.sharding.Mesh` of the first so many devices, also of one; its axis is `data`.

    Of several processes it has so many of each, those of a process after each other.

    Raises:
        ConfigError: in one line, if JAX finds fewer, or other processes.
    """
    import jax
    import numpy as np

    from smz_jax.model.lanes import AXIS

    found = jax.local_devices()
    kind = found[0].platform
    require(devices <= len(found), "devices", devices, f"at most {len(found)}: JAX finds {kind}")
    types = (jax.sharding.AxisType.Auto,)
    if processes > 1:
        joined = jax.process_count()
        require(processes == joined, "processes", processes, f"{joined}, as many as are joined")
        fits = kind != "cpu" or devices == 1  # exchanges of two devices of a CPU may wait forever
        require(fits, "devices", devices, "1 where several processes have CPUs")
        every = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
        own = [[x for x in every if x.process_index == i][:devices] for i in range(processes)]
        return jax.sharding.Mesh(np.array(own).ravel(), (AXIS,), axis_types=types)
    return jax.make_mesh((devices,), (AXIS,), axis_types=types, devices=found[:devices])


def keep_freed_memory() -> None:
    """Has glibc keep freed memory for the next allocation, where there is glibc.

    Else the arrays of every update come from the kernel anew, page by page: about 12,000 faults
    and a fifth of the time of an update of Breakout at laptop on a CPU.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def use_fast_compiler() -> None:
    """Has XLA compile in about half the time, to slower programs; before JAX computes anything.

    XLA reads its flags once in a process, and aborts at one that it does not know: it gets these
    only in the version that was tried.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if metadata.version("jaxlib") == "0.10.2" and FAST_COMPILE not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FAST_COMPILE}".strip()


def count_compilation(timers: PhaseTimers) -> None:
    """Books XLA's compile time (also loading from the cache) under its own phase."""
    import jax

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILE_EVENT:
            timers.add("compilation", duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
