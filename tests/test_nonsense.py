"""Any nonsense for a setting is answered by one line, or it is a setting that holds.

The fields are found by walking the dataclasses, so that a new one is driven by itself.
"""

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import typing
from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smz_jax import cli
from smz_jax.config import Config
from smz_jax.settings import MAX_FILE_BYTES, SETTINGS, config_from_yaml, config_to_yaml, flat_dict

ROOT = Path(__file__).resolve().parent.parent
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
        found.append(cli.parse(words, experiment="pong", base=BASE).config)
        return 0

    former = signal.getsignal(signal.SIGTERM)
    error, out = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(out):
            cli.run_main(main)
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
    if any(one.startswith(text) for one in spelled):
        return
    with contextlib.suppress(ValueError, TypeError):
        assert float(value) == float(text) or math.isnan(float(value)), line
        return
    raise AssertionError((name, value, line))


# --- every field, a fixed list of nonsense ---

TEXTS = (
    *("", " ", "nan", "-nan", "inf", "-inf", "1e400", "-1e400", "1e39", "1e-320", "-0.0", "-1"),
    *("0", "1", "0.5", "1.5", "-0.5", "2", "1e3", "1e12", "1e30", "9" * 30, "9" * 5000, "1__0"),
    *("_1", "0x10", "+-1", "1,2", "[1, 2]", "(1, 2)", "{}", '{"a": 1}', "none", "null", "NaN"),
    *("true", "yes", "maybe", "a", "a\nb", "a\rb", "\x1b[31mred", "\u2028", "\ud800", "é", "٣"),
    *("../..", "/", "a" * 100_000, "[" * 50_000, "%s{}", "!!python/object:os.system"),
)
VALUES = (
    *(None, True, False, -1, 0, 1, 2, 3.5, -0.5, 10**12, 10**30, -(10**30), 10**400, 1e308, 1e-320),
    *(math.nan, math.inf, -math.inf, "", "a", "1e3", "nan", "a\nb", "\ud800", b"\0\xff", []),
    *([1], {}, [[1, [2]]], {"a": 1}, {"a": {"b": []}}, {1: 2}, {None: 1}),
    *(
        date(2020, 1, 2),
        {"a": math.nan},
        {"a": b"x"},
        {"a": date(2020, 1, 2)},
        {1: 2, "a": 3},
        ["a" * 1000] * 30,
    ),
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


# --- files that are no settings ---

RAW_FILES = {
    "a lone surrogate": b'env: {id: "\\ud800"}',
    "aliases": b"seed: &a [1]\nlog_every: *a\n",
    "an endless alias": b"seed: &a [*a]\n",
    "a bomb of aliases": "".join(
        [f"a0: &a0 {['x'] * 9}\n", *(f"a{n + 1}: &a{n + 1} {[f'*a{n}'] * 9}\n" for n in range(40))]
    )
    .replace("'", "")
    .encode(),
    "a bomb of merges": b"a: &a {x: 1}\nb: {<<: [*a, *a, *a]}\n",
    "a merge of nothing": b"<<: 1\n",
    "an object": b"seed: !!python/object/apply:os.system ['touch TRACE']\n",
    "an object as a key": b"? !!python/object/apply:os.system ['touch TRACE']\n: 1\n",
    "a module": b"seed: !!python/module:antigravity\n",
    "a tag of nobody": b"seed: !mine 3\n",
    "an empty number": b"seed: !!int ''\n",
    "an empty fraction": b"seed: !!float ''\n",
    "no truth": b"env.episodic_life: !!bool x\n",
    "no time": b"seed: !!timestamp x\n",
    "a time out of range": b"seed: 0001-01-01T00:00:00+23:59\n",
    "no bytes": b"seed: !!binary '\xc3\xa9'\n",
    "bytes": b"seed: !!binary 'aaaa'\n",
    "a set": b"seed: !!set {a, b}\n",
    "pairs": b"seed: !!omap [a: 1, a: 2]\n",
    "base sixty, huge": b"seed: 1" + b":59" * 400 + b"\n",
    "base sixty, huge fraction": b"learner.gamma: 1" + b":59" * 400 + b".5\n",
    "base sixteen, huge": b"seed: 0x" + b"f" * 9000 + b"\n",
    "base ten, huge": b"seed: 1" + b"0" * 9000 + b"\n",
    "a fraction of base sixteen, huge": b"learner.gamma: 0x" + b"f" * 9000 + b"\n",
    "deep lists": b"seed: " + b"[" * 20_000,
    "deep maps": b"{a: " * 10_000,
    "two documents": b"seed: 1\n---\nseed: 2\n",
    "a tab": b"env:\n\tid: Pong\n",
    "a nul": b"seed: \0\n",
    "a byte order mark alone": b"\xef\xbb\xbf",
    "UTF-16": "seed: 1".encode("utf-16"),
    "no text": bytes(range(256)) * 40,
    "a pickle": b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "a long name": b"a" * 900 + b": 1\n",
    "an escape": b'"\\e[31m": 1\n',
    "a long alias": b"a: *" + b"b" * 5000,
    "a long anchor": b"a: &" + b"b" * 5000 + b" 1",
    "a name twice": b"seed: 1\n'seed': 2\n",
    "a long name twice": (b"a" * 900 + b": 1\n") * 2,
    "no name": b"? \n: 1\n",
    "names of names": b"env: {env: {id: Pong}}\n",
    "a dotted section": b"env.env.id: Pong\n",
    "a list": b"- seed\n",
    "a word": b"seed",
    "a number": b"3",
    "nothing for a section": b"env:\n",
    "a preset that is none": b"preset: [tiny, {a: b}]\n",
}
JSON_FILES = {
    "a lone surrogate": b'{"env.id": "\\ud800"}',
    "twice, among many": b'{"seed": 1,' + b"".join(b'"%d":1,' % n for n in range(5000)) + b'"1":2}',
    "twice within": b'{"env": {"id": "Pong", "id": "Pong"}}',
    "deep": b'{"env":' * 6000,
    "huge": b'{"seed": 1' + b"0" * 9000 + b"}",
    "infinite": b'{"learner.gamma": 1e999, "seed": -Infinity}',
    "no text": bytes(range(256)),
    "nothing": b"",
    "two": b"{}{}",
}


def refuse_file(path, **how):
    config, line = answer("--config", str(path), **how)
    assert config is None
    return line


@pytest.mark.parametrize("kind", RAW_FILES)
def test_files_that_are_no_settings(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_bytes(RAW_FILES[kind])
    began = time.process_time()
    if kind == "a byte order mark alone":
        assert answer("--config", "x.yaml")[1] is None
    else:
        line = refuse_file("x.yaml", preset=None)
        assert "x.yaml" in line or REFUSAL.fullmatch(line), line
        assert len(line) < 500
    assert time.process_time() - began < 2
    assert not Path("TRACE").exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize("kind", JSON_FILES)
def test_json_that_is_no_settings(tmp_path, kind):
    (tmp_path / "x.json").write_bytes(JSON_FILES[kind])
    began = time.process_time()
    line = refuse_file(tmp_path / "x.json")
    assert "x.json" in line or REFUSAL.fullmatch(line), line
    assert time.process_time() - began < 2


def test_the_largest_file_is_read_in_time_and_larger_ones_are_not(tmp_path):
    """YAML costs time with its size: a file at the limit is answered within about a second."""
    file = tmp_path / "x.yaml"
    text = "env: {" + ", ".join(f"a{n}: {n}" for n in range(10_000))
    file.write_text(text[: MAX_FILE_BYTES - 1] + "}")
    began = time.process_time()
    assert "unknown setting" in refuse_file(file) or "damaged" in refuse_file(file)
    assert time.process_time() - began < 10
    file.write_text("#" * (MAX_FILE_BYTES + 1))
    assert "at most 50,000 bytes" in refuse_file(file)
    with pytest.raises(ValueError, match="at most 50,000 bytes"):
        config_from_yaml("#" * (MAX_FILE_BYTES + 1))  # as in a forged export


def test_paths_that_are_no_files(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "mute.yaml").write_text("seed: 1")
    (tmp_path / "mute.yaml").chmod(0)
    for path in (tmp_path, "loop", "pipe", "none", "x" * 300, "a/" * 3000, "~nobody-at-all/x", ""):
        line = refuse_file(tmp_path / path if isinstance(path, str) and path else path)
        assert REFUSAL.fullmatch(line) and line.startswith("config = "), line
    for path in ("/dev/null/x", "\0", "a\nb", "\udcff", "~nobody-at-all/x"):
        line = refuse_file(path)
        assert REFUSAL.fullmatch(line) and line.startswith("config = "), line


# --- what Hypothesis thinks of ---

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
SECTIONS = sorted({name.partition(".")[0] for name in FIELDS if "." in name})
KEYS = NAMES | st.sampled_from([*SECTIONS, "preset", "<<", ""]) | NAMES.map(lambda x: x[:-1])
LEAF_KEYS = NAMES.map(lambda x: x.rpartition(".")[2]) | st.text(max_size=5)
DOCUMENTS = st.dictionaries(KEYS, TREES | st.dictionaries(LEAF_KEYS, TREES, max_size=4), max_size=4)


def drive_flags(name, text, route):
    """One field, by a flag or by a file."""
    if route is None:
        config, line = answer(f"--{name}={text}")
    else:
        section, _, leaf = name.rpartition(".")
        tree = {section: {leaf: text}} if section else {leaf: text}
        route.write_bytes(yaml.safe_dump(tree).encode())
        config, line = answer("--config", str(route))
    if line is None:
        check_round_trip(config)
    else:
        check_refusal(line, name, text)


@driven(200)
@given(name=NAMES, text=WORDS)
def test_any_text_for_any_flag(name, text):
    drive_flags(name, text, None)


@driven(200)
@given(name=NAMES, value=TREES)
def test_any_value_for_any_field_of_a_file(tmp_path_factory, name, value):
    drive_flags(name, value, tmp_path_factory.getbasetemp() / "any.yaml")


def drive_document(tree, path):
    path.write_bytes(yaml.safe_dump(tree).encode())
    config, line = answer("--config", str(path), preset=None)
    if line is None:
        check_round_trip(config)
    else:
        known = REFUSAL.fullmatch(line) or "unknown setting" in line or "given twice" in line
        assert known or "damaged YAML" in line, line


@driven(200)
@given(tree=DOCUMENTS)
def test_any_document(tmp_path_factory, tree):
    drive_document(tree, tmp_path_factory.getbasetemp() / "document.yaml")


def drive_bytes(data, path):
    path.write_bytes(data)
    line = answer("--config", str(path), preset=None)[1]
    assert line is None or str(path) in line or REFUSAL.fullmatch(line), line


PIECES = [
    "seed: 1",
    "env:",
    "  id: x",
    "- a",
    "{",
    "}",
    "[",
    "]",
    "&a",
    "*a",
    "!!x y",
    "? ",
    ": ",
    "<<: ",
    "'",
    '"',
    "#",
]
LINES = st.lists(st.sampled_from(PIECES))
FILES = st.binary(max_size=200) | LINES.map(lambda lines: "\n".join(lines).encode())


@driven(150)
@given(data=FILES, end=st.sampled_from(("yaml", "json")))
def test_any_bytes(tmp_path_factory, data, end):
    drive_bytes(data, tmp_path_factory.getbasetemp() / f"bytes.{end}")


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


@driven(100)
@given(
    words=st.lists(st.text(max_size=12) | st.text(max_size=12).map(lambda x: f"--{x}"), max_size=4)
)
def test_any_words(words):
    if not {"-h", "--help"} & set(words):
        answer(*words)


# --- settings that contradict each other ---

CLASHES = [
    (("macro.min_length=5", "macro.max_length=4"), "macro.max_length = 4", "macro.min_length"),
    (("env.num_envs=3", "rollout.pools=2"), "rollout.pools = 2", "a divisor of env.num_envs = 3"),
    (
        ("learner.updates_per_env_step=0.1", "learner.updates_per_dispatch=2"),
        "learner.updates_per_dispatch = 2",
        "a divisor of the 3 updates",
    ),
    (("replay.capacity=100", "replay.min_size=101"), "replay.min_size = 101", "in 1..100"),
    (("replay.capacity=60", "replay.min_size=60"), "replay.capacity = 60", "= 64"),
    (("replay.min_size=31",), "replay.min_size = 31", "env.frame_stack"),
    (("env.num_envs=64", "rollout.length=64"), "total_env_steps = 128", "= 4096"),
    (("keep_checkpoint_every_env_steps=65",), "keep_checkpoint_every_env_steps = 65", "= 64"),
    (("search.engine=mctx", "search.root=gumbel"), "search.root = 'gumbel'", "search.engine"),
    (("search.interior=gumbel",), "search.interior = 'gumbel'", "search.root is puct"),
    (("loss.reconstruction=1",), "loss.reconstruction = 1.0", "network.decoder_size is 0"),
    (("network.family=resnet", "env.frame_size=40"), "env.frame_size = 40", "at least 48"),
    (("network.family=board",), "network.family = 'board'", "env.suite is atari"),
    (("env.suite=grid", "env.backend=ale"), "env.backend = 'ale'", "env.suite is grid"),
    (("env.suite=grid", "eval.sticky_column"), "eval.sticky_column = True", "env.suite is grid"),
    (("env.kwargs={\"a\": 1}",), "env.kwargs = ", "env.suite is atari"),
    (("replay.capacity=1e9", "total_env_steps=1e9"), "replay.capacity = 1000000000", "of at most"),
    (
        ("search.num_simulations=10000", "network.embedding_size=8192", "env.num_envs=4096",
         "total_env_steps=1e6", "replay.capacity=1e6", "replay.min_size=1e5"),
        "search.num_simulations = 10000",
        "env.num_envs x network.embedding_size = 1,342,177,280,000 of at most 1,000,000,000,000",
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


# --- the flags that are no settings ---


@pytest.mark.parametrize("name", ["preset", "config", "resume", "run_dir", "init_from"])
def test_flags_of_the_command_line_itself(name, tmp_path, monkeypatch):
    """A folder is looked at later; what can be none is refused at once."""
    monkeypatch.chdir(tmp_path)
    for text in TEXTS:
        line = answer(f"--{name}={text}", preset=None)[1]
        if line is None:
            assert name in ("run_dir", "init_from") or text == "true"
            assert text.isprintable() and 0 < len(text) <= 4096
        else:
            assert REFUSAL.fullmatch(line)[1] == name, line
    line = answer("--resume", "--run_dir", "x" * 300, preset=None)[1]
    assert line is None  # `run_dir` answers
    assert not list(tmp_path.iterdir())


def test_what_was_typed_is_kept_in_one_plain_line():
    words = ["--preset", "tiny", "--env.suite=grid", '--env.kwargs={\n"a":\r1}', "--seed=1"]
    command = cli.parse(words, experiment="pong", base=BASE).command
    assert command.isprintable() and command.startswith("python -m experiments.pong --preset tiny")


# --- as a process ---

PROCESSES = {
    "flag": ["--learner.learning_rate", "nan"],
    "unknown": ["--learning_rte", "1"],
    "clash": ["--macro.min_length", "5", "--macro.max_length", "4"],
    "bytes": ["--config", "binary.yaml"],
    "object": ["--config", "object.yaml"],
    "folder": ["--config", "."],
    "not UTF-8": [b"--env.id=\xff\xfe"],
    "pipe": ["--config", "pipe"],
}


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_process_answers_before_anything_heavy_is_imported(kind, tmp_path):
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "object.yaml").write_bytes(RAW_FILES["an object"])
    os.mkfifo(tmp_path / "pipe")
    code = (
        "import sys\nsys.argv[0] = 'x'\n"
        "from smz_jax.launch import launch\n"
        "try:\n    launch('pong', {'env.id': 'Pong'}, 'Plays.')\n"
        "finally:\n    print(*sorted(x for x in sys.modules if '.' not in x))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *PROCESSES[kind]],
        capture_output=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    loaded = set(done.stdout.decode().split())
    assert not loaded & {"jax", "jaxlib", "numpy", "flax", "optax", "envpool", "gymnasium", "tyro"}
    assert "yaml" in loaded and "smz_jax" in loaded  # the list itself works
    assert sorted(x.name for x in tmp_path.iterdir()) == ["binary.yaml", "object.yaml", "pipe"]


# --- many more ---


@pytest.mark.slow
@driven(10_000)
@given(name=NAMES, value=TREES | WORDS, by_file=st.booleans())
def test_many_values_for_any_field(tmp_path_factory, name, value, by_file):
    path = tmp_path_factory.getbasetemp() / "many.yaml"
    drive_flags(name, value if by_file else str(value), path if by_file else None)


@pytest.mark.slow
@driven(5_000)
@given(tree=DOCUMENTS, data=FILES, values=SEVERAL)
def test_many_documents_and_combinations(tmp_path_factory, tree, data, values):
    base = tmp_path_factory.getbasetemp()
    drive_document(tree, base / "many-documents.yaml")
    drive_bytes(data, base / "many-bytes.yaml")
    drive_several(values)
