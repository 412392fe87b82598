"""Which library plays an id of suite gym, and the spaces that it gives.

Imports nothing of this project that needs JAX (envpool imports JAX itself where that is installed).
"""

import difflib
import functools
import importlib
import importlib.util
import re
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.gym.spaces import Coder, make_coder

MAX_ACTIONS = 10_000
OURS = {"id", "disable_env_checker"}
ENVPOOLS = {
    "num_envs", "batch_size", "num_threads", "seed", "env_seed", "env_type", "max_num_players",
    "gym_reset_return_info",
}  # fmt: skip
"""Arguments that are set here; those of envpool are free in an environment of the user's own."""


class Found(NamedTuple):
    """An environment that opens."""

    library: Literal["envpool", "gymnasium"]
    name: str  # full id
    coder: Coder
    num_actions: int
    first_action: int  # the library's number of action 0
    max_episode_steps: int  # its own limit, or the settings' if that is shorter


def check_id(config: EnvConfig) -> None:
    """Checks that the environment opens and that its spaces are of a kind that is known.

    Raises:
        ConfigError: in one line, with near matches of an unknown id.
    """
    find(config)


@functools.lru_cache(maxsize=16)
def find(config: EnvConfig) -> Found:
    """Looks in envpool (where `config.backend` allows it), then in Gymnasium.

    envpool plays an id that it has if it takes all of `env.kwargs`; one of the user's own modules
    is always played by Gymnasium.

    Raises:
        ConfigError: as `check_id`.
    """
    _check_options(config)
    name = _gymnasium_id(config.id)
    own_limit = config.options.get("max_episode_steps")
    if _envpool_has(config, name or config.id):
        library, name = "envpool", name or config.id
        observation, action, limit = _quietly(lambda: _envpool_spaces(config, name), config)
        own_limit = own_limit or limit
    else:
        library = "gymnasium"
        if name is None:
            require(False, "env.id", config.id, f"an environment's id{_near(config)}")
            raise AssertionError
        env = open_single(config, name, None)
        observation, action = env.observation_space, env.action_space
        env.close()
        own_limit = own_limit or gymnasium.spec(name).max_episode_steps
    if not isinstance(action, spaces.Discrete) or action.n > MAX_ACTIONS:
        allowed = f"Discrete, of at most {MAX_ACTIONS} actions"
        require(False, f"the action space of {config.id}", str(action), allowed)
        raise AssertionError
    limit = config.max_episode_steps
    return Found(
        library=library,
        name=name,
        coder=make_coder(observation, config.frame_size),
        num_actions=int(action.n),
        first_action=int(action.start),
        max_episode_steps=min(int(own_limit), limit) if own_limit and own_limit > 0 else limit,
    )


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
    """One environment from Gymnasium.

    Args:
        config: gives the kwargs.
        name: full id.
        max_episode_steps: time limit; None: the environment's own.

    Raises:
        ConfigError: in one line, whatever it is that does not open.
    """
    options = dict(config.options)
    options["max_episode_steps"] = max_episode_steps or options.get("max_episode_steps")
    make = lambda: gymnasium.make(name, disable_env_checker=True, **options)  # noqa: E731
    return _quietly(make, config)


def _envpool_spaces(config: EnvConfig, name: str) -> tuple[spaces.Space, spaces.Space, int | None]:
    """Observation space, action space and time limit."""
    spec = _import_envpool().make_spec(name, **config.options)
    limit = getattr(spec.config, "max_episode_steps", None)
    return spec.gymnasium_observation_space, spec.gymnasium_action_space, limit


def open_envpool(config: EnvConfig, found: Found, seeds: np.ndarray) -> Any:
    """A synchronous pool of envpool's, one lane for each of the seeds `[B]` int64."""
    options = {**config.options, "max_episode_steps": found.max_episode_steps}

    def make() -> Any:
        pool = _import_envpool().make_gymnasium(
            found.name,
            num_envs=len(seeds),
            seed=seeds,
            num_threads=config.num_threads,
            **options,
        )
        _ = pool.observation_space  # made at its first use, with warnings
        return pool

    return _quietly(make, config)


def _quietly(make: Callable[[], Any], config: EnvConfig) -> Any:
    """Opens something of a library's; its warnings are of no use to the reader, its errors are."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gymnasium.spec(name if colon else env_id).id
    except gymnasium.error.Error:
        return None


def _envpool_has(config: EnvConfig, name: str) -> bool:
    """Whether envpool is wanted, installed, has the id, and takes the kwargs."""
    wanted = config.backend == "envpool" and ":" not in config.id
    if not wanted or importlib.util.find_spec("envpool") is None:
        return False
    envpool = _import_envpool()
    if name not in envpool.list_all_envs():
        return False
    if not config.options:
        return True
    spec = _quietly(lambda: envpool.make_spec(name), config)
    return set(config.options) <= set(spec.config._asdict())


def _import_envpool() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import envpool
    return envpool


def _near(config: EnvConfig) -> str:
    """`, did you mean ...?` for an unknown id."""
    known = set(gymnasium.registry)
    module, colon, wanted = config.id.rpartition(":")
    has_envpool = importlib.util.find_spec("envpool") is not None
    if config.backend == "envpool" and has_envpool and not colon:
        known |= set(_import_envpool().list_all_envs())
    plain = {_plain(name): module + colon + name for name in sorted(known)}
    wanted = _plain(wanted)
    close = difflib.get_close_matches(wanted, plain, n=3, cutoff=0.6)
    if not close:
        return " that Gymnasium or envpool knows, such as CartPole-v1"
    return f", did you mean {', '.join(plain[key] for key in close)}?"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"-v\d+$", "", name).lower())
