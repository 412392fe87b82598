"""Numbers and durations as people read them."""


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
