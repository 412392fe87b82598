"""Which keys are which action: of a map of Gymnasium's, of the actions' names, or as told."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from smz_jax.config.check import require
from smz_jax.config.settings import EnvConfig
from smz_jax.types import EnvSpec

WORDS = {"UP": "w", "LEFT": "a", "DOWN": "s", "RIGHT": "d", "FIRE": "space", "NOOP": "e"}
"""Keys of the words that names of actions are made of: those of ale-py's own map."""
ARROWS = {"up": "w", "left": "a", "down": "s", "right": "d"}
"""Keys that are as good as others."""
PAUSE, UNDO, NEXT, QUIT = "p", "backspace", "return", "escape"
"""Keys that are no actions."""
LETTERS = "qwertyuioasdfghjklzxcvbnm"
PLAIN = (*LETTERS, *"0123456789,./;'[]-=", "space", *ARROWS)
"""Names of the keys that may be actions, as pygame has them."""
MOST = len(PLAIN) - len(ARROWS)
"""Actions that have a key each, wherever the arrows stand for others."""
_OLD_ARROWS = {273: "up", 274: "down", 275: "right", 276: "left"}
"""Numbers of keys before SDL 2, which some maps of Gymnasium's still have."""

_MINATAR = ("NOOP", "LEFT", "UP", "RIGHT", "DOWN", "FIRE")
MEANINGS: dict[str, tuple[str, ...]] = {
    "CartPole-v1": ("LEFT", "RIGHT"),
    "MountainCar-v0": ("LEFT", "NOOP", "RIGHT"),
    "Acrobot-v1": ("LEFT", "NOOP", "RIGHT"),
    "LunarLander-v3": ("NOOP", "LEFT", "UP", "RIGHT"),
    "FrozenLake-v1": ("LEFT", "DOWN", "RIGHT", "UP"),
    "FrozenLake8x8-v1": ("LEFT", "DOWN", "RIGHT", "UP"),
    "CliffWalking-v1": ("UP", "RIGHT", "DOWN", "LEFT"),
    "Taxi-v3": ("DOWN", "UP", "RIGHT", "LEFT", "GET", "OUT"),
    "Blackjack-v1": ("STICK", "HIT"),
    "minatar-asterix": _MINATAR[:5],
    "minatar-breakout": ("NOOP", "LEFT", "RIGHT"),
    "minatar-freeway": ("NOOP", "UP", "DOWN"),
    "minatar-seaquest": _MINATAR,
    "minatar-space_invaders": ("NOOP", "LEFT", "RIGHT", "FIRE"),
}
"""What the actions do of games that only number them."""


class KeyMap(NamedTuple):
    """The keys of every action."""

    chords: tuple[frozenset[str], ...]  # of each action, keys that are held together
    labels: tuple[str, ...]  # of each action, what is shown
    idle: int | None  # action of no key; None: there is none, and the game waits
    aliases: Mapping[str, str]  # keys that stand for others

    def action(self, held: Sequence[str]) -> int | None:
        """The action of the keys that are held, in the order in which they were pressed.

        Of several the one of the most keys, then the one that was pressed last. None: no key of the
        map is held, and there is no action of no key.
        """
        order = {self.aliases.get(key, key): place for place, key in enumerate(held)}
        fits = [i for i, chord in enumerate(self.chords) if chord <= order.keys()]
        if not fits:
            return self.idle

        def rank(action: int) -> tuple[int, int]:
            chord = self.chords[action]
            return len(chord), sum(order[key] for key in chord)

        return max(fits, key=rank)

    @property
    def relevant(self) -> frozenset[str]:
        """All keys of the map."""
        return frozenset().union(*self.chords, self.aliases)

    def single(self) -> "KeyMap":
        """One key for each action, where keys cannot be held: a chord gets a free one."""
        chords = {i: chord for i, chord in enumerate(self.chords) if len(chord) == 1}
        for i in range(len(self.chords)):
            if i not in chords:
                chords[i] = frozenset([_free_key(self.labels[i], chords, self.aliases)])
        return self._replace(chords=tuple(chords[i] for i in range(len(chords))))

    def shown(self, action: int) -> str:
        """The keys of an action as words; of one key also the one that stands for it."""
        chord = sorted(self.chords[action], key=lambda key: (key == "space", key))
        text = " + ".join(key.upper() if len(key) == 1 else key for key in chord)
        arrows = [arrow for arrow, letter in self.aliases.items() if chord == [letter]]
        return " or ".join([text, *arrows])


def make_keys(
    config: EnvConfig, spec: EnvSpec, named: Mapping[Any, int] | None, told: Sequence[str]
) -> KeyMap:
    """The keys of a game: as told, else of the map, else of the names, else any that are free.

    Args:
        config: the environment's settings.
        spec: of the environment.
        named: a map as Gymnasium's `play` takes it, or None.
        told: `ACTION=KEY`, or `ACTION=KEY+KEY` for keys that are held together.

    Raises:
        ConfigError: in one line, if what is told is wrong, or there are more actions than keys.
    """
    names, meanings = spec.action_names, MEANINGS.get(config.id, ())
    allowed = f"at most {MOST}, a key each: with --terminal actions are typed"
    require(len(names) <= MOST, f"number of actions of {config.id}", len(names), allowed)
    meanings = meanings if len(meanings) == len(names) else names
    labels = [x if x == y else f"{x} {y}" for x, y in zip(names, meanings, strict=True)]
    idle = meanings.index("NOOP") if "NOOP" in meanings else None
    chords = _told(names, meanings, told)
    given, pauses = _of_gymnasium(named or {}, len(names))
    idle = pauses if idle is None else idle
    worded = {i: _of_words(x) for i, x in enumerate(meanings)}
    letters: set[str] = set()
    for source in (given, {i: x for i, x in worded.items() if x}):
        for action, chord in source.items():
            if action not in chords and chord not in chords.values():
                chords[action] = chord
                letters |= chord
    used = frozenset().union(*chords.values())
    aliases = {x: y for x, y in ARROWS.items() if x not in used and y in letters}
    for action, meaning in enumerate(meanings):
        if action not in chords:
            chords[action] = frozenset([_free_key(meaning, chords, aliases)])
    ordered = tuple(chords[action] for action in range(len(names)))
    return KeyMap(ordered, tuple(labels), idle, aliases)


def _told(
    names: Sequence[str], meanings: Sequence[str], told: Sequence[str]
) -> dict[int, frozenset[str]]:
    """The chords that are told; raises ConfigError."""
    found: dict[int, frozenset[str]] = {}
    for text in told:
        name, _, keys = text.rpartition("=")
        name, keys = (name[:-1], "=") if text.endswith("==") else (name, keys)
        require(bool(name and keys), "keys", text, "ACTION=KEY or ACTION=KEY+KEY")
        known = [i for i, x in enumerate(zip(names, meanings, strict=True)) if name in x]
        known += [i for i in range(len(names)) if str(i) == name]
        require(bool(known), "keys", text, f"of an action: {', '.join(names)}"[:300])
        chord = frozenset(keys.lower().split("+"))
        wrong = sorted(chord - set(PLAIN))
        allowed = "of letters but p, digits, space, up, down, left, right or one of ,./;'[]-="
        require(not wrong, "keys", text, allowed)
        fits = known[0] not in found and chord not in found.values()
        require(fits, "keys", text, "the only one of its action and of its keys")
        found[known[0]] = chord
    return found


def _of_words(name: str) -> frozenset[str]:
    """The chord of a name that is made of words, such as UPRIGHTFIRE; empty: it is not."""
    words = re.findall("|".join(WORDS), name)
    return frozenset(WORDS[word] for word in words if "".join(words) == name)


def _of_gymnasium(
    named: Mapping[Any, int], count: int
) -> tuple[dict[int, frozenset[str]], int | None]:
    """Chords of a map of Gymnasium's, and the action of no key; nothing, where it is not read."""
    found: dict[int, frozenset[str]] = {}
    idle = None
    for keys, action in named.items():
        parts = keys if isinstance(keys, tuple | str) else (keys,)
        chord = [_name_of(part) for part in parts]
        if isinstance(action, bool) or action not in range(count) or not set(chord) <= set(PLAIN):
            return {}, None
        if chord:
            found.setdefault(int(action), frozenset(map(str, chord)))
        else:
            idle = int(action)
    return found, idle


def _name_of(key: Any) -> str | None:
    """Name of a key that is a character or a number; None: it has none here."""
    if isinstance(key, int):
        key = _OLD_ARROWS.get(key) or (chr(key) if 0 < key < 128 else "")
    return "space" if key == " " else str(key).lower()


def _free_key(name: str, chords: Mapping[int, frozenset[str]], aliases: Mapping[str, str]) -> str:
    """A key that is not used: at best one of the name's own."""
    used = frozenset().union(aliases, *chords.values())
    own = [name, *(x for x in name if x.isalpha())]
    wanted = [x.lower() for x in own]
    return next(key for key in (*wanted, *PLAIN) if key in PLAIN and key not in used)
