"""The command line: precedence, round trips, help, and one line for every mistake."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from experiments.benchmark.__main__ import read_command
from smz_jax.config import cli, sources
from smz_jax.config import experiment as experiments
from smz_jax.config.check import ConfigError
from smz_jax.config.experiment import PRESET_NAMES, PRESETS, Experiment, block, preset_overrides
from smz_jax.config.settings import Config
from smz_jax.config.sources import SETTINGS

BASE = {"env.id": "Pong", "learner.weight_decay": 0.5}


def parse(*argv, base=BASE, family=""):
    experiment = Experiment("pong", family, base, "Plays Pong.", "a score of 20")
    return cli.parse(list(argv), experiment)


def error_of(*argv) -> str:
    with pytest.raises(ConfigError) as excinfo:
        parse(*argv)
    message = str(excinfo.value)
    assert "\n" not in message
    return message


# --- precedence ---------------------------------------------------------------------------------


def test_each_layer_wins_over_the_one_before(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("seed: 5\nlearner: {td_steps: 3}\nmacro.capacity: 99\n")
    assert parse().config.learner.weight_decay == 0.5  # base over the default 1e-4
    config = parse("--preset", "tiny").config
    assert (config.experiment, config.env.id, config.env.num_envs) == ("pong", "Pong", 4)
    assert (config.learner.td_steps, config.macro.capacity, config.seed) == (2, 64, 0)
    config = parse("--preset", "tiny", "--config", str(file)).config
    assert (config.learner.td_steps, config.macro.capacity, config.seed) == (3, 99, 5)
    config = parse("--preset", "tiny", "--config", str(file), "--learner.td_steps", "4").config
    assert (config.learner.td_steps, config.macro.capacity, config.seed) == (4, 99, 5)


def test_preset_wins_over_base_and_a_family_adds_to_a_preset(monkeypatch, tmp_path):
    base = {"env.num_envs": 7, "seed": 3}
    assert parse("--preset", "tiny", base=base).config.env.num_envs == 4
    assert parse("--preset", "tiny", base=base).config.seed == 3
    general = (PRESETS / "general.yaml").read_text()
    (tmp_path / "general.yaml").write_text(general)
    (tmp_path / "own.yaml").write_text(
        "half: {env: {num_envs: 2}, seed: 5}\nbase: {log_every: 9}\n"
        "tiny: {like: [half, other/more], env.num_envs: 3}\n"
    )
    (tmp_path / "other.yaml").write_text("more: {seed: 6, replay: {min_size: 65}}\n")
    monkeypatch.setattr(experiments, "PRESETS", tmp_path)
    experiments._file.cache_clear()
    config = parse("--preset", "tiny", family="own").config
    assert (config.env.num_envs, config.seed, config.replay.min_size) == (3, 6, 65)
    smoke = block("general", "smoke")["env.num_envs"]
    assert parse("--preset", "smoke", family="own").config.env.num_envs == smoke
    assert parse("--preset", "smoke", family="own").config.log_every == 9
    with pytest.raises(
        ConfigError, match=r"family = 'none' is not allowed: .* general, other, own"
    ):
        parse("--preset", "tiny", family="none")
    experiments._file.cache_clear()


def test_preset_in_the_file_and_flag_over_it(tmp_path):
    file = tmp_path / "my.json"
    file.write_text('{"preset": "tiny", "seed": 1}')
    assert parse("--config", str(file)).preset == "tiny"
    found = parse("--config", str(file), "--preset", "smoke")
    assert found.preset == "smoke" and found.config.seed == 1
    assert "preset" not in found.explicit


def test_machine_decides_without_a_preset():
    found = parse("--seed", "4")
    assert found.preset is None and found.explicit == {"seed": "4"}
    with_gpu = cli.choose_preset(found, has_accelerator=True)
    assert (with_gpu.preset, with_gpu.config.env.num_envs) == ("gpu", 128)
    assert (with_gpu.config.seed, with_gpu.config.env.id) == (4, "Pong")
    without = cli.choose_preset(found, has_accelerator=False)
    assert (without.preset, without.config) == ("laptop", found.config)
    named = parse("--preset", "tiny")
    assert cli.choose_preset(named, has_accelerator=True) == named


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_presets_are_valid_and_name_real_settings(preset):
    assert set(block("general", preset)) <= set(SETTINGS)
    expected = preset_overrides(preset, "atari")
    flat = sources.flat_dict(parse("--preset", preset, base={}, family="atari").config)
    assert {name: flat[name] for name in expected} == expected


def test_rewards_that_are_not_clipped_have_a_wide_support(tmp_path, monkeypatch):
    def supports(*flags, base=None, family="atari", preset="laptop"):
        config = parse("--preset", preset, *flags, base=base or {}, family=family).config
        return config.network.value_support, config.network.reward_support

    off = "--env.no_clip_rewards"
    assert supports() == (20, 1) and supports("--env.clip_rewards") == (20, 1)
    for preset in PRESET_NAMES:
        assert supports(off, preset=preset) == (300, 300)
    assert supports(base={"env.clip_rewards": False}) == (300, 300)
    for flags, code in (((), ("none", 0.5, "hl_gauss")), ((off,), ("hyperbolic", 1.0, "two_hot"))):
        network = parse("--preset", "laptop", *flags, family="atari").config.network
        assert network.reward_transform == network.value_transform == code[0]
        assert (network.value_width, network.value_code) == code[1:]
    assert supports(off, "--network.reward_support", "7") == (300, 7)
    # Where the rewards are never clipped the setting changes nothing.
    assert supports(off, base={"env.suite": "gym"}, family="gym") == (60, 30)
    file = tmp_path / "my.yaml"
    file.write_text("env: {clip_rewards: 'false'}\nnetwork: {value_support: 9}\n")
    assert supports("--config", str(file)) == (9, 300)
    # What a family sets itself stays.
    (tmp_path / "general.yaml").write_text((PRESETS / "general.yaml").read_text())
    own = "laptop: {env: {clip_rewards: false}, network: {value_support: 50}}\n"
    (tmp_path / "own.yaml").write_text(own)
    monkeypatch.setattr(experiments, "PRESETS", tmp_path)
    experiments._file.cache_clear()
    assert supports(family="own") == (50, 300)
    experiments._file.cache_clear()


# --- flags --------------------------------------------------------------------------------------


def test_flags_in_all_their_spellings():
    config = parse(
        "--preset=tiny",
        "--total-env-steps=1e3",
        "--learner.learning_rate",
        "1e-3",
        "--env.no-episodic-life",
        "--env.clip_rewards",
        "false",
        "--eval.sticky_column",
        "--env.sticky-prob=none",
        "--env.mode",
        "stochastic",
        "--replay.capacity",
        "4_096",
    ).config
    assert config.total_env_steps == 1000 and type(config.total_env_steps) is int
    assert config.learner.learning_rate == 0.001
    assert config.env.episodic_life is False and config.env.clip_rewards is False
    assert config.eval.sticky_column is True
    assert config.env.sticky_prob is None and config.env.mode == "stochastic"
    assert config.replay.capacity == 4096


def test_run_dir_and_resume():
    found = parse("--run-dir", "some/where", "--resume", "--preset", "tiny")
    assert (found.run_dir, found.resume) == (Path("some/where"), True)
    assert found.explicit == {}
    assert (parse().run_dir, parse("--no_resume").resume) == (None, False)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ("--search.num_simulatons 8", ["--search.num_simulatons", "--search.num_simulations?"]),
        ("--num_simulations 8", ["did you mean --search.num_simulations?"]),
        ("--preste tiny", ["did you mean --preset?"]),
        ("--zzzzzz 1", ["--zzzzzz", "--help"]),
        ("8", ["'8'", "--name value"]),
        ("--seed", ["seed", "--seed VALUE"]),
        ("--seed --resume", ["seed", "--seed VALUE"]),
        ("--seed -1", ["seed", "-1", "0..2147483647"]),
        ("--seed 1.5", ["seed", "'1.5'", "whole number"]),
        ("--env.num_envs inf", ["env.num_envs", "'inf'", "whole number"]),
        ("--learner.learning_rate nan", ["learner.learning_rate", "nan", "finite"]),
        ("--learner.learning_rate fast", ["learner.learning_rate", "'fast'", "number"]),
        ("--env.episodic_life maybe", ["env.episodic_life", "'maybe'", "true or false"]),
        ("--env.backend gym", ["env.backend", "'gym'", "envpool, ale"]),
        ("--preset huge", ["preset", "'huge'", "tiny, smoke, laptop, gpu"]),
        ("--resume maybe", ["resume", "'maybe'", "true or false"]),
        ("--run_dir=", ["run_dir", "''", "path"]),
        ("--replay.capacity 1000 --replay.min_size 100", ["replay.capacity", "1000", "at least"]),
    ],
)
def test_each_wrong_flag_is_one_clear_line(argv, parts):
    message = error_of(*argv.split())
    for part in parts:
        assert part in message


def test_benchmark_knows_its_own_flags_misspelt():
    read_command(["--seed", "3", "--search.num_simulations=8", "--env.no_episodic_life"])
    for typed, meant in (("--secnds", "--seconds"), ("--jsn=3", "--json")):
        with pytest.raises(ConfigError, match=f"did you mean {meant}"):
            read_command([typed, "3"])


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("a.yaml", "seed: 1\nenv: {num_envs: 4\n", ["a.yaml line 3", "damaged YAML"]),
        ("a.yaml", "seed: 1\nseed: 2\n", ["a.yaml line 2", "'seed' is given twice"]),
        ("a.yaml", "env:\n  id: Pong\n  id: Pong\n", ["a.yaml line 3", "'id' is given twice"]),
        ("a.yaml", "env: {id: Pong}\nenv.id: Breakout\n", ["a.yaml", "'env.id' is given twice"]),
        ("a.json", '{"env.id": "Pong", "env": {"id": "Pong"}}', ["'env.id' is given twice"]),
        ("a.yaml", "x: !!python/object:os.system {}\n", ["a.yaml line 1", "damaged YAML"]),
        ("a.yaml", "? [1, 2]\n: 3\n", ["a.yaml line 1", "unhashable key"]),
        ("a.yaml", "seed: 2024-99-99\n", ["a.yaml", "damaged"]),
        ("a.yaml", "a: \x00\n", ["a.yaml", "damaged"]),
        ("a.yaml", "[" * 5000, ["a.yaml", "damaged"]),
        ("a.yaml", "- 1\n- 2\n", ["a.yaml", "[1, 2]", "mapping"]),
        ("a.yaml", "env: 5\n", ["env = 5", "section", "num_envs"]),
        ("a.yaml", "env: {num_env: 5}\n", ["'env.num_env'", "env.num_envs?", "a.yaml"]),
        ("a.yaml", "nmu_envs: 5\n", ["'nmu_envs'", "env.num_envs?"]),
        ("a.yaml", "env: {num_envs: [4]}\n", ["env.num_envs = [4]", "whole number"]),
        ("a.yaml", "env: {num_envs: true}\n", ["env.num_envs = True", "whole number"]),
        ("a.yaml", "env: {num_envs: }\n", ["env.num_envs = None", "whole number"]),
        ("a.yaml", "env: {id: 5}\n", ["env.id = 5", "text"]),
        ("a.yaml", "env: {mode: [a]}\n", ["env.mode = ['a']", "deterministic, stochastic"]),
        ("a.yaml", "preset: [tiny]\n", ["preset = ['tiny']", "tiny, smoke"]),
        ("a.json", '{"seed": 1,\n "env": }', ["a.json line 2", "damaged JSON"]),
        ("a.json", '{"seed": 1, "seed": 2}', ["a.json", "'seed' is given twice"]),
        ("a.json", '{"learner": {"gamma": NaN}}', ["learner.gamma = nan", "finite"]),
    ],
)
def test_each_damaged_file_is_one_clear_line(tmp_path, name, text, parts):
    (tmp_path / name).write_text(text)
    message = error_of("--config", str(tmp_path / name))
    for part in parts:
        assert part in message


def test_unreadable_files(tmp_path):
    assert "No such file" in error_of("--config", str(tmp_path / "none.yaml"))
    assert "Is a directory" in error_of("--config", str(tmp_path))
    (tmp_path / "latin.yaml").write_bytes(b"seed: \xff\xfe")
    assert "UTF-8" in error_of("--config", str(tmp_path / "latin.yaml"))
    (tmp_path / "big.yaml").write_text("#" * 1_000_001)
    assert "at most 50,000 bytes" in error_of("--config", str(tmp_path / "big.yaml"))


def test_numbers_that_yaml_reads_as_text(tmp_path):
    """YAML 1.1 takes 1e-3 for text; a float without a dot stays exact."""
    assert yaml.safe_load("1e-3") == "1e-3"
    file = tmp_path / "a.yaml"
    file.write_text("learner: {learning_rate: 2e-3, gamma: 1}\nreplay.capacity: 1e5\n")
    config = parse("--config", str(file)).config
    assert (config.learner.learning_rate, config.replay.capacity) == (0.002, 100_000)
    assert type(config.replay.capacity) is int and type(config.learner.gamma) is float


def test_empty_file_changes_nothing(tmp_path):
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert parse("--config", str(tmp_path / "a.yaml")).config == parse().config


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_yaml_round_trip_is_exact(preset):
    config = parse("--preset", preset, "--learner.learning_rate", "1.2345678901234567e-05").config
    text = sources.config_to_yaml(config)
    assert sources.config_from_yaml(text) == config
    assert sources.config_to_yaml(sources.config_from_yaml(text)) == text
    assert yaml.safe_load(text)["learner"]["learning_rate"] == 1.2345678901234567e-05
    assert sources.from_dict(dataclasses.asdict(config)) == config


def test_diff_names_each_difference():
    a = Config()
    b = dataclasses.replace(a, seed=3, env=dataclasses.replace(a.env, num_envs=8))
    assert sources.diff(a, a) == []
    assert sources.diff(a, b) == ["seed: 0 != 3", "env.num_envs: 32 != 8"]


# --- help ---------------------------------------------------------------------------------------


def test_help_shows_every_setting_with_its_text_and_default(capsys):
    with pytest.raises(SystemExit) as excinfo:
        parse("--preset", "tiny", "--search.num_simulations", "13", "--help")
    assert excinfo.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in (*SETTINGS, "preset", "config", "run_dir", "resume"):
        assert f"--{name}" in text
    for part in (
        "Plays Pong. Expected at laptop: a score of 20.",
        "python -m experiments.pong --preset smoke --seed 1",
        "report.html",
        "Windows per update. (default: 4)",  # the tiny preset's, not the dataclass's
        "--env.id STR Name of the game: as ALE spells it (Breakout, SpaceInvaders), a Gymnasium or "
        "envpool id (CartPole-v1), one of your own (my_module:MyEnv-v0), or pgx's (2048, "
        "minatar-breakout). (default: Pong)",
        "(default: 13)",
        "--env.episodic_life, --env.no_episodic_life",
    ):
        assert part in text


def test_help_is_given_beside_a_mistake(capsys):
    with pytest.raises(SystemExit) as excinfo:
        parse("--nonsense", "1", "-h")
    assert excinfo.value.code == 0
    assert "--search.num_simulations" in capsys.readouterr().out
