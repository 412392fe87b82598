"""How the programs of a run are compiled: kept on disk, and quickly or well.

JAX is imported within the functions: settings are checked before.
"""

import os
from importlib import metadata
from pathlib import Path
from typing import Any

from smz_jax.storage.metrics import PhaseTimers

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
FAST_COMPILE = "--xla_cpu_use_fusion_emitters=false"


def use_compile_cache() -> None:
    """Keeps compiled programs on disk, so that the next start of the same settings is fast.

    The folder is `SMZ_COMPILE_CACHE`, or `~/.cache/smz_jax/xla`.
    """
    import jax

    folder = os.environ.get("SMZ_COMPILE_CACHE", "~/.cache/smz_jax/xla")
    jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def compile_fast() -> None:
    """For runs of seconds: programs that are ready soon, not fast; before JAX computes anything."""
    import jax

    use_fast_compiler()
    jax.config.update("jax_disable_most_optimizations", True)


def use_fast_compiler() -> None:
    """Has XLA compile in about half the time, to slower programs; before JAX computes anything.

    XLA reads its flags once in a process, and aborts at one that it does not know: it gets this
    one only in the version that was tried.
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
