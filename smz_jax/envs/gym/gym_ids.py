"""Which library plays an id of suite gym, the spaces that it gives, and these as frames.

Imports nothing of this project that needs JAX (envpool imports JAX itself where that is installed).
See `observations` for the frames. The same id may have other spaces by `env.backend` and is then
learned from other inputs: Blackjack-v1 is three numbers in envpool and 45 bits of one-hots in
Gymnasium.
"""

import contextlib
import difflib
import functools
import importlib
import importlib.util
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from smz_jax.config.check import ConfigError, require
from smz_jax.config.settings import EnvConfig
from smz_jax.envs.gym.actions import Actions, each_lane, make_actions
from smz_jax.envs.gym.observations import MASKS, Coder, check_shapes, make_coder
from smz_jax.envs.protocol import error_text
from smz_jax.envs.undisturbed import close, tell, undisturbed

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
    actions: Actions
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
        players = spec.config.max_num_players
        require(players == 1, "env.id", config.id, f"for one player: it has {players}")
        with opening(config):
            observation, action = spec.gymnasium_observation_space, spec.gymnasium_action_space
        limit = getattr(spec.config, "max_episode_steps", None)
        tried = functools.partial(_try_envpool, config, name, action)
    else:
        library = "gymnasium"
        hint = "" if known else _near(config)
        require(known is not None, "env.id", config.id, f"an environment's id{hint}")
        only = EnvConfig(
            suite="gym",
            backend="gymnasium",
            id=config.id,
            kwargs=config.kwargs,
            action_bins=config.action_bins,
        )
        observation, action, seen = _try_gymnasium(only, name)
        limit, tried = gymnasium.spec(name).max_episode_steps, lambda: seen
    actions = make_actions(action, config.action_bins, config.id)
    masked = actions.space.size if isinstance(action, spaces.Discrete) else 0
    coder = make_coder(observation, config.frame_size, masked, tried)
    if coder.note:
        tell(f"env.id = {config.id!r}: {coder.note}")
    own_limit, limit = int(own_limit or limit or 0), config.max_episode_steps
    return Found(
        library=library,
        name=name,
        coder=coder,
        actions=actions,
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


@functools.lru_cache(maxsize=16)
def _try_gymnasium(config: EnvConfig, name: str) -> tuple[spaces.Space, spaces.Space, list[Any]]:
    """The spaces of an environment, and what `Tried` gives of it, which is of one agent.

    What fails at that fails again when it is played, and is told then.

    Raises:
        ConfigError: in one line, where it does not open, or there are several agents.
    """
    env, seen = open_single(config, name, None), []
    given: dict[str, Any] = {}
    space, action = env.observation_space, env.action_space
    quiet = warnings.catch_warnings(action="ignore")
    with contextlib.suppress(Exception, SystemExit), quiet, undisturbed(config.id):
        actions, allowed = make_actions(action, config.action_bins, config.id), np.zeros(1)
        first, info = env.reset(seed=1)
        if isinstance(action, spaces.Discrete):
            inside = first if isinstance(first, dict) else {}
            masks = [x[name] for x in (info, inside) for name in MASKS if name in x]
            allowed = next((x for x in masks if np.shape(x) == (action.n,)), allowed)
        one = actions.rebuild(np.array([np.argmax(allowed)]))
        after, *results, _ = env.step(each_lane(action, one)[0])
        given = dict(zip(("reward", "terminated", "truncated"), results, strict=False))
        seen = [first, after]
    close(env, config.id)
    for name, value in given.items():
        count = 0  # of something that holds no numbers, such as a dict of agents
        with contextlib.suppress(TypeError, ValueError):
            count = np.asarray(value, np.float64).size
        allowed = f"an environment of one agent: its {name} must be one number, not "
        require(count == 1, "env.id", config.id, allowed + repr(value)[:100])
    check_shapes(space, seen, config.id)
    return space, action, seen


def _try_envpool(config: EnvConfig, name: str, action: spaces.Space) -> list[Any]:
    """What `Tried` gives of an environment of envpool's."""
    pool, seen = _envpool().make_gymnasium(name, num_envs=1, seed=1, **config.options), []
    with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
        rebuild = for_envpool(make_actions(action, config.action_bins, config.id))
        seen = [pool.reset()[0], pool.step(rebuild(np.zeros(1, np.int32)))[0]]
    close(pool, config.id)
    return seen


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


def for_envpool(actions: Actions) -> Callable[[np.ndarray], np.ndarray]:
    """From actions `[B]` to what envpool takes, whose spaces say int64 where it takes int32."""

    def rebuild(chosen: np.ndarray) -> np.ndarray:
        values = actions.rebuild(chosen)
        return values.astype(np.int32) if values.dtype == np.int64 else values

    return rebuild


@contextlib.contextmanager
def opening(config: EnvConfig) -> Iterator[None]:
    """Opens something of a library's; its warnings are of no use to the reader, its errors are."""
    try:
        with warnings.catch_warnings(action="ignore"), undisturbed(config.id):
            yield
    except (Exception, SystemExit) as error:  # an environment's own constructor may do anything
        what = f"env.id = {config.id!r} with env.kwargs = {config.kwargs}"
        raise ConfigError(f"{what} cannot be opened: {error_text(error)}") from None


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
    if not close and colon:
        return f" that the module {module} registers: gymnasium.register({wanted!r}, ...)"
    if not close:
        return " that Gymnasium or envpool knows, such as CartPole-v1"
    return f", did you mean {', '.join(plain[key] for key in close)}?"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"-v\d+$", "", name).lower())
