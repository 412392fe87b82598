"""Numbers and durations as people read them."""

from smz_jax.config.network import MAX_SUPPORT


def short_count(number: float) -> str:
    """Formats a count at a glance: 950, 12.3k, 1.5M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.4g}{suffix}"
    return f"{number:.4g}"


def short_duration(seconds: float | None) -> str:
    """Formats seconds as m:ss or h:mm:ss; `?` when unknown."""
    if seconds is None:
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def cut_line(name: str, *, share: float, reach: float, support: int) -> str:
    """That targets lie beyond their support, and which setting would hold them.

    Args:
        name: reward or value.
        share: of an iteration's targets, the most that was seen.
        reach: support that the largest needs.
        support: the one that the run has.
    """
    setting = f"network.{name}_support"
    cure = f"--{setting} {reach:.0f} would hold those seen so far"
    if reach > MAX_SUPPORT:
        cure = f"the largest one, {MAX_SUPPORT:,}, would not hold them either: use smaller rewards"
    return (
        f"up to {100 * share:.3g}% of an iteration's {name} targets lie beyond {setting} = "
        f"{support} and are cut to its end; in a new run {cure}"
    )
