"""Play: the same games as in evaluation, and pictures of what the agent really saw."""

import dataclasses
import itertools
import shutil
import sys
from pathlib import Path

import ale_py
import gymnasium
import jax
import numpy as np
import pytest
from ale_py import roms
from PIL import Image

from experiments import play as command
from smz_jax.acting.agent import Agent, make_decide
from smz_jax.acting.evaluate import evaluate
from smz_jax.analysis.load import export_run, load_model
from smz_jax.analysis.play import video
from smz_jax.analysis.play.moments import MacroFollower, MacroProgress, Moment
from smz_jax.analysis.play.scenes import WIDTH, Panel, make_scene
from smz_jax.analysis.play.showing import picture_text, play_model, words
from smz_jax.analysis.requests import PlayRequest
from smz_jax.config.check import ConfigError
from smz_jax.config.search import SearchConfig
from smz_jax.config.settings import Config, EnvConfig, NetworkConfig
from smz_jax.config.training import EvalConfig
from smz_jax.envs import make_env, open_game
from smz_jax.envs.atari.ale_backend import AleScreenPool
from smz_jax.model.networks import make_networks
from smz_jax.storage.export import Exported
from smz_jax.storage.weights import named_weights
from smz_jax.types import Space


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """Folder of an export of the tiny run's last model."""
    out = tmp_path_factory.mktemp("exports") / "last"
    export_run(tiny_run, out, "last")
    return out


def request(**changes):
    return PlayRequest(Path(), **changes)


def library(*macros):
    return {"macros": [{"actions": list(m), "count": 9 - i} for i, m in enumerate(macros)]}


# Macros.


def test_a_macro_is_followed_from_its_second_action_on():
    follower = MacroFollower(library((1, 2, 3), (2, 3, 1, 1)))
    seen = [follower.add(action) for action in (1, 2, 3, 1, 1, 0, 2)]
    assert seen == [
        None,
        MacroProgress((1, 2, 3), 2),
        MacroProgress((1, 2, 3), 3),
        MacroProgress((2, 3, 1, 1), 3),
        MacroProgress((2, 3, 1, 1), 4),
        None,
        None,
    ]
    assert follower.add(3) == MacroProgress((2, 3, 1, 1), 2)
    follower.played = []
    assert follower.add(1) is None
    assert MacroFollower(None).add(0) is MacroFollower({"macros": []}).add(1) is None


def test_macros_as_a_search_through_all_of_them_finds_them():
    rng = np.random.default_rng(0)
    macros = list({tuple(map(int, rng.integers(0, 3, rng.integers(2, 6)))) for _ in range(12)})
    follower, played = MacroFollower(library(*macros)), []
    for action in rng.integers(0, 3, 300).tolist():
        played.append(action)
        fitting = [
            (done, len(macro), -place, macro)
            for place, macro in enumerate(macros)
            for done in range(2, len(macro) + 1)
            if played[-done:] == list(macro[:done])
        ]
        best = max(fitting, default=None)
        assert follower.add(action) == (None if best is None else MacroProgress(best[3], best[0]))


# Games.


def test_play_of_an_export_is_the_evaluation_of_its_run(tiny_run, exported, capsys):
    """One lane, the same seeds: the scores that the run itself wrote."""
    import json

    summary = json.loads((tiny_run / "summary.json").read_text())
    wanted = summary["evaluation"]["scores"]
    assert len(set(wanted)) > 1
    assert command.main([str(exported), "--games", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [float(line.split()[3].strip(",")) for line in lines[1:7]] == pytest.approx(wanted)
    assert f"mean score {np.mean(wanted):.2f}" in lines[-1] and "seed 2000003" in lines[0]
    model = load_model(tiny_run, "last")
    assert play_model(model, request(games=6)) == wanted
    assert play_model(model, request(games=3, seed=7)) == evaluate_model(model, 3, 7)


def evaluate_model(model, games, seed, **settings):
    """The scores of `evaluate` on one lane, through its own agent."""
    config = dataclasses.replace(
        model.config,
        env=dataclasses.replace(model.config.env, **settings),
        eval=dataclasses.replace(model.config.eval, num_envs=1),
    )
    from smz_jax.analysis.load import fit_params
    from smz_jax.envs import make_spec

    networks = make_networks(config.network, spec := make_spec(config.env))
    decide = make_decide(networks, config, spec, policy="search")
    agent = Agent(decide, fit_params(networks, model.weights), config.seed)
    result = evaluate(agent, config, seed=seed, num_games=games)
    assert result is not None
    return result["scores"]


def untrained(env: EnvConfig, family="mlp", max_steps=30) -> Exported:
    """A model that was never trained, on a game of suite gym or atari."""
    config = Config(
        experiment="untrained",
        env=env,
        network=NetworkConfig(
            family=family,
            embedding_size=8,
            hidden_size=8,
            torso_channels=2,
            codebook_size=2,
            value_support=5,
            reward_support=5,
        ),
        search=SearchConfig(num_simulations=4),
        eval=EvalConfig(num_games=2, num_envs=1, max_steps=max_steps, noop_max=0),
    )
    from smz_jax.envs import make_spec

    spec = make_spec(env)
    params = make_networks(config.network, spec).init(jax.random.key(5))
    about = {"action_names": list(spec.action_names), "checkpoint": "best"}
    macros = library((0, 0, 1), (1, 1), (2, 2), (3, 3, 3))
    return Exported(config, named_weights(params), about, [], macros)


@pytest.fixture(scope="module")
def cartpole():
    return untrained(EnvConfig(suite="gym", id="CartPole-v1", frame_stack=1), max_steps=100)


def test_cartpole_is_played_by_gymnasium_as_evaluated(cartpole, capsys):
    scores = play_model(cartpole, request(games=3, seed=11))
    assert scores == evaluate_model(cartpole, 3, 11, backend="gymnasium")
    assert "played by Gymnasium" in capsys.readouterr().out


def test_a_game_is_the_same_whether_it_is_drawn_or_not(cartpole, tmp_path, monkeypatch, capsys):
    plain = play_model(cartpole, request(games=2, seed=3))
    monkeypatch.setitem(sys.modules, "pygame", None)  # as if it were not installed
    out = tmp_path / "game.gif"
    assert play_model(cartpole, request(games=2, seed=3, out=out, terminal=True)) == plain
    text = capsys.readouterr().out
    assert "no picture of its own: pygame is not installed" in text and "value" in text
    with Image.open(out) as gif:
        assert gif.n_frames == sum(plain) + 2


def test_a_signal_ends_play_and_keeps_the_video(cartpole, tmp_path):
    asked = itertools.count()
    out = tmp_path / "game.gif"
    wishes = request(games=5, out=out, seed=1)
    scores = play_model(cartpole, wishes, should_stop=lambda: next(asked) >= 4)
    assert scores == []
    with Image.open(out) as gif:
        assert gif.n_frames == 4


# Screens.


def test_the_screen_of_atari_is_the_emulators_own():
    """Bit for bit `getScreenRGB` of an emulator driven by hand, with sticky actions."""
    seed = 12345
    config = EnvConfig(backend="ale", sticky_prob=0.25, max_episode_steps=1000)
    pool = AleScreenPool(config, np.array([seed]), fire_reset=True)
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", 0.25)
    ale.setInt("frame_skip", 1)
    ale.loadROM(str(roms.get_rom_path("breakout")))
    actions = ale.getMinimalActionSet()
    step = pool.reset()
    ale.act(actions[1])
    rng = np.random.default_rng(0)
    screens = set()
    for _ in range(150):
        np.testing.assert_array_equal(pool.screen, ale.getScreenRGB())
        screens.add(pool.screen.tobytes())
        if step.terminated[0]:
            break
        action = rng.integers(4)
        for _ in range(4):
            ale.act(actions[action])
        pool.send(np.array([action], np.int32), step.terminated, np.zeros(1, np.bool_))
        step = pool.recv()
    assert len(screens) > 100
    pool.close()


@pytest.mark.parametrize("game", ["Breakout", "Carnival"])  # the second one's screen is 214 high
def test_the_agent_sees_what_the_screen_shows(game):
    """The observations of the backend itself, over ends, time limits, no-ops and sticky draws."""
    config = EnvConfig(id=game, mode="stochastic", max_episode_steps=60, backend="ale")
    opened = open_game(config, seed=4, screen=True)
    plain = make_env(config, seed=4, num_envs=1, training=False)
    ours, theirs = opened.env.reset(), plain.reset()
    rng = np.random.default_rng(0)
    for _ in range(200):
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine, other)
        picture = opened.screen()
        assert picture.dtype == np.uint8 and picture.shape[1:] == (160, 3)
        # Luminance by area, against the agent's frame: the palette's own grey differs a little,
        # and the frame is merged of the last two.
        grey = np.asarray(
            Image.fromarray(picture).convert("L").resize((84, 84), Image.Resampling.BOX)
        )
        assert np.abs(grey.astype(int) - ours.observation[0, -1]).mean() < 6
        action = rng.integers(0, opened.env.spec.num_actions, 1)
        ours, theirs = opened.env.step(action), plain.step(action)
    opened.env.close()
    plain.close()


class Painted(gymnasium.Env):
    """Counts to 9; its picture says where it stands."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 9, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def _seen(self):
        return np.array([self.count], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = int(self.np_random.integers(3))
        return self._seen(), {}

    def step(self, action):
        self.count += 1
        return self._seen(), 1.0, self.count >= 9, False, {}

    def render(self):
        assert self.render_mode == "rgb_array"
        return np.full((30, 41, 3), 20 * self.count, np.uint8)


gymnasium.register("Painted-v0", Painted)


def test_gymnasiums_own_picture_is_shown():
    config = EnvConfig(suite="gym", id="tests.analysis.test_play:Painted-v0", frame_stack=1)
    drawn, plain = (open_game(config, seed=2, screen=screen) for screen in (True, False))
    assert plain.screen is None and "no picture" not in drawn.note
    timestep = drawn.env.reset()
    assert timestep.observation[0, -1, 0] == plain.env.reset().observation[0, -1, 0]
    scene = make_scene(config, drawn.env.spec, drawn.screen)
    for _ in range(12):
        picture = np.asarray(scene.picture(timestep))
        assert picture.shape == (14 * 30, 14 * 41, 3)
        assert (picture == 20 * timestep.observation[0, -1, 0]).all()
        timestep = drawn.env.step(np.zeros(1, np.int32))
        np.testing.assert_array_equal(
            timestep.observation, plain.env.step(np.zeros(1, np.int32)).observation
        )
    drawn.env.close()
    plain.env.close()


def test_the_map_shows_where_the_agent_stands():
    config = EnvConfig(suite="grid", id="GridWorld", kwargs='{"map": "S.G"}', frame_stack=1)
    game = open_game(config, seed=0, screen=True)
    scene = make_scene(config, game.env.spec, game.screen)
    timesteps = [game.env.reset(), game.env.step(np.ones(1, np.int32))]
    assert [scene.text(x) for x in timesteps] == ["@.G", "S@G"]
    side = scene.picture(timesteps[0]).width // 3
    for place, timestep in enumerate(timesteps):
        pixel = scene.picture(timestep).getpixel((place * side + side // 2, side // 2))
        assert pixel == (0, 0x72, 0xB2)
    game.env.close()


def timestep_of(frame):
    """What one lane sees, all else left out."""
    from smz_jax.types import Timestep

    return Timestep(frame[None, None], *(None,) * 8)  # pyright: ignore


def test_boards_and_vectors_are_drawn_from_what_is_seen():
    board = np.array([[0, 1, 2, 11], [0, 0, 0, 3], [4, 0, 0, 0], [17, 0, 0, 0]])
    config = EnvConfig(suite="pgx", id="2048", frame_stack=1)
    from smz_jax.envs import make_spec

    scene = make_scene(config, make_spec(config), None)
    seen = timestep_of(np.eye(31, dtype=bool)[board])
    numbers = [[0 if x == "." else int(x) for x in y.split()] for y in scene.text(seen).split("\n")]
    assert numbers == np.where(board > 0, 2**board, 0).tolist()
    picture = scene.picture(seen)
    colours = [picture.getpixel((x * 105 + 12, 12)) for x in range(4)]
    assert picture.size == (420, 420) and len(set(colours)) == 4
    config = EnvConfig(suite="pgx", id="minatar-breakout", frame_stack=1)
    scene = make_scene(config, make_spec(config), None)
    planes = np.zeros((10, 10, 4), bool)
    planes[2, 3, 1] = planes[2, 3, 2] = planes[9, 0, 0] = True
    text = scene.text(timestep_of(planes)).split("\n")
    assert text[2] == "...C......" and text[9] == "A........." and text[0] == "." * 10
    assert scene.picture(timestep_of(planes)).getpixel((42 * 3 + 5, 42 * 2 + 5)) == (0, 158, 115)
    assert scene.picture(timestep_of(planes)).getpixel((42 * 3, 42 * 2)) == (58, 62, 72)  # an edge
    planes[..., 3] = True  # the same everywhere, which says nothing of a cell
    assert scene.text(timestep_of(planes)).split("\n") == text
    config = EnvConfig(suite="gym", id="CartPole-v1", frame_stack=1)
    scene = make_scene(config, make_spec(config), None)
    seen = timestep_of(np.array([0.5, -2.0, 0.0, 1e6], np.float32))
    assert scene.text(seen).split() == ["0.5", "-2", "0", "1e+06"]
    assert scene.picture(seen).width == 320


# Videos and the terminal.


def colours_of(picture):
    return np.asarray(picture.convert("RGB"))


def test_a_gif_of_breakout_holds_the_real_screen(tmp_path, capsys):
    model = untrained(EnvConfig(id="Breakout", frame_size=32, backend="ale"), "mlp", 25)
    out = tmp_path / "game.gif"
    scores = play_model(model, request(games=2, seed=9, out=out))
    assert len(scores) == 2 and "wrote" in capsys.readouterr().out
    # The same games once more, by the emulator alone.
    from smz_jax.acting.evaluate import game_settings

    opened = open_game(game_settings(model.config), seed=9, screen=True)
    names = model.about["action_names"]
    with Image.open(out) as gif:
        assert gif.n_frames == 2 * 25 + 2 and gif.size == (320 + WIDTH, 420)
        assert gif.info["duration"] == 70 and gif.info["loop"] == 0
        pictures = []
        for number in range(gif.n_frames):
            gif.seek(number)
            pictures.append(colours_of(gif))
    opened.env.reset()
    first = colours_of(
        Image.fromarray(opened.screen()).resize((320, 420), Image.Resampling.NEAREST)
    )
    np.testing.assert_array_equal(pictures[0][:, :320], first)
    panels = {picture[:, 320:].tobytes() for picture in pictures}
    assert len(panels) == len(pictures) and "FIRE" in names
    opened.env.close()


def moment(step, action=1, **changes):
    base = Moment(1, step, 2.0, timestep_of(np.zeros(1)), action, 0.5, 0.25, None)
    return base._replace(**changes)


def test_each_part_of_the_panel_shows():
    space = Space(3, ("NOOP", "A", "B"))
    screen = Image.new("RGB", (101, 77), (1, 2, 3))

    def drawn(**changes):
        return np.asarray(Panel("title", space).draw(moment(3, **changes), screen))

    plain = drawn()
    assert plain.shape == (360, 102 + WIDTH, 3)
    assert (plain[141:218, :101] == (1, 2, 3)).all()
    macro = MacroProgress((1, 2), 1)
    others = [
        drawn(action=2),
        drawn(action=None),
        drawn(value=1.5),
        drawn(transition_entropy=0.75),
        drawn(macro=macro),
        drawn(macro=macro._replace(done=2)),
        drawn(score=3.0),
        drawn(game=2),
    ]
    assert len({x.tobytes() for x in (plain, *others)}) == 9
    assert all((x[:, :101] == plain[:, :101]).all() for x in others)


def test_panel_shows_the_course_of_one_game():
    panel, screen = Panel("title", Space(2, ("A", "B"))), Image.new("RGB", (100, 360))
    pictures = [np.asarray(panel.draw(moment(i, value=float(i)), screen)) for i in range(4)]
    ink = [(picture[216:266] == (86, 180, 233)).all(axis=-1).sum() for picture in pictures]
    assert ink[0] == 0 and ink[3] > 40
    again = np.asarray(panel.draw(moment(0, value=0.0), screen))
    np.testing.assert_array_equal(again, pictures[0])


def test_terminal_pictures_have_the_colours_of_both_halves():
    image = Image.new("RGB", (4, 4), (255, 0, 0))
    image.paste((0, 0, 255), (0, 1, 4, 4))
    lines = picture_text(image, 4, 100).split("\n")
    assert len(lines) == 2 and all(line.count("\u2580") == 4 for line in lines)
    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;0;0;255m\u2580")
    assert lines[1].startswith("\x1b[38;2;0;0;255;48;2;0;0;255m\u2580")
    wide = picture_text(Image.new("RGB", (160, 210)), 80, 20).split("\n")
    assert len(wide) == 20 and wide[0].count("\u2580") == 30


def test_terminal_tells_macro_and_end():
    space = Space(2, ("LEFT", "RIGHT"))
    text = words(moment(7, macro=MacroProgress((1, 0, 1), 2)), space)
    assert "step 7" in text and "action RIGHT" in text and "value 0.500" in text
    assert text.endswith("macro [RIGHT] [LEFT] RIGHT")
    assert "game over" in words(moment(8, action=None), space)


def test_play_in_the_terminal_shows_every_step(exported, capsys):
    assert command.main([str(exported), "--terminal", "--seed", "1"]) == 0
    text = capsys.readouterr().out
    steps = int(text.splitlines()[-1].split()[4])
    assert text.count("@") + text.count("+") >= steps + 1
    assert text.count("action ") == steps and text.count("game over") == 1


def pictures(number):
    for i in range(number):
        yield Image.fromarray(np.full((6, 8, 3), i % 256, np.uint8))


FFMPEG = """#!/bin/sh
for last; do :; done
cat > "$last"
"""


def fake_ffmpeg(folder, monkeypatch, script):
    folder.mkdir()
    (folder / "ffmpeg").write_text(script)
    (folder / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_an_mp4_is_handed_to_ffmpeg(tmp_path, monkeypatch):
    fake_ffmpeg(tmp_path / "bin", monkeypatch, FFMPEG)
    out = tmp_path / "game.mp4"
    assert video.write_video(out, pictures(5), 10.0) == 5
    raw = np.frombuffer(out.read_bytes(), np.uint8).reshape(5, 6, 8, 3)
    np.testing.assert_array_equal(raw[:, 0, 0, 0], np.arange(5))
    assert sorted(x.name for x in tmp_path.iterdir()) == ["bin", "game.mp4"]


def test_an_ffmpeg_that_fails_is_told_in_one_line(tmp_path, monkeypatch):
    fake_ffmpeg(tmp_path / "bin", monkeypatch, "#!/bin/sh\necho no such codec >&2\nexit 3\n")
    with pytest.raises(ConfigError, match=r"code 3: no such codec.*gif needs none"):
        video.write_video(tmp_path / "game.mp4", pictures(500), 10.0)
    assert [x.name for x in tmp_path.iterdir()] == ["bin"]


def test_without_ffmpeg_a_gif_is_proposed(exported, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigError, match="ffmpeg, which is not installed"):
        command.main([str(exported), "--out", str(tmp_path / "game.mp4")])


def test_a_video_that_cannot_be_made_leaves_nothing(tmp_path):
    def broken():
        yield from pictures(3)
        raise RuntimeError("the game broke")

    with pytest.raises(RuntimeError, match="broke"):
        video.write_video(tmp_path / "game.gif", broken(), 10.0)
    assert list(tmp_path.iterdir()) == []
    assert video.write_video(tmp_path / "game.gif", pictures(0), 10.0) == 0


# The command line.


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--games", "0"], "games = 0"),
        (["--games", "many"], "whole number"),
        (["--seed", "-1"], "seed = -1"),
        (["--sticky_prob", "1"], "sticky_prob = 1.0"),
        (["--sticky_prob", "0.25"], "only Atari has sticky actions"),
        (["--max_steps", "0"], "max_steps = 0"),
        (["--fps", "0"], "fps = 0.0"),
        (["--fps", "nan"], "fps = nan"),
        (["--checkpoint", "last"], "left out for an export"),
        (["--out", "game.avi"], ".gif or .mp4"),
        (["--out", "none/game.gif"], "a folder that exists"),
        (["--colour"], "--colour"),
    ],
)
def test_bad_input_is_one_line(exported, words, expected):
    with pytest.raises(ConfigError) as caught:
        command.main([str(exported), *words])
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_folders_that_hold_no_model_are_refused(tiny_run, tmp_path):
    for folder, expected in ((tmp_path / "none", "folder"), (tmp_path, "config.yaml")):
        with pytest.raises(ConfigError, match=expected):
            command.main([str(folder)])
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ConfigError, match="no checkpoint"):
        command.main([str(run)])


def test_a_game_with_other_actions_is_refused(exported):
    model = load_model(exported)
    changed = model._replace(about=model.about | {"action_names": ["UP", "DOWN"]})
    with pytest.raises(ConfigError, match="the model's actions"):
        play_model(changed, request())


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0 and "examples:" in text and "--sticky_prob" in text
