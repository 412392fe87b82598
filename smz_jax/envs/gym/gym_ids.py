"""Which library plays an id of suite gym, the spaces that it gives, and these as frames.

Imports nothing of this project that needs JAX (envpool imports JAX itself where that is installed).

An image is a uint8 Box of rank 2, or of rank 3 with one or three channels (first or last), at least
16 pixels high and wide: it becomes grey (ITU-R 601 weights) and is resized to `env.frame_size` by
area, and may be stacked. Everything else becomes a vector in the order of `gymnasium.spaces.
flatten`: numbers as they are, Discrete and MultiDiscrete as one-hots, Dict and Tuple joined. The
same id may have other spaces by `env.backend` and is then learned from other inputs: Blackjack-v1
is three numbers in envpool and 45 bits of one-hots in Gymnasium.
"""

import contextlib
import difflib
import functools
import importlib
import importlib.util
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.frames import resize_area

MAX_ACTIONS, MAX_ONE_HOT, MIN_IMAGE = 10_000, 65_536, 16
GREY = np.array([0.299, 0.587, 0.114], np.float32)
OURS = {"id", "disable_env_checker"}
ENVPOOLS = {
    "num_envs", "batch_size", "num_threads", "seed", "env_seed", "env_type", "max_num_players",
    "gym_reset_return_info",
}  # fmt: skip
"""Arguments that are set here; those of envpool are free in an environment of the user's own."""


class Coder(NamedTuple):
    """How the observations of a space become frames."""

    frame_shape: tuple[int, ...]
    frame_dtype: np.dtype  # uint8: image, bool: only one-hots and bits, else float32
    encode: Callable[[Any], np.ndarray]  # batched observations -> [B, *frame_shape]


class Found(NamedTuple):
    """An environment that opens."""

    library: Literal["envpool", "gymnasium"]
    name: str  # full id
    coder: Coder
    num_actions: int
    first_action: int  # the library's number of action 0
    max_episode_steps: int  # its own limit, or the settings' if that is shorter


@functools.lru_cache(maxsize=16)
def find(config: EnvConfig) -> Found:
    """Looks in envpool (where `config.backend` allows it), then in Gymnasium.

    envpool plays an id that it has if it takes all of `env.kwargs`; one of the user's own modules
    is always played by Gymnasium.

    Raises:
        ConfigError: in one line, with near matches of an unknown id, if the environment does not
            open or its spaces are of a kind that is not known.
    """
    _check_options(config)
    known = _gymnasium_id(config.id)
    name = known or config.id
    own_limit = config.options.get("max_episode_steps")
    spec = _envpool_spec(config, name)
    if spec is not None:
        library = "envpool"
        observation, action = spec.gymnasium_observation_space, spec.gymnasium_action_space
        limit = getattr(spec.config, "max_episode_steps", None)
    else:
        library = "gymnasium"
        hint = "" if known else _near(config)
        require(known is not None, "env.id", config.id, f"an environment's id{hint}")
        env = open_single(config, name, None)
        observation, action = env.observation_space, env.action_space
        env.close()
        limit = gymnasium.spec(name).max_episode_steps
    fits = isinstance(action, spaces.Discrete) and action.n <= MAX_ACTIONS
    allowed = f"Discrete, of at most {MAX_ACTIONS} actions"
    require(fits, f"the action space of {config.id}", str(action), allowed)
    assert isinstance(action, spaces.Discrete)
    own_limit, limit = int(own_limit or limit or 0), config.max_episode_steps
    return Found(
        library=library,
        name=name,
        coder=make_coder(observation, config.frame_size),
        num_actions=int(action.n),
        first_action=int(action.start),
        max_episode_steps=min(own_limit, limit) if own_limit > 0 else limit,
    )


check_id = find


def _check_options(config: EnvConfig) -> None:
    """Raises ConfigError for kwargs that the libraries would misread without a word."""
    for name, value in config.options.items():
        is_ours = name in OURS or (name in ENVPOOLS and ":" not in config.id)
        require(not is_ours, f"env.kwargs.{name}", value, "left out: other settings decide it")
    mode = config.options.get("render_mode", "rgb_array")
    require(mode == "rgb_array", "env.kwargs.render_mode", mode, "rgb_array, or left out")
    limit = config.options.get("max_episode_steps", 1)
    good = type(limit) is int and limit > 0
    require(good, "env.kwargs.max_episode_steps", limit, "a whole number above 0")


def open_single(config: EnvConfig, name: str, max_episode_steps: int | None) -> gymnasium.Env:
    """One environment from Gymnasium, by its full id; a time limit of None is its own.

    Raises:
        ConfigError: in one line, whatever it is that does not open.
    """
    options = dict(config.options)
    options["max_episode_steps"] = max_episode_steps or options.get("max_episode_steps")
    with opening(config):
        return gymnasium.make(name, disable_env_checker=True, **options)


def open_envpool(config: EnvConfig, found: Found, seeds: Any) -> Any:
    """A synchronous pool of envpool's, one lane for each of the seeds `[B]` int64."""
    options = {**config.options, "max_episode_steps": found.max_episode_steps}
    options |= {"num_envs": len(seeds), "seed": seeds, "num_threads": config.num_threads}
    with opening(config):
        pool = _envpool().make_gymnasium(found.name, **options)
        _ = pool.observation_space  # made at its first use, with warnings
    return pool


@contextlib.contextmanager
def opening(config: EnvConfig) -> Iterator[None]:
    """Opens something of a library's; its warnings are of no use to the reader, its errors are."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (Exception, SystemExit) as error:  # an environment's own constructor may do anything
        what = f"env.id = {config.id!r} with env.kwargs = {config.kwargs}"
        raise ConfigError(f"{what} cannot be opened: {error_text(error)}") from None


def error_text(error: BaseException) -> str:
    """An error in one line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _gymnasium_id(env_id: str) -> str | None:
    """The full id under which Gymnasium knows an environment; imports `module:` before a colon."""
    module, colon, name = env_id.partition(":")
    if colon:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # the user's own module may do anything
            reason = f"an id whose module can be imported ({error_text(error)})"
            require(False, "env.id", env_id, reason)
    try:
        with warnings.catch_warnings(action="ignore"):
            return gymnasium.spec(name if colon else env_id).id
    except gymnasium.error.Error:
        return None


def _envpool() -> Any:
    """envpool, imported without its warnings; None where it is not installed."""
    if importlib.util.find_spec("envpool") is None:
        return None
    with warnings.catch_warnings(action="ignore"):
        return importlib.import_module("envpool")


def _envpool_ids(config: EnvConfig) -> list[str]:
    """What envpool may play: nothing where it is not wanted, or the module is the user's own."""
    wanted = config.backend == "envpool" and ":" not in config.id
    return _envpool().list_all_envs() if wanted and _envpool() else []


def _envpool_spec(config: EnvConfig, name: str) -> Any:
    """What envpool says of an id that it has, if it takes the kwargs; else None."""
    if name not in _envpool_ids(config):
        return None
    with opening(config):
        plain = _envpool().make_spec(name)
        takes = set(config.options) <= set(plain.config._asdict())
        return _envpool().make_spec(name, **config.options) if takes else None


def _near(config: EnvConfig) -> str:
    """`, did you mean ...?` for an unknown id."""
    module, colon, wanted = config.id.rpartition(":")
    known = {*gymnasium.registry, *_envpool_ids(config)}
    plain = {_plain(name): module + colon + name for name in sorted(known)}
    close = difflib.get_close_matches(_plain(wanted), plain, n=3, cutoff=0.6)
    if not close:
        return " that Gymnasium or envpool knows, such as CartPole-v1"
    return f", did you mean {', '.join(plain[key] for key in close)}?"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"-v\d+$", "", name).lower())


def make_coder(space: spaces.Space, frame_size: int) -> Coder:
    """The coder of an observation space.

    Args:
        space: of one lane.
        frame_size: height and width of an image's frame.

    Returns:
        The `Coder`; its `encode` takes what the libraries give for B lanes: arrays with a batch
        axis, in dicts or tuples where the space is one.

    Raises:
        ConfigError: if the space, or one inside it, is none of Box, Discrete, MultiDiscrete,
            MultiBinary, Dict and Tuple, or is empty.
    """
    if _is_image(space):
        shape = (frame_size, frame_size)
        return Coder(shape, np.dtype(np.uint8), lambda x: _grey_frame(np.asarray(x), frame_size))
    leaves = list(_leaves(space))
    size = sum(_size(leaf) for _, leaf in leaves)
    require(size > 0, "env.id", str(space), "an environment whose observation is not empty")
    numbers = any(isinstance(leaf, spaces.Box) for _, leaf in leaves)
    dtype = np.dtype(np.float32 if numbers else np.bool_)

    def encode(batch: Any) -> np.ndarray:
        parts = [_flat(leaf, functools.reduce(operator.getitem, at, batch)) for at, leaf in leaves]
        return np.concatenate(parts, axis=1).astype(dtype, copy=False)

    return Coder((size,), dtype, encode)


def _leaves(space: spaces.Space, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, spaces.Space]]:
    """The spaces inside of Dict and Tuple, each with its path of keys; another is its only one."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        is_dict = isinstance(space, spaces.Dict)
        for key, inner in space.spaces.items() if is_dict else enumerate(space.spaces):
            yield from _leaves(inner, (*at, key))
    else:
        yield at, space


def _size(leaf: spaces.Space) -> int:
    """Length of its part of the vector; raises ConfigError for a space that has none."""
    allowed = "made of Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple"
    one_hot = isinstance(leaf, (spaces.Discrete, spaces.MultiDiscrete))
    known = one_hot or isinstance(leaf, (spaces.Box, spaces.MultiBinary))
    require(known, "the observation space of env.id", str(leaf), allowed)
    size = int(spaces.flatdim(leaf))
    allowed = f"a one-hot of at most {MAX_ONE_HOT:,} numbers"
    fits = not one_hot or size <= MAX_ONE_HOT
    require(fits, "the observation space of env.id", str(leaf), allowed)
    return size


def _flat(leaf: spaces.Space, batch: Any) -> np.ndarray:
    """`gymnasium.spaces.flatten` for B observations at once: `[B, n]`."""
    array = np.asarray(batch)
    rows = array.reshape(len(array), -1)
    if isinstance(leaf, (spaces.Discrete, spaces.MultiDiscrete)):
        sizes = np.ravel(leaf.n if isinstance(leaf, spaces.Discrete) else leaf.nvec)
        columns = zip((rows - np.ravel(leaf.start)).T, sizes, strict=True)
        return np.concatenate([x[:, None] == np.arange(n) for x, n in columns], axis=1)
    return rows.astype(np.float32 if isinstance(leaf, spaces.Box) else np.bool_)


def _is_image(space: spaces.Space) -> bool:
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    shape = space.shape
    if len(shape) == 3 and {shape[0], shape[-1]} & {1, 3}:
        shape = shape[:2] if shape[-1] in (1, 3) else shape[1:]
    return len(shape) == 2 and min(shape) >= MIN_IMAGE


def _grey_frame(batch: np.ndarray, size: int) -> np.ndarray:
    """`[B, H, W]`, `[B, H, W, c]` or `[B, c, H, W]` uint8 to `[B, size, size]` uint8."""
    image = batch.astype(np.float32)
    if batch.ndim == 4:
        if batch.shape[-1] not in (1, 3):
            image = np.moveaxis(image, 1, -1)
        image = image @ GREY if image.shape[-1] == 3 else image[..., 0]
    return resize_area(image, size)
