"""Which games exist, answered from the installed ROM folders: nothing heavy is imported."""

import difflib
import importlib.util
import os
import re
from pathlib import Path

from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import EnvConfig


def check_id(config: EnvConfig) -> None:
    """Checks that the game and its library exist, without importing anything.

    Raises:
        ConfigError: in one line; names close matches of an unknown game, or the other backend
            where the library of this one is missing.
    """
    known = games(config.backend)
    if config.id in known:
        return
    plain = {_plain(name): name for name in known}
    close = difflib.get_close_matches(_plain(config.id), plain, n=3, cutoff=0.6)
    names = ", ".join(plain[key] for key in close)
    hint = f"did you mean {names}?" if names else "such as Breakout, Pong or SpaceInvaders"
    allowed = f"one of the {len(known)} games of {config.backend}, {hint}"
    require(False, "env.id", config.id, allowed)


_TWO_PLAYERS = frozenset({"combat", "joust", "maze_craze", "warlords"})
"""ROMs in ale-py's folder that it cannot load: loading one ends the process."""


def games(backend: str) -> dict[str, str]:
    """All games of a backend, as ALE spells them, with their ROM names.

    Args:
        backend: `envpool` or `ale`.

    Returns:
        e.g. `{"SpaceInvaders": "space_invaders", ...}`, sorted.

    Raises:
        ConfigError: if the backend's library, or ale-py (which names the actions), is missing.
    """
    ale = _package("ale_py")
    if ale is None:
        raise ConfigError("ale-py is not installed: run `pip install ale-py`")
    folder = ale / "roms"
    if backend == "envpool":
        package = _package("envpool")
        if package is None:
            raise ConfigError(
                "env.backend = 'envpool' needs envpool, which is not installed: "
                "use `--env.backend ale` or run `pip install envpool`"
            )
        roots = (os.environ.get("ENVPOOL_ASSETS_PATH"), package, _package("envpool_assets"))
        folders = [Path(root) / "atari" / "roms" for root in roots if root]
        folder = next((path for path in folders if path.is_dir()), folder)
    roms = sorted(path.stem for path in folder.glob("*.bin") if path.stem not in _TWO_PLAYERS)
    return {rom.title().replace("_", ""): rom for rom in roms}


def _package(name: str) -> Path | None:
    """Folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None


def _plain(name: str) -> str:
    """A game's name as people may spell it: `ALE/Space_Invaders-v5` becomes `spaceinvaders`."""
    name = re.sub(r"^ale/|(noframeskip)?(-v\d+)?$", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", name)
