"""Macros of a whole run: in the report, and looked at from end to end."""

import hashlib

import pytest

from smz_jax.analysis.view import drawing
from smz_jax.config.check import ConfigError
from smz_jax.report.data import load_run
from smz_jax.report.macro_tables import macro_lines, macro_tables
from smz_jax.report.verdict import find_warnings
from smz_jax.storage.documents.macro_form import LIBRARY, decode, write_macros_json
from tests.macros.test_macro_listing import FOUR, library, macro, selection
from tests.support.fake_run import write_run

# The report.


def test_a_report_tells_of_a_dead_gate_and_of_prefixes(tmp_path):
    path = write_run(tmp_path / "breakout" / "a", iterations=4)

    def told(document):
        write_macros_json(path, document)
        run = load_run(path)
        return run, " ".join(find_warnings([run]))

    run, text = told(FOUR)
    assert "No macro is sound" not in text and "prefixes" not in text
    assert run.problems == [] and "2 sound, 1 refuted" in macro_lines(run)[0]
    assert "not measured; experiments.macros does" in macro_lines(run)[1]
    run, text = told(library(certain=0))
    assert "The gate that closed: certainty: no certain windows" in text
    full = library(*(macro((2,) * n, 9) for n in (2, 3, 4)))
    run, text = told({**full, "selection": selection(((2, 2), 7.5), of="table")})
    assert "too few trials" in text and "67% of the macros" in text
    assert "none of which is sound" in macro_lines(run)[1]
    table, *_ = macro_tables(run)
    assert table.title == "Library by compression"
    assert table.rows[0][table.columns.index("saves bits")] == "7.5"
    (path / "macros.json").write_text('{"schema": 5, "macros": []}')
    assert "a newer version wrote it" in load_run(path).problems[0]


# All of it, with a model.


def test_a_run_is_looked_at_from_end_to_end(tiny_run, tmp_path, capsys):
    import shutil

    from experiments import macros as command
    from smz_jax.report.build import build_report
    from smz_jax.storage.checkpoint import CheckpointStore

    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    assert command.main([str(run), "--games", "2", "--max_steps", "30"]) == 0
    out = capsys.readouterr().out
    document = LIBRARY.read(run)
    found = document["selection"]
    assert found["play"]["source"] == "replay" and "library by compression:" in out
    # Each lane's rows less the newest one, and less those whose action a new game ignored.
    (first,) = CheckpointStore(run).read_fields(4, ("is_first",))
    assert found["play"]["actions"] == first.size - len(first) - first[:, 1:].sum()
    assert found["bits_per_action"] <= found["bits_per_action_plain"]
    assert ("no macro is sound" in out) == (found["of"] == "table")
    drawn = [name for name in (drawing.TIMELINE, drawing.TREE, drawing.STRIPS) if name in out]
    assert drawn == [drawing.TIMELINE, drawing.TREE, drawing.STRIPS]
    assert all((run / "figures" / f"{name}.png").stat().st_size > 10_000 for name in drawn)
    page = build_report([run]).read_text("utf-8")
    assert all(f'id="{name}"' in page for name in drawn)
    assert "bits per action" in page and "The gate that closed" in page
    sums = hashlib.sha256((run / "macros.json").read_bytes()).hexdigest()
    assert command.main([str(run), "--table", "--sort", "saving", "--top", "3"]) == 0
    assert hashlib.sha256((run / "macros.json").read_bytes()).hexdigest() == sums


def of_other_actions(document):
    document["action_names"].append("UP")
    return "action_names.*UP.*those of the model: "


def of_longer_macros(document):
    document["config"]["max_length"] = 8
    entry = document["macros"][0]
    entry["actions"] = entry["actions"][:1] * 8
    entry["names"] = decode(entry["actions"], document["action_names"])
    entry["length"] = 8
    return r"length = 8.*at most macro\.max_length = \d"


@pytest.mark.parametrize("change", [of_other_actions, of_longer_macros])
@pytest.mark.parametrize("source", ["replay", "games"])
def test_a_library_of_another_game_is_refused_before_anything(
    tiny_run, tmp_path, capsys, change, source
):
    import shutil

    from experiments import macros as command

    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    document = LIBRARY.read(run)
    document["macros"] = document["macros"][:1]
    words = change(document)
    write_macros_json(run, document)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(ConfigError, match=words) as error:
        command.main([str(run), "--games", "1", "--max_steps", "5", "--play", source])
    assert "\n" not in str(error.value) and capsys.readouterr().out == ""
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_an_export_plays_games_and_stays_as_it_is(tiny_run, tmp_path, capsys):
    from experiments import macros as command
    from smz_jax.analysis.load import export_run
    from smz_jax.storage.export import read_files

    export, out = tmp_path / "export", tmp_path / "out"
    export_run(tiny_run, export, "last")
    before = read_files(export)
    arguments = [str(export), "--games", "3", "--max_steps", "20", "--out", str(out)]
    assert command.main(arguments) == 0
    assert read_files(export) == before and not (export / "figures").exists()
    found = LIBRARY.read(out)["selection"]
    assert found["play"]["source"] == "games" and found["play"]["pieces"] >= 3
    assert (out / "figures" / "macro_timeline.png").exists()
    with pytest.raises(ConfigError, match=r"play = 'replay'.*games"):
        command.main([*arguments, "--play", "replay"])
