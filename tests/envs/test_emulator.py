"""The emulator that clones its states, against envpool itself and against games that went on."""

import functools

import envpool
import numpy as np
import pytest

from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.atari.emulator import Emulator, play_sequence
from smz_jax.envs.frames import resize_area

FIRE, RIGHT, LEFT = 1, 2, 3


@functools.cache
def opened(**settings):
    """An emulator, opened once: loading a ROM takes its time."""
    return Emulator(EnvConfig(**settings))


def raw_envpool(game, seed, **settings):
    settings = {"stack_num": 4, "noop_max": 1, **settings}
    return envpool.make_gymnasium(f"{game}-v5", num_envs=1, seed=[seed], **settings)


def random_actions(emulator, steps, seed=0):
    return np.random.default_rng(seed).integers(0, emulator.spec.num_actions, steps)


def played(emulator, actions):
    """All that can be seen over some steps, as a list of comparable things."""
    seen = []
    for action in actions:
        step = emulator.step(action)
        pictures = (step.observation.tobytes(), emulator.screen().tobytes())
        numbers = (step.reward, step.lives, step.terminated, step.env_frames)
        seen.append((*pictures, *numbers, emulator.ram().tobytes()))
        if step.terminated:
            break
    return seen


@pytest.mark.parametrize(
    ("game", "steps", "least_ends", "settings"),
    [
        ("Breakout", 500, 2, {}),
        ("Pong", 500, 0, {}),
        ("SpaceInvaders", 500, 0, {}),
        ("Breakout", 170, 0, {"sticky_prob": 0.25}),
        ("Breakout", 450, 1, {"frame_skip": 3, "frame_size": 61}),
        ("Breakout", 40, 0, {"frame_skip": 1, "mark_start": True}),
        ("MsPacman", 40, 0, {}),
    ],
)
def test_games_are_those_of_envpool_bit_for_bit(game, steps, least_ends, settings):
    seed = 12_345
    emulator = opened(id=game, **settings)
    pool = raw_envpool(
        game,
        seed,
        repeat_action_probability=settings.get("sticky_prob", 0.0),
        frame_skip=settings.get("frame_skip", 4),
        img_height=settings.get("frame_size", 84),
        img_width=settings.get("frame_size", 84),
    )
    noops = int(game == "MsPacman")  # it has no FIRE, and envpool plays one then
    mark = int(emulator.spec.is_marked)
    ours = emulator.reset(seed, noops)
    stack, info = pool.reset()
    np.testing.assert_array_equal(ours.observation[mark:], stack[0])
    ends = scores = in_game = 0
    before = info["lives"][0]
    must_fire = False
    for action in random_actions(emulator, steps):
        assert ours.invalid_actions.sum() == must_fire * (emulator.spec.num_actions - 1)
        assert ours.invalid_actions[FIRE] == 0
        ours = emulator.step(action)
        executed = FIRE if must_fire else action
        stack, reward, over, _, info = pool.step(np.array([executed], np.int32))
        np.testing.assert_array_equal(ours.observation[mark:], stack[0])
        np.testing.assert_array_equal(ours.frame, stack[0, -1])
        assert (ours.reward, ours.lives) == (reward[0], info["lives"][0])
        assert ours.terminated == over[0]
        assert not (over[0] and ours.invalid_actions.any())
        in_game += 1
        assert not mark or (ours.observation[0] == min(in_game + 1, 4)).all()
        must_fire = bool(info["lives"][0] < before and not over[0] and not noops)
        before, scores = info["lives"][0], scores + (reward[0] != 0)
        if over[0]:
            stack, *_, info = pool.step(np.array([0], np.int32))
            ours = emulator.reset(seed, noops)
            np.testing.assert_array_equal(ours.observation[mark:], stack[0])
            before, must_fire, ends, in_game = info["lives"][0], False, ends + 1, 0
        assert ours.env_frames == 1 + in_game * settings.get("frame_skip", 4)
    assert ends >= least_ends
    assert scores > 0 or steps < 100
    pool.close()


def test_a_restored_game_goes_on_as_it_did_whatever_was_played_in_between():
    emulator, other = opened(sticky_prob=0.25), Emulator(EnvConfig(sticky_prob=0.25))
    emulator.reset(3)
    played(emulator, random_actions(emulator, 60))
    state = emulator.clone()
    went_on = played(emulator, random_actions(emulator, 25, seed=1))
    for between in ([], [RIGHT] * 3, random_actions(emulator, 40, seed=2)):
        played(emulator, between)
        emulator.restore(state)
        assert played(emulator, random_actions(emulator, 25, seed=1)) == went_on
    other.restore(state)
    assert played(other, random_actions(emulator, 25, seed=1)) == went_on


def test_the_action_that_a_sticky_frame_repeats_is_restored():
    """ale-py forgets it; it shows only where the very first frame repeats, one time in four."""
    emulator = opened(sticky_prob=0.25)
    emulator.reset(4)
    for _ in range(10):
        played(emulator, [LEFT, RIGHT])
        state = emulator.clone()
        went_on = played(emulator, [0, 0])
        played(emulator, [LEFT] * 3)
        emulator.restore(state)
        assert played(emulator, [0, 0]) == went_on


def test_what_a_restored_emulator_shows_is_what_the_state_showed():
    emulator = opened()
    emulator.reset(0)
    played(emulator, random_actions(emulator, 60))
    step, screen, ram = emulator.restore(emulator.clone()), emulator.screen(), emulator.ram()
    assert step.lives < 5 and screen.shape == (210, 160, 3) and ram.shape == (128,)
    state = emulator.clone()
    played(emulator, random_actions(emulator, 30, seed=1))
    assert (emulator.screen() != screen).any() and (emulator.ram() != ram).any()
    again = emulator.restore(state)
    np.testing.assert_array_equal(emulator.screen(), screen)
    np.testing.assert_array_equal(emulator.ram(), ram)
    np.testing.assert_array_equal(again.observation, step.observation)
    assert again.lives == step.lives and again.env_frames == step.env_frames


def test_chance_follows_from_the_seed_and_from_nothing_else():
    emulator = opened(sticky_prob=0.25)
    emulator.reset(0)
    played(emulator, random_actions(emulator, 30))
    state = emulator.clone()
    actions = random_actions(emulator, 12, seed=1)
    seeds = [5, 6, 5, 7, 8, 5]
    runs = play_sequence(emulator, state, actions, seeds)
    endings = {}
    for seed, run in zip(seeds, runs, strict=True):
        first = endings.setdefault(seed, run)
        for ours, theirs in zip(run, first, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len({run.frames.tobytes() for run in runs}) == 4
    assert len({run.ram_hash for run in runs}) >= 3


def test_a_sequence_from_a_state_is_what_envpool_plays_there():
    emulator = opened(id="SpaceInvaders")
    before, sequence = random_actions(emulator, 10), random_actions(emulator, 30, seed=1)
    emulator.reset(1)
    played(emulator, before)
    state = emulator.clone()
    played(emulator, random_actions(emulator, 40, seed=3))
    runs = play_sequence(emulator, state, sequence, [1, 2, 3])
    pool = raw_envpool("SpaceInvaders", 9)
    pool.reset()
    steps = [pool.step(np.array([action], np.int32)) for action in (*before, *sequence)][10:]
    assert len(runs) == 3 and runs[0].rewards.any()
    assert (runs[0].lives == 3).all()  # or FIRE would have taken the place of an action
    for run in runs:
        np.testing.assert_array_equal(run.frames, [stack[0, -1] for stack, *_ in steps])
        np.testing.assert_array_equal(run.rewards, [reward[0] for _, reward, *_ in steps])
        np.testing.assert_array_equal(run.lives, [info["lives"][0] for *_, info in steps])
        assert not run.terminated and run.ram_hash == runs[0].ram_hash
        assert run.rewards.dtype == np.float32 and run.frames.dtype == np.uint8
    pool.close()


def test_a_sequence_stops_where_the_game_ends():
    emulator = opened(fire_on_life_loss=False)
    emulator.reset(0)
    steps, states = [], [emulator.clone()]
    while not steps or not steps[-1].terminated:
        steps.append(emulator.step(FIRE))
        states.append(emulator.clone())
    with pytest.raises(RuntimeError, match="the game's end"):
        emulator.step(FIRE)
    for left in (1, 3):
        play_sequence(emulator, states[0], [FIRE] * 9, [0])
        (run,) = play_sequence(emulator, states[-1 - left], [FIRE] * 10, [0])
        assert run.terminated
        np.testing.assert_array_equal(run.frames, [step.frame for step in steps[-left:]])
        np.testing.assert_array_equal(run.lives, [step.lives for step in steps[-left:]])
    with pytest.raises(ConfigError, match="end of a game"):
        play_sequence(emulator, states[-1], [FIRE], [0])
    assert not emulator.restore(states[-3]).terminated
    assert not emulator.step(FIRE).terminated


def test_resizing_by_area_by_hand():
    """Rows and columns of 5 become 2: each takes 1, 1 and 1/2 of its pixels, over 5/2."""
    screen = np.zeros((5, 5), np.uint8)
    screen[0, :3] = (200, 100, 50)
    screen[2] = 84
    # Row 0: (200 + 100 + 25) * 0.4 = 130 and 25 * 0.4 = 10; row 2 is shared: 84 / 2.
    expected = [[68.8, 20.8], [16.8, 16.8]]  # (130 + 42) * 0.4, (10 + 42) * 0.4, 42 * 0.4
    np.testing.assert_array_equal(resize_area(screen, 2), np.rint(expected))
    np.testing.assert_array_equal(resize_area(screen, 5), screen)
    column = np.repeat(np.array([[1], [2], [3], [4], [10]], np.uint8), 2, axis=1)
    rows = np.rint([4.5 / 2.5, 15.5 / 2.5])
    np.testing.assert_array_equal(resize_area(column, 2), np.repeat(rows[:, None], 2, axis=1))
    square = np.array([[0, 4], [8, 20]], np.uint8)
    np.testing.assert_array_equal(resize_area(square, 1), [[8]])
    np.testing.assert_array_equal(resize_area(np.stack([square, square]), 2)[1], square)
    larger = resize_area(square.astype(np.float32), 5)  # the middle pixel shares all four
    np.testing.assert_array_equal(larger[[0, 0, 2, 4], [0, 4, 2, 0]], [0, 4, 8, 8])
    assert resize_area(np.full((16, 16), 255, np.uint8), 210).min() == 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "Breakot"}, r"env.id = 'Breakot' .* games of ale, did you mean Breakout"),
        ({"id": "Warlords"}, r"env.id = 'Warlords' .* one of the \d+ games of ale"),
        ({"id": "xx"}, r"env.id = 'xx' .* such as Breakout, Pong or SpaceInvaders"),
        ({"suite": "gym", "id": "CartPole-v1"}, r"env.suite = 'gym' .* such as Breakout"),
        ({"frame_size": 161}, r"env.frame_size = 161 .* at most 160"),
    ],
)
def test_games_that_cannot_be_opened(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Emulator(EnvConfig(**settings))
    assert "\n" not in str(caught.value)


def test_wrong_calls_never_reach_the_emulator():
    fresh = Emulator(EnvConfig(id="Pong"))
    for call in (lambda: fresh.step(0), fresh.clone):
        with pytest.raises(RuntimeError, match="no game yet"):
            call()
    emulator = opened()
    state = emulator.reset(0) and emulator.clone()
    for wrong in (-1, 4, 2.0, True, "0"):
        with pytest.raises(ConfigError, match="actions"):
            emulator.step(wrong)
    for wrong in ([0, 4], [], [0.5], [[0, 1]]):
        with pytest.raises(ConfigError, match="actions"):
            play_sequence(emulator, state, wrong, [0])
    for seed in (-1, 2**32):
        with pytest.raises(ConfigError, match="seed"):
            emulator.reset(seed)
        with pytest.raises(ConfigError, match="seed"):
            emulator.restore(state, seed=seed)
    with pytest.raises(ConfigError, match="noops"):
        emulator.reset(0, noops=-1)
    with pytest.raises(ConfigError, match="state = 'breakout'"):
        fresh.restore(state)
    with pytest.raises(ConfigError, match=r"observation.shape = \(4, 84, 84\)"):
        opened(frame_skip=3, frame_size=61).restore(state)
    assert emulator.clone().step is state.step
    untouched = played(emulator, [LEFT])
    emulator.reset(0)
    assert played(emulator, [LEFT]) == untouched
