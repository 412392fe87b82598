"""Any nonsense for a setting is answered by one line, or it is a setting that holds.

The fields are found by walking the dataclasses, so that a new one is driven by itself.
"""

import math
import typing
from datetime import date

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from smz_jax.config.sources import SETTINGS
from tests.support.nonsense import (
    FIELDS,
    NAMES,
    REFUSAL,
    TEXTS,
    TREES,
    WORDS,
    answer,
    check_refusal,
    check_round_trip,
    driven,
)

VALUES = (
    *(None, True, False, -1, 0, 1, 2, 3.5, -0.5, 10**12, 10**30, -(10**30), 10**400, 1e308, 1e-320),
    *(math.nan, math.inf, -math.inf, "", "a", "1e3", "nan", "a\nb", "\ud800", b"\0\xff", []),
    *([1], {}, [[1, [2]]], {"a": 1}, {"a": {"b": []}}, {1: 2}, {None: 1}, {1: 2, "a": 3}),
    *(date(2020, 1, 2), {"a": date(2020, 1, 2)}, {"a": math.nan}, {"a": b"x"}, {"a": "b" * 11_000}),
    ["a" * 1000] * 30,
)


def test_the_walk_finds_what_the_command_line_knows():
    assert FIELDS.keys() == SETTINGS.keys() and len(FIELDS) > 90


@pytest.mark.parametrize("name", FIELDS)
def test_every_flag_answers_every_nonsense(name):
    accepted = []
    for text in TEXTS:
        config, line = answer(f"--{name}={text}")
        if line is None:
            accepted.append(config)
        else:
            check_refusal(line, name, text)
    for config in accepted[-1:]:
        check_round_trip(config)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_a_file_answers_every_nonsense(name, tmp_path):
    section, _, leaf = name.rpartition(".")
    for number, value in enumerate(VALUES):
        file = tmp_path / f"{number}.yaml"
        tree = {section: {leaf: value}} if section else {leaf: value}
        file.write_bytes(yaml.safe_dump(tree, allow_unicode=True).encode())
        _, line = answer("--config", str(file))
        if line is not None:
            check_refusal(line, name, value)


# --- what Hypothesis thinks of ---


def drive_flags(name, text, route):
    """One field, by a flag or by a file."""
    if route is None:
        config, line = answer(f"--{name}={text}")
    else:
        section, _, leaf = name.rpartition(".")
        tree = {section: {leaf: text}} if section else {leaf: text}
        route.write_bytes(yaml.safe_dump(tree, sort_keys=False).encode())
        config, line = answer("--config", str(route))
    if line is None:
        check_round_trip(config)
    elif not line.endswith("is given twice"):  # {True: 1, "true": 1}, which YAML writes alike
        check_refusal(line, name, text)


@driven(200)
@given(name=NAMES, text=WORDS)
def test_any_text_for_any_flag(name, text):
    drive_flags(name, text, None)


@driven(200)
@given(name=NAMES, value=TREES)
def test_any_value_for_any_field_of_a_file(tmp_path_factory, name, value):
    drive_flags(name, value, tmp_path_factory.getbasetemp() / "any.yaml")


def plausible(name):
    """Values that are of the right type, and often in range."""
    kind = FIELDS[name]
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if kind is bool:
        return st.booleans()
    whole = st.integers(0, 100) | st.integers(0, 40).map(lambda n: 2**n) | st.sampled_from((0, 1))
    if kind in (int, int | None):
        return whole
    if kind in (float, float | None):
        return st.floats(0, 1) | st.sampled_from((0.0, 1.0, 1e-9, 1e9)) | whole.map(float)
    return st.sampled_from(("Pong", "{}", "x", "CartPole-v1"))


SEVERAL = st.lists(NAMES, min_size=2, max_size=6, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: plausible(name) for name in names})
)


def drive_several(values):
    config, line = answer(*(f"--{name}={value}" for name, value in values.items()))
    if line is None:
        check_round_trip(config)
        return
    match = REFUSAL.fullmatch(line)
    assert match and match[1] in FIELDS and any(name in line for name in values), line


@driven(200)
@given(values=SEVERAL)
def test_any_fields_together(values):
    drive_several(values)


# --- settings that contradict each other ---

CLASHES = [
    (("macro.min_length=5", "macro.max_length=4"), "macro.max_length = 4", "macro.min_length"),
    (("env.num_envs=3", "rollout.pools=2"), "rollout.pools = 2", "a divisor of env.num_envs = 3"),
    (("devices=4", "rollout.pools=2"), "env.num_envs = 4", "devices x rollout.pools = 8"),
    (("devices=2", "learner.batch_size=5"), "learner.batch_size = 5", "devices = 2"),
    (("devices=2", "search.engine=mctx"), "search.engine", "devices is above 1"),
    (
        ("learner.updates_per_env_step=0.1", "learner.updates_per_dispatch=2"),
        "learner.updates_per_dispatch = 2",
        "a divisor of the 3 updates",
    ),
    (("replay.capacity=100", "replay.min_size=101"), "replay.min_size = 101", "in 1..100"),
    (("replay.capacity=60", "replay.min_size=60"), "replay.capacity = 60", "= 64"),
    (("replay.min_size=31",), "replay.min_size = 31", "env.frame_stack"),
    (("loss.jump=1",), "network.jump_length = 0", "in 1..2 (learner.unroll_steps)"),
    (("loss.jump=1", "network.jump_length=3"), "network.jump_length = 3", "in 1..2 (learner.unr"),
    (("replay.keep=best:3",), "replay.keep = 'best:3'", "all without a dataset"),
    (("replay.keep=some", "dataset=x"), "replay.keep = 'some'", "all, or one or more of best:N"),
    (("replay.view=kept",), "replay.view = 'kept'", "replay.keep = all"),
    (("replay.view=kept", "replay.keep=best:3", "dataset=x"), "replay.view = 'kept'", "another"),
    (("env.num_envs=64", "rollout.length=64"), "total_env_steps = 128", "= 4096"),
    (("keep_checkpoint_every_env_steps=65",), "keep_checkpoint_every_env_steps = 65", "= 64"),
    (("search.engine=mctx", "search.root=gumbel"), "search.root = 'gumbel'", "search.engine"),
    (("search.interior=gumbel",), "search.interior = 'gumbel'", "search.root is puct"),
    (("loss.reconstruction=1",), "loss.reconstruction = 1.0", "network.decoder_size is 0"),
    (
        ("network.decoder_target=balanced_difference", "env.frame_stack=1"),
        "network.decoder_target = 'balanced_difference'",
        "env.frame_stack is 1",
    ),
    (("network.family=resnet", "env.frame_size=40"), "env.frame_size = 40", "at least 48"),
    (("network.family=board",), "network.family = 'board'", "env.suite is atari"),
    (("network.family=lstm", "env.frame_stack=1"), "env.frame_stack = 1", "family is lstm"),
    (("env.mark_start",), "network.family = ", "lstm, transformer, light_lstm"),
    (("network.family=resnet_lstm", "env.frame_size=40"), "env.frame_size = 40", "at least 48"),
    (
        ("network.family=transformer", "network.heads=3"),
        "network.heads = 3",
        "a divisor of half of network.hidden_size = 16",
    ),
    (("network.value_width=0.3",), "network.value_width = 0.3", "value_support = 10 divided"),
    (
        ("network.value_support=5000", "network.value_width=0.5"),
        "network.value_width = 0.5",
        "5000 at most",
    ),
    (
        ("replay.view=kept", "replay.keep=best:3", "replay.view_share=0"),
        "replay.view_share = 0",
        "replay.view is kept",
    ),
    (("env.suite=grid", "learner.frame_shift=1"), "learner.frame_shift = 1", "env.suite is grid"),
    (("env.suite=grid", "env.backend=ale"), "env.backend = 'ale'", "env.suite is grid"),
    (("env.suite=grid", "eval.sticky_column"), "eval.sticky_column = True", "env.suite is grid"),
    (("env.kwargs={\"a\": 1}",), "env.kwargs = ", "env.suite is atari"),
    (("replay.capacity=1e9", "total_env_steps=1e9"), "replay.capacity = 1000000000", "of at most"),
    (
        ("search.num_simulations=10000", "network.embedding_size=8192", "env.num_envs=4096",
         "total_env_steps=1e6", "replay.capacity=1e6", "replay.min_size=1e5"),
        "search.num_simulations = 10000",
        "env.num_envs x network.embedding_size it is 1,342,177,280,000 of at most",
    ),
    (
        ("learner.batch_size=65536", "learner.td_steps=1000", "env.frame_size=210",
         "replay.capacity=1e5", "replay.min_size=1e4"),
        "learner.batch_size = 65536",
        "bytes",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "subject", "allowed"), CLASHES)
def test_two_settings_that_contradict_each_other(words, subject, allowed):
    line = answer(*(f"--{word}" for word in words))[1]
    assert line.startswith(subject) and allowed in line.partition("it must be")[2], line


# --- many more ---


@pytest.mark.slow
@driven(10_000)
@given(name=NAMES, value=TREES | WORDS, by_file=st.booleans())
def test_many_values_for_any_field(tmp_path_factory, name, value, by_file):
    path = tmp_path_factory.getbasetemp() / "many.yaml"
    drive_flags(name, value if by_file else str(value), path if by_file else None)
