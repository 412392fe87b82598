"""Files, paths and processes: whatever stands in them, one line answers it in time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from smz_jax.config import cli
from smz_jax.config.experiment import Experiment
from smz_jax.config.sources import MAX_FILE_BYTES, config_from_yaml
from tests.support.nonsense import (
    FIELDS,
    NAMES,
    REFUSAL,
    TEXTS,
    TREES,
    WORDS,
    answer,
    check_round_trip,
    driven,
)

ROOT = Path(__file__).resolve().parents[2]

# --- files that are no settings ---

RAW_FILES = {
    "a lone surrogate": b'env: {id: "\\ud800"}',
    "an alias": b"seed: &a 1\nlog_every: *a\n",
    "an endless alias": b"seed: &a [*a]\n",
    "a bomb of aliases": b"seed: [&a0 [x]%s]\n"
    % b"".join(b", &a%d [%s]" % (n + 1, b", ".join([b"*a%d" % n] * 9)) for n in range(20)),
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

SECTIONS = sorted({name.partition(".")[0] for name in FIELDS if "." in name})
KEYS = NAMES | st.sampled_from([*SECTIONS, "preset", "<<", ""]) | NAMES.map(lambda x: x[:-1])
LEAF_KEYS = NAMES.map(lambda x: x.rpartition(".")[2]) | st.text(max_size=5)
DOCUMENTS = st.dictionaries(KEYS, TREES | st.dictionaries(LEAF_KEYS, TREES, max_size=4), max_size=4)


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


PIECES = (
    *("seed: 1", "env:", "  id: x", "- a", "{", "}", "[", "]", "&a", "*a", "!!x y", "? ", ": "),
    *("<<: ", "'", '"', "#"),
)
LINES = st.lists(st.sampled_from(PIECES))
FILES = st.binary(max_size=200) | LINES.map(lambda lines: "\n".join(lines).encode())


@driven(150)
@given(data=FILES, end=st.sampled_from(("yaml", "json")))
def test_any_bytes(tmp_path_factory, data, end):
    drive_bytes(data, tmp_path_factory.getbasetemp() / f"bytes.{end}")


@driven(100)
@given(words=st.lists(WORDS | WORDS.map(lambda x: f"--{x}"), max_size=4))
def test_any_words(words):
    if not {"-h", "--help"} & set(words):
        answer(*words)


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
    command = cli.parse(words, Experiment("pong")).command
    assert command.isprintable() and command.startswith("python -m experiments.pong --preset tiny")
    many = cli.parse(["--seed=1"] * 9000, Experiment("pong")).command
    assert len(many) == 10_000  # config.yaml holds it, and must stay small enough to be read


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
        "from smz_jax.config.experiment import Experiment\n"
        "from smz_jax.run.launch import launch\n"
        "try:\n    launch(Experiment('pong', 'atari', {'env.id': 'Pong'}, 'Plays.'))\n"
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


@pytest.mark.slow
@driven(5_000)
@given(tree=DOCUMENTS, data=FILES)
def test_many_documents_and_combinations(tmp_path_factory, tree, data):
    base = tmp_path_factory.getbasetemp()
    drive_document(tree, base / "many-documents.yaml")
    drive_bytes(data, base / "many-bytes.yaml")
