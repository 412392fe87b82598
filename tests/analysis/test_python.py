"""`import smz_jax`: what it loads, a model that acts, looks and is measured, a run by a call."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import smz_jax
from smz_jax.acting.agent import Agent
from smz_jax.config.check import ConfigError
from smz_jax.config.sources import flat_dict
from smz_jax.run import from_python
from smz_jax.run.ending import resume_command
from smz_jax.run.launch import Ended
from smz_jax.storage import pretrained
from tests.support.house import ROOT


def test_importing_it_loads_nothing_and_every_name_is_there():
    code = (
        "import sys, smz_jax\n"
        "print([x for x in sys.modules if x.startswith(('smz_jax.', 'jax', 'numpy'))])\n"
        "print([x for x in smz_jax.__all__ if not getattr(smz_jax, x).__doc__])\n"
        "print(dir(smz_jax) == smz_jax.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["[]", "[]", "True"], done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = smz_jax.trian


@pytest.fixture(scope="module")
def model(tiny_run):
    return smz_jax.load(tiny_run, "last")


@pytest.fixture(scope="module")
def moments(model):
    return list(model.play(2, seed=5))


def test_it_acts_as_its_agent_does(model, moments):
    seen = [x.timestep.observation[0] for x in moments if x.action is not None][:2]
    assert len({x.tobytes() for x in seen}) > 1
    agent = Agent(model.functions.decide, model.functions.params, 3)
    together = model.act(np.stack(seen), seed=3)
    for number, observation in enumerate(seen):
        timestep, _ = model._seen(observation, None)
        wanted = int(agent(timestep, 0)[0])
        assert model.act(observation, seed=3) == model.act(observation[0], seed=3) == wanted
        assert together.shape == (2,) and together.dtype == np.int32
        assert model.search(observation, seed=3).action == wanted, number


def test_what_is_not_allowed_is_not_played(model, moments):
    observation = moments[0].timestep.observation[0]
    for action in range(model.spec.num_actions):
        invalid = np.ones(model.spec.num_actions)
        invalid[action] = 0
        assert model.act(observation, invalid) == action
        found = model.search(observation, invalid)
        assert found.visits[action] == found.visits.sum() == model.config.search.num_simulations


def test_a_look_says_what_the_search_found(model, moments):
    observation = moments[0].timestep.observation[0]
    found = model.search(observation)
    agent = Agent(model.functions.decide, model.functions.params, 0)
    agent(model._seen(observation, None)[0], 0)
    search, entropy = agent.decision.search, agent.decision.transition_entropy
    simulations, actions = model.config.search.num_simulations, model.spec.num_actions
    assert found.value == pytest.approx(float(search.value[0]))
    assert found.visits.sum() == simulations and len(found.names) == actions
    np.testing.assert_allclose(found.weights, search.action_weights[0], atol=1e-6)
    np.testing.assert_allclose(found.weights, found.visits / simulations, atol=1e-6)
    # The mean over the root's visits, with its own value once, gives that of the root (mctx).
    own = float(search.tree.raw_values[0, 0])
    total = own + float(np.nansum(found.values * found.visits))
    assert found.value == pytest.approx(total / (1 + simulations), abs=1e-4)
    assert np.isnan(found.values[found.visits == 0]).all()
    codes = model.config.network.codebook_size
    assert found.chance.shape == (actions, codes)
    np.testing.assert_allclose(found.chance.sum(axis=1), 1, atol=1e-5)
    plain = [-sum(p * np.log(p) for p in row if p > 0) / np.log(codes) for row in found.chance]
    np.testing.assert_allclose(found.entropy, plain, atol=1e-4)
    assert found.entropy[found.action] == pytest.approx(float(entropy[0]), abs=1e-5)
    logits = model.functions.networks.prediction(
        model.functions.params,
        model.functions.networks.representation(model.functions.params, observation[None]),
    ).policy_logits
    np.testing.assert_allclose(found.prior, jax.nn.softmax(logits[0]), atol=1e-5)
    text = str(found).splitlines()
    assert len(text) == actions + 2 and text[1].split()[1] == str(found.visits.max())
    assert sum(line.endswith("played") for line in text) == 1
    assert found.figure(most=9).axes


def test_a_tree_without_a_certain_transition_is_drawn_too(model, moments):
    certain = model.changed({"macro.tree_threshold": 1e-6})
    library = {**model.library, "config": {**model.library["config"], "tree_threshold": 1e-6}}
    found = certain.search(moments[0].timestep.observation[0])._replace(library=library)
    title = found.figure(most=9).axes[0].get_title(loc="left")
    assert title.endswith("no transition is certain"), title


def test_more_simulations_are_a_setting(model, moments):
    more = model.changed({"search": {"num_simulations": 3}})
    assert more.search(moments[0].timestep.observation[0]).visits.sum() == 3
    assert model.config.search.num_simulations != 3
    with pytest.raises(ConfigError, match="unknown setting"):
        model.changed({"search.simulations": 3})


def test_its_score_is_that_of_its_run(model, tiny_run):
    wanted = json.loads((tiny_run / "summary.json").read_text())["evaluation"]
    assert model.evaluate()["scores"] == wanted["scores"]
    assert model.evaluate(2)["scores"] == wanted["scores"][:2]
    with pytest.raises(ConfigError, match="games = 0"):
        model.evaluate(0)


def test_lanes_give_no_more_games_than_needed(model, monkeypatch):
    from smz_jax.analysis import trained

    asked = []
    measure = lambda agent, config, **options: asked.append((config, options)) or {}  # noqa: E731
    monkeypatch.setattr(trained, "evaluate", measure)
    many = model.changed({"eval.num_envs": 64})
    for games, lanes in ((100, 50), (64, 64), (7, 7), (130, 44)):
        many.evaluate(games)
        config, options = asked.pop()
        assert config.eval.num_envs == lanes and options["num_games"] == games


def test_macros_are_listed_as_by_the_command(model):
    counts = [macro["count"] for macro in model.macros(top=3)]
    assert counts == sorted(counts, reverse=True) and len(counts) == 3
    assert all(len(set(x["actions"])) > 1 for x in model.macros(no_repeats=True))
    with pytest.raises(ConfigError, match="sort = 'best'"):
        model.macros(sort="best")


@pytest.mark.parametrize("shape", [(), (2,), (1, 2, 3), (0, 1, 3, 3, 5)])
def test_other_shapes_are_refused_in_a_line(model, shape):
    with pytest.raises(ConfigError, match=r"^observation.shape = \(.*\) is not allowed"):
        model.act(np.zeros(shape, np.float32))


def test_it_is_exported_and_loaded_again(model, moments, tmp_path, monkeypatch):
    model.export(tmp_path / "cartpole")
    monkeypatch.chdir(tmp_path)
    again = smz_jax.load("cartpole")  # the folder here, not the weights of that name
    assert again.exported.about == model.exported.about and repr(again) == repr(model)
    observation = moments[0].timestep.observation[0]
    found, wanted = (x.search(observation).visits for x in (again, model))
    np.testing.assert_array_equal(found, wanted)


def test_a_game_that_shows_other_things_is_refused(model):
    about = {**model.exported.about, "frame_shape": [7, 7]}
    with pytest.raises(ConfigError, match=r"^the model's observations = \[7, 7\] is not allowed"):
        smz_jax.Model(model.exported._replace(about=about))
    about = {**model.exported.about, "action_names": ["A"]}
    with pytest.raises(ConfigError, match="the model's actions"):
        smz_jax.Model(model.exported._replace(about=about))


def test_an_unknown_name_lists_what_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ", ".join(sorted(smz_jax.pretrained()))
    with pytest.raises(ConfigError) as refused:
        smz_jax.load("cartpol")
    assert str(refused.value).endswith(f"weights that come with the package: {names}")


def test_a_call_describes_its_run(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(from_python.launch, "run", lambda x: called.append(x) or Ended(tmp_path, 0))
    settings = {"search.num_simulations": 3, "env": {"kwargs": {"map": "tiny"}}}
    run = smz_jax.train("gridworld", settings, preset="tiny", run_dir=tmp_path / "a", seed=4)
    (invocation,) = called
    config = flat_dict(invocation.config)
    assert config["search.num_simulations"] == 3 and config["seed"] == 4
    assert json.loads(config["env.kwargs"]) == {"map": "tiny"}
    assert config["env.suite"] == "grid" and invocation.preset == "tiny"
    assert invocation.run_dir == tmp_path / "a" and run == (tmp_path,)
    assert invocation.command.startswith("smz_jax.train('gridworld', preset='tiny'")
    assert invocation.experiment.on_check and invocation.experiment.on_finish
    continues = resume_command(invocation, tmp_path / "a")
    assert continues == f"smz_jax.train('gridworld', run_dir={str(tmp_path / 'a')!r}, resume=True)"
    mine = smz_jax.Experiment("mine", "vector", {"env.suite": "gym", "env.id": "Acrobot-v1"})
    smz_jax.train(mine, preset="tiny")
    assert called[-1].config.env.id == "Acrobot-v1" and called[-1].config.experiment == "mine"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"experiment": "cartpol"}, "unknown experiment 'cartpol'; did you mean cartpole"),
        ({"preset": "huge"}, "preset = 'huge'"),
        ({"seeed": 1}, "unknown setting 'seeed' in the settings of train(); did you mean seed?"),
        ({"resume": True, "init_from": "a"}, "init_from = 'a' is not allowed: it must be left out"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_a_wrong_call_is_one_line(words, line):
    with pytest.raises(ConfigError, match=re.escape(line)):
        smz_jax.train(**{"experiment": "cartpole", **words})


def test_a_run_that_stopped_by_itself_raises_its_line(monkeypatch, tmp_path, capsys):
    def run(invocation):
        print("words")
        return Ended(tmp_path, 1, "3 updates were skipped")

    monkeypatch.setattr(from_python.launch, "run", run)
    with pytest.raises(RuntimeError, match="3 updates were skipped"):
        smz_jax.train("cartpole", preset="tiny", quiet=True)
    assert capsys.readouterr().out == ""


def test_the_bar_of_a_notebook_is_text_in_one_place(monkeypatch):
    """With IPython's display replaced by a list: one output that is written anew."""
    from smz_jax.run import progress

    shown, now = [], iter(np.arange(0, 100, 0.2))
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))
    display = lambda data, raw, display_id: shown.append(data["text/plain"]) or handle  # noqa: E731
    module = SimpleNamespace(display=display)
    monkeypatch.setattr(progress.importlib, "import_module", lambda name: module)
    stream = type("OutStream", (), {"__module__": "ipykernel.iostream"})()
    stream.isatty, stream.write, stream.flush = (lambda: False), (lambda text: len(text)), print
    monkeypatch.setattr(progress.sys, "stdout", stream)
    with progress.Progress(100, "cartpole", clock=lambda: next(now)) as bar:
        bar.status("compiling")
        for steps in range(10, 101, 10):
            bar.update(steps, {"score/mean": 1.5})
    assert "cartpole" in shown[0] and "0%" in shown[0]
    assert 2 < len(shown) < 12 and "100%" in shown[-1] and shown[-1].endswith("score 1.5")
    assert all(len(line) <= progress.Cell.COLUMNS for text in shown for line in text.splitlines())


def test_folder_or_name(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "ROOT", tmp_path / "package")
    monkeypatch.setattr(pretrained, "SCORES", tmp_path / "scores.json")
    (tmp_path / "scores.json").write_text('{"pole": {}}')
    monkeypatch.chdir(tmp_path)
    name, out = Path("pole"), Path("elsewhere")
    found = pretrained.find_model(name)
    assert found == tmp_path / "package/pole" and pretrained.place_for(found, out) == out
    with pytest.raises(ConfigError, match="out = None is not allowed"):
        pretrained.place_for(found, None)
    (tmp_path / "pole").mkdir()
    assert pretrained.find_model(name) == pretrained.place_for(name, None) == name
