"""Run folders: names, protection of existing runs, resuming."""

import subprocess
import sys
from pathlib import Path

import pytest

from smz_jax.config import cli
from smz_jax.config.check import ConfigError
from smz_jax.config.experiment import Experiment
from smz_jax.storage import run_dir

ROOT = Path(__file__).resolve().parents[2]


def parse(*argv):
    return cli.parse(list(argv), Experiment("pong", base={"env.id": "Pong"}))


def folder_error(*argv) -> str:
    with pytest.raises(ConfigError) as excinfo:
        run_dir.prepare_run_dir(parse("--preset", "tiny", *argv))
    assert "\n" not in str(excinfo.value)
    return str(excinfo.value)


def test_default_folder_is_named_by_time_and_seed_and_never_shared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_dir.time, "strftime", lambda _: "20260102-030405")
    made = [run_dir.prepare_run_dir(parse("--preset", "tiny", "--seed", "7")) for _ in range(3)]
    stem = "runs/pong/20260102-030405-seed7"
    assert [str(path) for path in made] == [stem, f"{stem}-2", f"{stem}-3"]
    assert "experiment = '../up'" in folder_error("--experiment", "../up")


def test_saved_settings_repeat_the_run(tmp_path):
    invocation = parse("--preset", "tiny", "--seed", "7", "--run_dir", str(tmp_path / "a"))
    folder = run_dir.prepare_run_dir(invocation)
    text = (folder / "config.yaml").read_text()
    assert "# preset: tiny" in text and "python -m experiments.pong --preset tiny" in text
    again = parse("--config", str(folder / "config.yaml"))
    assert again.config == invocation.config
    assert cli.choose_preset(again, has_accelerator=True).config == invocation.config


def test_existing_runs_are_protected(tmp_path):
    where = ["--run_dir", str(tmp_path / "a")]
    assert "to resume" in folder_error(*where, "--resume")
    assert "--resume" in folder_error("--resume")
    run_dir.prepare_run_dir(parse("--preset", "tiny", *where))
    assert "pass --resume" in folder_error(*where)
    message = folder_error(*where, "--seed", "3")
    assert "seed: 0 != 3" in message and "other settings" in message
    assert "seed: 0 != 3" in folder_error(*where, "--seed", "3", "--resume")
    assert run_dir.prepare_run_dir(parse("--preset", "tiny", *where, "--resume")).name == "a"


def test_resume_takes_the_saved_settings_and_may_go_on_for_longer(tmp_path):
    where = ["--run_dir", str(tmp_path / "a")]
    first = parse("--preset", "tiny", "--seed", "5", *where)
    run_dir.prepare_run_dir(first)
    bare = cli.choose_preset(parse("--resume", *where), has_accelerator=True)
    assert bare.config == first.config
    longer = parse("--resume", *where, "--total_env_steps", "640")
    run_dir.prepare_run_dir(longer)
    assert run_dir.read_config(tmp_path / "a").total_env_steps == 640
    shorter = parse("--resume", *where, "--total_env_steps", "128")
    with pytest.raises(ConfigError, match="total_env_steps: 640 != 128"):
        run_dir.prepare_run_dir(shorter)
    with pytest.raises(ConfigError, match=r"env\.num_envs: 4 != 2"):
        run_dir.prepare_run_dir(parse("--resume", *where, "--env.num_envs", "2"))


@pytest.mark.parametrize(("which", "kept"), [("", "last"), ("@best", "best"), ("@640", "640")])
def test_the_folder_tells_what_weights_its_run_began_with(tmp_path, monkeypatch, which, kept):
    """Also after a resume, from elsewhere: the first checkpoint may not have been written yet."""
    monkeypatch.chdir(tmp_path)
    flags = ["--preset", "tiny", "--run_dir", "a", "--init_from", f"former{which}"]
    folder = run_dir.prepare_run_dir(parse(*flags))
    run_dir.prepare_run_dir(parse("--resume", "--run_dir", "a"))
    assert run_dir.began_with(folder) == f"{tmp_path}/former@{kept}"
    kind, step = ("last", 640) if kept == "640" else (kept, None)
    assert run_dir.split_init_from(f"former@{kept}") == (Path("former"), kind, step)
    assert run_dir.split_init_from(f"a@b/former@{kept}") == (Path("a@b/former"), kind, step)
    run_dir.prepare_run_dir(parse("--preset", "tiny", "--run_dir", "b"))
    assert run_dir.began_with(Path("b")) is None and run_dir.began_with(Path("c")) is None


def test_folders_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    assert "not a file" in folder_error("--run_dir", str(tmp_path / "file"))
    assert "can be written" in folder_error("--run_dir", str(tmp_path / "file" / "below"))
    assert "can be written" in folder_error("--run_dir", "/proc/nowhere")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").write_text("seed: [")
    assert "config.yaml line 1: damaged YAML" in folder_error("--run_dir", str(tmp_path / "a"))


def test_versions_and_commit():
    found = run_dir.versions()
    assert found["jax"].count(".") == 2 and found["python"] == sys.version.split()[0]
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    commit = run_dir.git_commit()
    if done.returncode == 0:
        assert commit is not None and commit.removesuffix("-dirty") == done.stdout.strip()
    else:
        assert commit is None


def test_a_folder_may_have_an_at_in_its_name(tmp_path):
    for name in ("a@b", "a@7", "a@best"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").touch()
        assert run_dir.split_init_from(str(folder)) == (folder, "last", None)
        assert run_dir.split_init_from(f"{folder}@best") == (folder, "best", None)
    assert run_dir.split_init_from("a@b/run") == (Path("a@b/run"), "last", None)
    with pytest.raises(ConfigError, match="RUN_DIR@STEP"):
        run_dir.split_init_from(f"{tmp_path}/none@bets")
    (tmp_path / "c@d").mkdir()
    with pytest.raises(ConfigError, match=r"run_dir = .*c@d' .* the folder of a run"):
        run_dir.find_weights(f"{tmp_path}/c@d")


def test_the_settings_of_a_run_repeat_it_under_its_own_preset(tmp_path):
    former = parse("--preset", "smoke", "--seed", "3", "--run_dir", str(tmp_path / "a"))
    path = run_dir.prepare_run_dir(former) / "config.yaml"
    again = parse("--config", str(path))
    assert (again.preset, again.config) == ("smoke", former.config)
    assert parse("--config", str(path), "--preset", "tiny").preset == "tiny"


def test_without_a_home_a_tilde_is_refused(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ConfigError, match="no home folder"):
        parse("--run_dir", "~/runs")


@pytest.mark.parametrize("name", ["a\nb", "a\udce4b", "a [1] @b"])
def test_weights_of_a_run_in_any_folder_are_noted(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    run_dir.prepare_run_dir(parse("--preset", "tiny", "--run_dir", "b", "--init_from", "a"))
    noted = run_dir.began_with(Path("b"))
    assert noted and run_dir.split_init_from(noted)[0] == tmp_path / name / "a"
    assert run_dir.read_config(Path("b")).seed == 0
