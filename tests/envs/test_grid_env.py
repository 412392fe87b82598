"""The grid world as a vector environment, against its own exact rules and the protocol."""

import json

import numpy as np
import pytest
from matplotlib import image
from scipy import stats

from experiments import gridworld
from smz_jax.analysis.rules.grid_figure import FADED, grid_figure, policy_text, values_text
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_env, make_spec
from smz_jax.envs.grid.grid_env import _cumulative, grid_observations, states_of
from smz_jax.envs.grid.map import read_map
from smz_jax.envs.grid.rules import make_rules, optimal_values, true_entropy


def make_config(limit=60, stack=1, **kwargs):
    return EnvConfig(
        suite="grid",
        id="GridWorld",
        frame_stack=stack,
        max_episode_steps=limit,
        kwargs=json.dumps(kwargs),
    )


def play(config, steps, seed=0, num_envs=16, first_lane=0, actions=None):
    env = make_env(config, seed=seed, num_envs=num_envs, first_lane=first_lane)
    generator = np.random.default_rng(7)
    actions = generator.integers(0, 4, (steps, num_envs)) if actions is None else actions
    rows = [env.reset(), *(env.step(row.astype(np.int32)) for row in actions)]
    env.close()
    return rows, actions


def test_frequencies_are_the_rules():
    """Chi-square of every (s, a) with enough visits: next states and rewards."""
    kwargs = {"map": "S~$/.$~/~.G", "prize_prob": 0.3, "prize": 0.25, "slip": 0.5}
    rules = make_rules(read_map(kwargs["map"], prize_prob=0.3, prize=0.25, slip=0.5))
    rows, actions = play(make_config(**kwargs), 3000, num_envs=32)
    states = np.stack([row.observation[:, 0].argmax(axis=1) for row in rows])
    first = np.stack([row.is_first for row in rows])
    rewards = np.stack([row.raw_reward for row in rows])
    p_values = []
    for state in np.flatnonzero(~rules.terminal):
        for action in range(4):
            here = (states[:-1] == state) & (actions == action) & ~first[1:]
            assert here.sum() > 500
            possible = rules.probability[state, action] > 0
            chance = rules.probability[state, action][possible]
            pairs = [
                np.sum((states[1:][here] == after) & (np.abs(rewards[1:][here] - paid) < 1e-6))
                for after, paid in zip(
                    rules.next_state[state, action][possible],
                    rules.reward[state, action][possible],
                    strict=True,
                )
            ]
            assert sum(pairs) == here.sum(), "something happened that cannot"
            if len(pairs) > 1:
                p_values.append(stats.chisquare(pairs, chance * here.sum()).pvalue)
    # 18 tests; if all is well the least p-value falls below 1e-4 once in 500 seeds.
    assert len(p_values) == 18 and min(p_values) > 1e-4
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_starts_are_shared_evenly():
    rows, _ = play(make_config(limit=1, map="S.S/.../S.G"), 2000, num_envs=4)
    states = np.concatenate([row.observation[row.is_first, 0].argmax(axis=1) for row in rows])
    counts = np.bincount(states, minlength=9)
    assert set(np.flatnonzero(counts)) == {0, 2, 6}
    assert stats.chisquare(counts[[0, 2, 6]]).pvalue > 1e-3


def test_ends_limits_and_the_ignored_step():
    """By hand on S . G: the goal two steps to the right; a limit of three."""
    right, up = 1, 0
    actions = np.array([[right, up], [right, up], [up, up], [right, up], [up, right], [up, right]])
    rows, _ = play(make_config(limit=3, map="S.G", step_cost=0), 6, num_envs=2, actions=actions)
    state = np.stack([row.observation[:, 0].argmax(axis=1) for row in rows])
    np.testing.assert_array_equal(state[:, 0], [0, 1, 2, 0, 1, 1, 1])
    np.testing.assert_array_equal(state[:, 1], [0, 0, 0, 0, 0, 1, 2])

    def column(name, lane):
        return [float(getattr(row, name)[lane]) for row in rows]

    assert column("terminated", 0) == [0, 0, 1, 0, 0, 0, 0]
    assert column("truncated", 0) == [0, 0, 0, 0, 0, 0, 1]
    assert column("game_over", 0) == [0, 0, 1, 0, 0, 0, 1]
    assert column("is_first", 0) == [1, 0, 0, 1, 0, 0, 0]
    assert column("raw_reward", 0) == [0, 0, 1, 0, 0, 0, 0]
    assert column("truncated", 1) == [0, 0, 0, 1, 0, 0, 0]
    assert column("is_first", 1) == [1, 0, 0, 0, 1, 0, 0]
    assert column("terminated", 1) == [0] * 6 + [1]
    # The end at the very step of the limit is an end.
    rows, _ = play(make_config(limit=2, map="S.G"), 2, num_envs=1, actions=np.array([[1], [1]]))
    assert rows[-1].terminated[0] and not rows[-1].truncated[0]


def test_rewards_are_not_clipped_and_pits_end_the_game():
    rows, _ = play(
        make_config(map="SO/.G", step_cost=0.25), 2, num_envs=1, actions=np.array([[1], [0]])
    )
    assert rows[1].reward[0] == rows[1].raw_reward[0] == np.float32(-1.25)
    assert rows[1].terminated[0] and rows[2].is_first[0] and rows[2].reward[0] == 0


def test_lanes_do_not_depend_on_their_number():
    config = make_config(map="slippery")
    generator = np.random.default_rng(0)
    actions = generator.integers(0, 4, (600, 6))
    whole, _ = play(config, 600, num_envs=6, actions=actions)
    part, _ = play(config, 600, num_envs=2, first_lane=3, actions=actions[:, 3:5])
    other, _ = play(config, 600, num_envs=6, seed=1, actions=actions)
    same = [
        np.array_equal(a.observation[3:5], b.observation) for a, b in zip(whole, part, strict=1)
    ]
    assert all(same)
    assert any(
        not np.array_equal(a.observation, b.observation) for a, b in zip(whole, other, strict=1)
    )
    lanes = np.stack([row.observation[:, 0].argmax(axis=1) for row in whole])
    assert all((lanes[:, 0] != lanes[:, i]).any() for i in range(1, 6))


def test_draws_at_the_edges():
    """0 gives the first outcome that is possible; just under 1 the last; never one of chance 0."""
    bounds = _cumulative(np.array([[0.0, 0.3, 0.7, 0.0], [0.1, 0.2, 0.7, 0.0]]))
    for draw, slots in ((0.0, [1, 0]), (0.31, [2, 2]), (np.nextafter(1, 0), [2, 2])):
        np.testing.assert_array_equal(np.sum(draw >= bounds, axis=1), slots)
    tenths = np.append(np.full(10, 0.1), 0.0)  # in floating point they add up to less than 1
    assert np.sum(np.nextafter(1, 0) >= _cumulative(tenths)) == 9


@pytest.mark.parametrize("kind", ["vector", "image"])
def test_observations_tell_every_state(kind):
    config = make_config(map="corridors", observation=kind, stack=1)
    rules = make_rules(read_map("corridors"))
    frames = grid_observations(rules, kind)
    spec = make_spec(config)
    shape = (rules.num_states,) if kind == "vector" else (28, 32)
    assert spec.frame_shape == frames.shape[1:] == shape and spec.frame_dtype == np.uint8
    states = np.arange(rules.num_states)
    np.testing.assert_array_equal(states_of(frames, frames), states)
    with pytest.raises(ValueError, match="frame 1"):
        states_of(np.stack([frames[0], frames[0] + 1]), frames)
    rows, _ = play(config, 50)
    seen = np.concatenate([row.observation[:, 0] for row in rows])
    assert len(np.unique(states_of(seen, frames))) > 10


def test_image_by_hand():
    image = grid_observations(make_rules(read_map("S#/$G")), "image")
    assert image.shape == (4, 8, 8)  # S, the coin's two sides, G
    np.testing.assert_array_equal(image[0][::4, ::4], [[255, 40], [100, 160]])
    np.testing.assert_array_equal(image[2][::4, ::4], [[0, 40], [215, 160]])
    assert (image[0][:4, :4] == 255).all() and (image[0][4:, :4] == 100).all()


def test_stacks_and_protocol():
    env = make_env(make_config(map="S.G", stack=3), seed=0, num_envs=1)
    with pytest.raises(RuntimeError):
        env.step(np.array([1]))
    first = env.reset().observation
    assert first.shape == (1, 3, 3) and (first.argmax(axis=2) == 0).all()
    assert env.step(np.array([1])).observation.argmax(axis=2).tolist() == [[0, 0, 1]]
    with pytest.raises(ConfigError, match="actions"):
        env.step(np.array([4]))
    env.close()
    env.close()
    with pytest.raises(RuntimeError):
        env.reset()


def test_drawings():
    rules = make_rules(read_map("S.O/.$G"))
    values, action_value = optimal_values(rules, 0.9)
    assert policy_text(rules, action_value) == ">vO\n>>G"
    figure = grid_figure(rules, values, action_value, true_entropy(rules))
    assert len(figure.axes) == 4  # three panels and a colour bar
    shown = figure.axes[1].collections[0].get_array()
    assert shown.max() == pytest.approx(np.log(2)) and len(shown) == 4 * 4
    colours = {figure.axes[0].patches[i].get_facecolor() for i in (1, 2, 5)}
    assert len(colours) == 3  # floor, pit, goal
    visits = np.zeros((rules.num_states, 4), int)
    visits[1, 2] = 3  # the second cell, downwards
    figure = grid_figure(rules, values, action_value, true_entropy(rules), visits)
    true, own = (figure.axes[i].collections[0].get_alpha() for i in (1, 2))
    assert np.all(true == 1) and own[4 + 2] == 1 and np.all(np.delete(own, 4 + 2) == FADED)


def test_values_are_printed_by_hand():
    """Discounted by one half a step; a step costs nothing."""
    rules = make_rules(read_map("S.G/.#O/$..", step_cost=0, prize=0))
    values, _ = optimal_values(rules, 0.5)
    assert values_text(rules, values) == "0.50 1.00    G\n0.25    #    O\n0.12 0.06 0.03"


def test_show_prints_values_and_draws(tmp_path, monkeypatch, capsys):
    words = ["gridworld", "show", "--env.kwargs", '{"map": "S~G"}', "--run_dir", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*words, "--learner.gamma", "0.9"])
    assert gridworld.main() == 0
    out = capsys.readouterr().out
    rules = make_rules(read_map("S~G"))
    values, _ = optimal_values(rules, 0.9)
    assert f"optimal values at gamma 0.9:\n{values[0]:.2f} {values[1]:.2f}    G\n" in out
    assert image.imread(tmp_path / "figures" / "grid.png").shape[1] > 900
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match="a folder without a run"):
        gridworld.main()
