"""Exports: what comes back is what was written, and whatever was done to a file is found."""

import hashlib
import io
import itertools
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import export as command
from smz_jax.acting.agent import make_decide
from smz_jax.analysis.load import (
    abstract_head,
    abstract_params,
    export_run,
    fit_head,
    fit_params,
    format_scores,
    load_model,
    score_table,
)
from smz_jax.config.check import ConfigError
from smz_jax.envs import make_spec
from smz_jax.macros.precondition.updates import model_part
from smz_jax.model.networks import make_networks
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.export import (
    HEAD,
    MACROS,
    REQUIRED,
    SUMS,
    read_export,
    write_export,
)
from smz_jax.storage.pretrained import is_export
from smz_jax.storage.run_dir import read_config

FILES = (*REQUIRED, MACROS, HEAD, SUMS)


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """Folder of an export of the tiny run's best model, not to be changed."""
    out = tmp_path_factory.mktemp("exports") / "best"
    export_run(tiny_run, out, "best")
    return out


@pytest.fixture
def copied(exported, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def bits(array):
    return np.asarray(array).tobytes()


def refused(folder, *words, read=read_export):
    """The one line with which a folder is refused; holds all the words."""
    with pytest.raises(ConfigError) as caught:
        read(folder)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 700, text
    assert all(word in text for word in words), text
    return text


def resum(folder, *more_lines):
    """Makes the sums right again, as one who means harm would."""
    names = sorted(path.name for path in folder.iterdir() if path.name != SUMS)
    body = "# smz_jax export, format 1\n"
    for name in names:
        body += f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
    write_sums(folder, body + "".join(more_lines))


def write_sums(folder, body):
    own = hashlib.sha256(body.encode()).hexdigest()
    (folder / SUMS).write_text(f"{body}# the lines above: {own}\n")


def write_weights(folder, arrays, save=np.savez):
    """Other weights, with sums that fit."""
    stream = io.BytesIO()
    save(stream, **arrays)
    (folder / "weights.npz").write_bytes(stream.getvalue())
    resum(folder)


@pytest.mark.parametrize("kind", ["best", "last"])
def test_parameters_come_back_bit_for_bit_and_act_the_same(tiny_run, tmp_path, kind):
    model = export_run(tiny_run, tmp_path / "out", kind)
    config = read_config(tiny_run)
    assert model.config == config
    spec = make_spec(config.env)
    networks = make_networks(config.network, spec)
    store = CheckpointStore(tiny_run)
    if kind == "best":
        wanted = abstract_params(networks), abstract_head(networks, config, spec)
        truth, head, _ = store.restore_model("best", *wanted)
    else:
        from smz_jax.run.parts import make_parts
        from smz_jax.run.state import abstract_state
        from smz_jax.storage.metrics import PhaseTimers

        wanted = abstract_state(make_parts(config, PhaseTimers())).arrays
        train_state = store.restore("last", wanted)[0]["train"]
        truth, head = train_state.params, model_part(train_state.head, config.macro)
    params = fit_params(networks, model.weights)
    assert jax.tree.structure(params) == jax.tree.structure(truth)
    for mine, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(truth), strict=True):
        assert mine.dtype == theirs.dtype and bits(mine) == bits(theirs)
    found = fit_head(networks, spec, model)
    assert jax.tree.structure(found) == jax.tree.structure(head)
    assert list(map(bits, jax.tree.leaves(found))) == list(map(bits, jax.tree.leaves(head)))
    assert int(head.updates) > 0 and np.asarray(head.slots.length).any()
    lengths, actions = np.asarray(head.slots.length), np.asarray(head.slots.actions)
    owners = {tuple(actions[i, : lengths[i]].tolist()): i for i in np.flatnonzero(lengths)}
    assert model.macros is not None
    for macro in model.macros["macros"]:  # the file's slots are of the last checkpoint's head
        assert macro["slot"] == owners.get(tuple(macro["actions"]))
    decide = make_decide(networks, config, spec, policy="search")
    rng = np.random.default_rng(0)
    observation = rng.integers(0, 256, (8, *spec.observation_shape)).astype(spec.frame_dtype)
    invalid = np.zeros((8, spec.num_actions), np.float32)
    zero = np.float32(0)
    seen = [
        decide(x, jax.random.key(1), np.int32(0), observation, invalid, zero, zero, zero)
        for x in (params, truth)
    ]
    for mine, theirs in zip(*(jax.tree.leaves(x.search) for x in seen), strict=True):
        assert bits(mine) == bits(theirs)


def test_the_two_checkpoints_differ(tiny_run):
    best, last = (load_model(tiny_run, kind) for kind in ("best", "last"))
    assert best.weights.keys() == last.weights.keys()
    steps = [model.about["env_steps"] for model in (best, last)]
    same = all(bits(best.weights[x]) == bits(last.weights[x]) for x in best.weights)
    assert same == (steps[0] == steps[1]) and steps[1] == 128
    assert load_model(tiny_run, "last").about["checkpoint"] == "last"


def test_an_export_needs_no_run_and_is_the_same_each_time(tiny_run, exported, tmp_path):
    again = tmp_path / "again"
    model = export_run(tiny_run, again)
    assert sorted(path.name for path in again.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (again / name).read_bytes() == (exported / name).read_bytes()
    assert model.macros == json.loads((tiny_run / "macros.json").read_text())
    assert model.macros["macros"]
    with np.load(again / "weights.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == set(model.weights)
    assert is_export(again) and not is_export(tiny_run)
    third = write_export(tmp_path / "third", load_model(again))
    assert (third / SUMS).read_bytes() == (again / SUMS).read_bytes()


def test_sha256sum_reads_the_sums(exported, copied):
    check = ["sha256sum", "--check", "--strict", SUMS]
    assert subprocess.run(check, cwd=exported, capture_output=True).returncode == 0
    with (copied / "config.yaml").open("a") as file:
        file.write("\n")
    assert subprocess.run(check, cwd=copied, capture_output=True).returncode == 1


def test_the_table_tells_whose_scores_they_are(tiny_run):
    rows = score_table(tiny_run, 64)
    summary = json.loads((tiny_run / "summary.json").read_text())
    assert [(row["when"], row["env_steps"]) for row in rows[:3]] == [
        ("interim", 64),
        ("interim", 128),
        ("final", 128),
    ]
    assert [row["this_model"] for row in rows[:3]] == [True, False, False]
    assert rows[2]["mean"] == summary["evaluation"]["mean"] and rows[2]["games"] == 6
    assert [row["policy"] for row in rows[3:]] == [
        *("random", "always UP", "always RIGHT", "always DOWN", "always LEFT"),
    ]
    assert rows[4]["mean"] == summary["baselines"]["constant"]["UP"]["mean"]
    assert not any(row["this_model"] for row in rows[3:])


def test_the_table_has_the_greedy_scores_and_how_many_games_differ(tmp_path):
    found = {"games": 80, "distinct": 71, "mean": 2.5}
    greedy, sticky = {"games": 32, "distinct": 4, "mean": 3.0}, {"games": 80, "mean": 1.0}
    summary = {"evaluation": found, "evaluation_greedy": greedy, "evaluation_sticky": sticky}
    (tmp_path / "summary.json").write_text(json.dumps({"env_steps": 128, **summary}))
    rows = score_table(tmp_path, 128)
    assert [row["when"] for row in rows] == ["final", "final, greedy", "final, sticky 0.25"]
    assert [row["mean"] for row in rows] == [2.5, 3.0, 1.0] and rows[1]["distinct"] == 4
    assert format_scores(rows).splitlines() == [
        "* agent, final after 128 steps: mean 2.50, 80 games, 71 different",
        "* agent, final, greedy after 128 steps: mean 3.00, 32 games, 4 different",
        "* agent, final, sticky 0.25 after 128 steps: mean 1.00, 80 games",
    ]


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_found(exported, copied, name):
    data = (exported / name).read_bytes()
    few = np.random.default_rng(0).integers(0, 8 * len(data), 150)
    every = range(8 * len(data)) if name == SUMS else {0, 8 * len(data) - 1, *few.tolist()}
    for bit in every:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (copied / name).write_bytes(flipped)
        refused(copied, "damaged", name)


DAMAGE = {
    "emptied": lambda data: b"",
    "cut by one byte": lambda data: data[:-1],
    "cut in half": lambda data: data[: len(data) // 2],
    "zeroed block": lambda data: data[:100] + bytes(len(data[100:200])) + data[200:],
    "one byte more": lambda data: data + b"\n",
    "another's": lambda data: b"something else altogether\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(exported, copied, name, kind):
    (copied / name).write_bytes(DAMAGE[kind]((exported / name).read_bytes()))
    refused(copied, "damaged", name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_named(copied, name):
    (copied / name).unlink()
    assert is_export(copied)
    refused(copied, f"{name} is missing")
    (copied / name).mkdir()
    refused(copied, f"{name} is missing")
    (copied / name).rmdir()
    (copied / name).symlink_to("/dev/null")  # as a pipe or a device that never ends would be
    refused(copied, f"{name} is missing")


@pytest.mark.parametrize("pair", list(itertools.combinations(FILES, 2)))
def test_swapped_files_are_found(exported, copied, pair):
    one, other = pair
    shutil.copy(exported / one, copied / other)
    shutil.copy(exported / other, copied / one)
    refused(copied, *([SUMS] if SUMS in pair else pair))


def test_a_file_of_another_export_is_found(tiny_run, copied, tmp_path):
    model = load_model(copied)
    moved = {name: np.asarray(array + 1) for name, array in model.weights.items()}
    other = write_export(tmp_path / "other", model._replace(weights=moved))
    shutil.copy(other / "weights.npz", copied)
    refused(copied, "weights.npz has another SHA-256")


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_and_objects_are_refused_unopened(copied, tmp_path):
    trace = tmp_path / "harm"
    (copied / "weights.npz").write_bytes(pickle.dumps(Harm(trace)))
    resum(copied)
    refused(copied, "weights.npz")
    write_weights(copied, {"params/x": np.array([Harm(trace)], object)})
    refused(copied, "weights.npz", "allow_pickle")
    stream = io.BytesIO()
    np.save(stream, np.array([Harm(trace)], object), allow_pickle=True)
    (copied / "weights.npz").write_bytes(stream.getvalue())
    resum(copied)
    refused(copied, "weights.npz")
    (copied / "config.yaml").write_text(f"seed: !!python/object/apply:pathlib.Path.touch [{trace}]")
    resum(copied)
    refused(copied, "config.yaml")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Harm(trace)))
    assert trace.exists()  # the trap itself works


def test_weights_that_are_no_finite_arrays_are_refused(copied):
    whole = load_model(copied).weights
    name = next(iter(whole))
    write_weights(copied, whole, np.savez_compressed)
    refused(copied, "weights.npz", "compressed")
    write_weights(copied, whole | {name: np.full_like(whole[name], np.nan)})
    refused(copied, "weights.npz", name, "finite")
    write_weights(copied, whole | {name: np.array(["text"])})
    refused(copied, "weights.npz", name, "finite")
    with pytest.raises(ConfigError, match="finite"):
        broken = load_model_with(copied, whole | {name: np.full_like(whole[name], np.inf)})
        write_export(copied.with_name("new"), broken)
    assert not copied.with_name("new").exists()


def load_model_with(folder, weights):
    write_weights(folder, {name: np.zeros_like(array) for name, array in weights.items()})
    return load_model(folder)._replace(weights=weights)


@pytest.mark.parametrize("name", ["../config.yaml", "/etc/passwd", "a/../config.yaml", "more.npz"])
def test_other_names_are_refused(copied, name):
    line = f"{hashlib.sha256((copied / 'config.yaml').read_bytes()).hexdigest()}  {name}\n"
    resum(copied, line)
    refused(copied, repr(name), "no file of an export")


def test_sums_that_name_too_little_or_twice_are_refused(copied):
    body = (copied / SUMS).read_text().rpartition("# the lines")[0]
    lines = body.splitlines(keepends=True)
    for left_out in range(1, len(lines)):
        if MACROS not in lines[left_out] and HEAD not in lines[left_out]:
            write_sums(copied, "".join(lines[:left_out] + lines[left_out + 1 :]))
            refused(copied, "does not name", lines[left_out].split()[1])
    write_sums(copied, body + lines[1])
    refused(copied, SUMS, lines[1].split()[1])
    write_sums(copied, "".join(x for x in lines if MACROS not in x and HEAD not in x))
    without = load_model(copied)
    assert without.macros is None and without.head is None


def test_another_format_is_refused(copied):
    body = (copied / SUMS).read_text().rpartition("# the lines")[0]
    write_sums(copied, body.replace("format 1", "format 2"))
    assert "damaged" not in refused(copied, "has format 2: this version reads format 1")
    write_sums(copied, body.replace("smz_jax", "another"))
    refused(copied, SUMS)


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("export.json", lambda x: x.pop("action_names"), "action_names"),
        ("export.json", lambda x: x.update(seed="one"), "seed"),
        ("macros.json", lambda x: x.update(schema=99), "schema"),
    ],
)
def test_files_of_another_make_are_refused(copied, name, change, word):
    value = json.loads((copied / name).read_text())
    change(value)
    (copied / name).write_text(json.dumps(value))
    resum(copied)
    refused(copied, name, word)


def test_settings_of_another_make_are_refused(copied):
    (copied / "config.yaml").write_text((copied / "config.yaml").read_text() + "colour: red\n")
    resum(copied)
    refused(copied, "config.yaml", "colour")


def test_weights_of_another_model_are_refused(exported):
    model = load_model(exported)
    networks = make_networks(model.config.network, make_spec(model.config.env))
    name = next(iter(model.weights))
    array = model.weights[name]
    for weights in (
        {x: y for x, y in model.weights.items() if x != name},
        model.weights | {name: array[..., None]},
        model.weights | {name: array.astype(np.float16)},
    ):
        with pytest.raises(ConfigError, match=f"weights {name}"):
            fit_params(networks, weights)
    with pytest.raises(ConfigError, match="weights more"):
        fit_params(networks, model.weights | {"more": array})


def test_nothing_is_written_over(tiny_run, exported, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    refused(exported, "new or an empty folder", read=lambda out: export_run(tiny_run, out))
    file = tmp_path / "file"
    file.touch()
    refused(file, "new or an empty folder", read=lambda out: export_run(tiny_run, out))
    refused(file / "in", "written", read=lambda out: export_run(tiny_run, out))
    file.unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_nothing(exported, tmp_path, monkeypatch):
    model = load_model(exported)

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smz_jax.storage.export.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_export(tmp_path / "out", model)
    assert list(tmp_path.iterdir()) == []


def test_command_exports_and_tells(tiny_run, tmp_path, capsys):
    out = tmp_path / "out"
    assert command.main([str(tiny_run), "--out", str(out), "--checkpoint", "last"]) == 0
    text = capsys.readouterr().out
    assert "* agent, final after 128 steps" in text and str(out) in text
    assert read_export(out).about["checkpoint"] == "last"


def test_command_refuses_in_one_line(tiny_run, exported, tmp_path):
    main = command.main
    refused([], "RUN_DIR", read=main)
    refused([str(tmp_path)], "config.yaml", read=main)
    refused([str(tmp_path / "none")], "must be the folder of a run", read=main)
    refused([str(tiny_run), "--checkpoint", "worst"], "worst", read=main)
    refused([str(tiny_run), "--out", str(exported)], "out", "empty", read=main)
    no_best = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.rmtree(no_best / "checkpoints" / "best")
    refused([str(no_best), "--checkpoint", "best"], "last, the only one", read=main)
    assert load_model(no_best).about["checkpoint"] == "last"
    shutil.rmtree(no_best / "checkpoints")
    refused([str(no_best)], "no checkpoint", read=main)


def test_wrong_arguments_and_damage_are_answered_before_jax(tiny_run, exported, copied):
    (copied / "weights.npz").write_bytes(b"")
    calls = [
        ("export", [str(tiny_run), "--out", str(exported)]),
        ("play", [str(copied)]),
        ("play", [str(exported), "--games", "0"]),
        ("play", [str(exported), "--out", "game.avi"]),
    ]
    code = (
        "import sys\nfrom experiments import export, play\n"
        "from smz_jax.config.check import ConfigError\n"
        f"for name, words in {calls!r}:\n"
        "    try:\n        globals()[name].main(words)\n"
        "    except ConfigError as error:\n        print('refused', error)\n"
        "print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["refused"] * 4 + ["False"], done.stdout
