"""The engine that a command's flags name."""

from experiments.sweep import engines
from smz_jax.config.check import require


def open_engine(kind: str, address: str | None, jobs: int | None, preset: str) -> engines.Engine:
    """The engine of a command's flags.

    Args:
        kind: local or ray.
        address: of a Ray cluster; None: `auto`.
        jobs: runs at a time; None: as many as there are cores.
        preset: of the runs.

    Raises:
        ConfigError: in one line, if it cannot be used.
    """
    require(address is None or kind == "ray", "address", address, "left out but with --engine ray")
    if kind == "local":
        return engines.LocalPool(engines.this_machine(jobs, preset))
    from experiments.sweep.ray_engine import RayCluster

    return RayCluster(address or "auto", jobs, preset)
