"""Runs of worlds whose actions have several parts, against enumeration.

python -m pytest -m slow tests/run/test_action_spaces.py      learns both worlds, 4 CPU minutes each
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.text import Text

from experiments.gym import EXPERIMENT
from smz_jax import load
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import parse
from smz_jax.config.sources import config_to_yaml
from smz_jax.envs import make_spec
from smz_jax.report.data import load_run
from smz_jax.report.panels import PANELS
from smz_jax.run import parts as run_parts
from smz_jax.run.loop import tell_limits, train
from smz_jax.run.stored_play import make_reader
from smz_jax.storage.metrics import PhaseTimers
from tests.support.gym_worlds import Composed

pytestmark = pytest.mark.usefixtures("shared_by_all_lengths")
ID = ("--env.id", "tests.support.gym_worlds:Composed-v0")
LONGER = {
    "total_env_steps": 8192, "learner.updates_per_env_step": 1, "learner.schedule_steps": 8000,
    "network.hidden_size": 128, "network.reward_transform": "none", "network.reward_support": 5,
    "network.value_support": 10, "network.reward_sees_afterstate": None, "loss.reward": 4,
    "reanalyse.ratio": 1, "search.num_simulations": 32, "search.gumbel_value_scale": 1,
    "macro.head_learning_rate": 0, "eval.num_games": 100, "eval.no_baselines": None,
}  # fmt: skip


def flags(kind, preset, **settings):
    every = {"env.kwargs": json.dumps({"kind": kind}), "eval.no_check_model": None, **settings}
    words = [f"--{name}" + (f"={x}" if x is not None else "") for name, x in every.items()]
    return parse(["--preset", preset, *ID, *words], EXPERIMENT).config


def test_a_run_of_a_choice_and_a_number(tmp_path, capsys, monkeypatch):
    """Sampled candidates, reanalysed targets, a resume; and no macros, said in one line."""
    monkeypatch.setattr(run_parts, "init_head", None)  # there is none to make
    settings = {"search.sampled_actions": 8, "reanalyse.ratio": 0.5, "total_env_steps": 96}
    settings |= {"network.number_policy": "gaussian", "macro.head_learning_rate": 0.002}
    config = flags("mixed", "tiny", **settings)
    spec = make_spec(config.env)
    assert (spec.num_actions, spec.num_options, spec.action_names) == (33, 14, ())
    outcome = train(config, tmp_path)
    assert outcome.finished and outcome.learner_steps > 0
    out = capsys.readouterr().out
    assert out.count("no macros: actions have continuous parts") == 1
    assert outcome.library["macros"] == [] and outcome.library["stats"]["certain_play"] == 0
    assert outcome.library["stats"]["trees"] == 0  # nor does the search for them run
    run = load_run(tmp_path)
    hidden = {name for name, panel in PANELS.items() if not panel.shown([run])}
    assert {"gates", "generality", "preconditions", "top_macros", "macros_found"} <= hidden
    assert not hidden & {"score", "losses", "transition_entropy"}
    assert outcome.baselines["random"] and outcome.baselines["constant"] == {}
    (tmp_path / "config.yaml").write_text(config_to_yaml(config))
    seen = load(tmp_path).search(np.zeros(spec.observation_shape, spec.frame_dtype))
    assert seen.visits.sum() == 4 and len(seen.library["action_names"]) == 33
    assert seen.names[0] in {text.get_text() for text in seen.figure().findobj(Text)}
    longer = flags("mixed", "tiny", **settings | {"total_env_steps": 128})
    assert train(longer, tmp_path, resume=True).env_steps == 128


def test_what_composed_actions_are_not_for_is_refused_in_one_line():
    config = flags("dials", "tiny")
    spec = make_spec(config.env)
    assert spec.num_actions == 60 and spec.action_names[:2] == ("0 0 0", "0 0 1")
    with pytest.raises(ConfigError, match=r"^action space of .*Composed-v0 = .* datasets"):
        make_reader(None, config, spec)


def test_a_run_says_where_no_action_is_drawn():
    lines = []
    told = SimpleNamespace(message=lines.append)
    for wanted in (None, 60, 61):
        config = SimpleNamespace(search=SimpleNamespace(sampled_actions=wanted))
        spec = make_spec(flags("dials", "tiny").env)
        parts = SimpleNamespace(
            spec=spec, config=config, source=None, demonstrations=None, transfer=None
        )
        tell_limits(parts, told, SimpleNamespace(is_handling=True))
    assert lines == ["search.sampled_actions = 61: all 60 actions are searched"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "share"), [("dials", 0.95), ("mixed", 0.92)])
def test_composed_actions_are_learned_near_the_optimum_of_enumeration(kind, share, tmp_path):
    """Shares of the optimum as measured; docs/results/actions.md says why by these settings."""
    outcome = train(flags(kind, "smoke", **LONGER), tmp_path)
    assert outcome.evaluation["mean"] > share * Composed(kind).optimum()


def test_gains_of_macros_that_cannot_be_are_refused_in_one_line():
    """An action of one part, so that there may be a jump; but a number."""
    words = ["--env.id", "Pendulum-v1", "--preset", "tiny", "--macro.head_learning_rate", "1e-3"]
    config = parse([*words, "--network.jump_length", "2", "--network.gain_slots", "2"], EXPERIMENT)
    with pytest.raises(ConfigError, match=r"network.gain_slots = 2 .* 0, for actions"):
        run_parts.make_parts(config.config, PhaseTimers())
