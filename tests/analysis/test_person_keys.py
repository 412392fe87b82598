"""Keys of every action: of ale-py's map, of names, as told."""

import ale_py.env
import pytest

from smz_jax.analysis.person.keys import MOST, make_keys
from smz_jax.config.check import ConfigError
from smz_jax.config.settings import EnvConfig
from smz_jax.envs import make_spec
from smz_jax.types import EnvSpec, Space


def keys(names, told=(), named=None, env_id="x"):
    space = Space(len(names), tuple(names))
    spec = EnvSpec("x", (4,), 1, None, space, 1)  # pyright: ignore[reportArgumentType]
    return make_keys(EnvConfig(suite="gym", backend="gymnasium", id=env_id), spec, named, told)


@pytest.mark.parametrize("game", ["Breakout", "Seaquest"])
def test_an_atari_has_the_keys_of_ale_py(game):
    config = EnvConfig(id=game)
    found = make_keys(config, make_spec(config), None, ())
    theirs = ale_py.env.AtariEnv(game.lower()).get_keys_to_action()
    assert len(found.chords) == len(theirs)
    for chord, action in theirs.items():
        assert found.chords[action] == {{" ": "space"}.get(key, key) for key in chord}
    assert found.labels[found.idle] == "NOOP"


def test_keys_are_held_together():
    found = keys(["NOOP", "FIRE", "UP", "RIGHT", "LEFT", "RIGHTFIRE"])
    names = [found.action(x.split()) for x in ("", "space", "d", "right", "right space", "space d")]
    assert names == [0, 1, 3, 3, 5, 5]
    assert found.action(["a", "d"]) == 3 and found.action(["d", "a"]) == 4  # the last one counts
    assert found.action(["z"]) == 0
    assert found.shown(5) == "D + space" and found.shown(1) == "space"
    assert found.shown(3) == "D or right"


def test_a_game_without_a_pause_has_no_action_of_no_key():
    found = keys(["0", "1"], env_id="CartPole-v1")
    assert found.idle is None and found.action([]) is None
    assert found.action(["left"]) == 0 and found.action(["d"]) == 1
    assert found.labels == ("0 LEFT", "1 RIGHT")


def test_every_action_has_a_key_of_its_own():
    names = [str(x) for x in range(MOST)]
    found = keys(names)
    assert len(set(found.chords)) == MOST and all(len(x) == 1 for x in found.chords)
    assert found.chords[3] == {"3"} and found.action(["p"]) is None
    with pytest.raises(ConfigError, match="number of actions of x = 47 is not allowed"):
        keys([str(x) for x in range(47)])
    assert keys(["HOLD", "ROLL", "HIT"]).chords == ({"h"}, {"r"}, {"i"})


def test_a_map_of_gymnasiums_is_read():
    found = keys(["0", "1", "2"], named={(): 1, (276,): 0, (275,): 2, (275, 276): 1})
    assert found.chords == ({"left"}, {"left", "right"}, {"right"}) and found.idle == 1
    found = keys(["0", "1"], named={"a": 0, (ord("d"), " "): 1})
    assert found.chords == ({"a"}, {"d", "space"})
    for broken in ({"a": 5}, {(9999,): 0}, {None: 0}, {"a": None}):  # it is as if there were none
        assert keys(["0", "1"], named=broken).chords == ({"0"}, {"1"})


def test_keys_are_told():
    found = keys(["NOOP", "LEFT", "RIGHT"], ["LEFT=j", "2=l+space"])
    assert found.chords == ({"e"}, {"j"}, {"l", "space"}) and found.idle == 0
    found = keys(["NOOP", "LEFT", "RIGHT"], ["LEFT==", "RIGHT=left"])
    assert found.chords[1:] == ({"="}, {"left"}) and found.action(["right"]) == 0


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("LEFT", "ACTION=KEY"),
        ("=j", "ACTION=KEY"),
        ("JUMP=j", "of an action: NOOP, LEFT"),
        ("LEFT=p", "of letters but p"),
        ("LEFT=ctrl", "of letters but p"),
        ("LEFT=w NOOP=w", "the only one"),
        ("LEFT=w LEFT=x", "the only one"),
    ],
)
def test_wrong_keys_are_one_line(told, message):
    with pytest.raises(ConfigError) as caught:
        keys(["NOOP", "LEFT"], told.split())
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_terminal_has_one_key_for_each_action():
    config = EnvConfig(id="Seaquest")
    found = make_keys(config, make_spec(config), None, ()).single()
    assert all(len(chord) == 1 for chord in found.chords) and len(set(found.chords)) == 18
    assert found.chords[found.labels.index("FIRE")] == {"space"}
