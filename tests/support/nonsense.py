"""Drives the command line with nonsense, and judges what it answers."""

import contextlib
import dataclasses
import io
import json
import math
import re
import signal
import typing

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from smz_jax.config import cli
from smz_jax.config.experiment import Experiment
from smz_jax.config.process import run_main
from smz_jax.config.settings import Config
from smz_jax.config.sources import config_from_yaml, config_to_yaml, flat_dict

LONGEST_LINE = 1000


def leaves(kind=Config, prefix=""):
    """Dotted name and type of every setting, at any depth."""
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


FIELDS = dict(leaves())
BASE = {"env.id": "Pong"}


def driven(examples):
    """Hypothesis with the same examples each time; a folder is shared by all of a test's."""
    return settings(
        derandomize=True,
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def answer(*argv, preset: str | None = "tiny"):
    """`(config, None)`, or `(None, line)` if the command line was refused."""
    found = []

    def main():
        words = ["--preset", preset, *argv] if preset else list(argv)
        found.append(cli.parse(words, Experiment("pong", base=BASE)).config)
        return 0

    former = signal.getsignal(signal.SIGTERM)
    error, out = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(out):
            run_main(main)
    except SystemExit as end:
        code = end.code
    finally:
        signal.signal(signal.SIGTERM, former)
    assert out.getvalue() == ""
    line = error.getvalue()
    if code == 0:
        assert line == ""
        check_valid(found[0])
        return found[0], None
    assert code == 2 and not found
    assert line.startswith("error: ") and line.endswith("\n") and len(line) < LONGEST_LINE, line
    assert len(line.splitlines()) == 1, line
    return None, line[len("error: ") : -1]


def check_valid(config):
    """Every value is of its field's own type, and what is written is what is read."""
    flat = flat_dict(config)
    assert set(flat) == set(FIELDS)
    for name, kind in FIELDS.items():
        value = flat[name]
        kinds = typing.get_args(kind) or (kind,)
        if typing.get_origin(kind) is typing.Literal:
            assert value in kinds and isinstance(value, str), (name, value)
            continue
        assert type(value) in kinds, (name, value)
        if type(value) is float:
            assert math.isfinite(value) and (value == 0 or 1e-37 < abs(value) < 1e38), (name, value)
        if type(value) is int:
            assert abs(value) <= 10**12, (name, value)
        if type(value) is str:
            assert value.isprintable() and len(value) < 100_000, (name, value)


def check_round_trip(config):
    """What is written, as bytes, is what is read."""
    text = config_to_yaml(config).encode()
    assert config_from_yaml(text.decode()) == config


REFUSAL = re.compile(r"(\S+) = (.+) is not allowed: it must be (.{3,})")


def check_refusal(line, name, value):
    """The line names field, value and what is allowed; of two that clash it names both."""
    match = REFUSAL.fullmatch(line)
    assert match, line
    subject, shown = match.groups()[:2]
    assert subject in FIELDS, line
    assert name in line, (name, value, line)
    if subject != name:
        return
    text = shown.removesuffix("...")
    spelled = [repr(value), str(value)]
    with contextlib.suppress(TypeError, ValueError):
        spelled.append(repr(json.dumps(value, sort_keys=True)))  # as env.kwargs is kept
    if any(" ".join(one.split()).startswith(text) for one in spelled):  # one space in a line
        return
    with contextlib.suppress(ValueError, TypeError):
        assert float(value) == float(text) or math.isnan(float(value)), line
        return
    raise AssertionError((name, value, line))


TEXTS = (
    *("", " ", "nan", "-nan", "inf", "-inf", "1e400", "-1e400", "1e39", "1e-320", "-0.0", "-1"),
    *("0", "1", "0.5", "1.5", "-0.5", "2", "1e3", "1e12", "1e30", "9" * 30, "9" * 5000, "1__0"),
    *("_1", "0x10", "+-1", "1,2", "[1, 2]", "(1, 2)", "{}", '{"a": 1}', "none", "null", "NaN"),
    *("true", "yes", "maybe", "a", "a\nb", "a\rb", "\x1b[31mred", "\u2028", "\ud800", "é", "٣"),
    *("../..", "/", "a" * 100_000, "[" * 50_000, "%s{}", "!!python/object:os.system"),
)
NAMES = st.sampled_from(sorted(FIELDS))
WORDS = st.text(max_size=30) | st.from_regex(r"[-+]?[0-9_]{1,12}(\.[0-9]{0,6})?(e[-+]?\d{1,3})?")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | WORDS
    | st.binary(max_size=9)
    | st.dates()
    | st.sampled_from(TEXTS[:40])
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=6,
)
