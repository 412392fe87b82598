"""The command line, answered before JAX or an environment loads.

Flags are read here from the fields of `Config`, so that every mistake is one line; tyro renders
`--help`. Names take underscores or dashes (`--run_dir`, `--run-dir`). A switch is a pair,
`--env.episodic_life` and `--env.no_episodic_life`; it also takes `true` or `false` as its value.
"""

import argparse
import dataclasses
import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from smz_jax.config.check import ConfigError, require, shorten
from smz_jax.config.presets import PRESET_NAMES
from smz_jax.config.settings import Config
from smz_jax.config.sources import (
    SETTINGS,
    config_from_yaml,
    config_to_yaml,
    diff,
    flat_dict,
    from_dict,
    read_file,
    resolve,
    suggest,
    to_dict,
)

__all__ = [
    "Invocation",
    "OneLineParser",
    "choose_preset",
    "config_from_yaml",
    "config_to_yaml",
    "diff",
    "flat_dict",
    "from_dict",
    "parse",
    "read_file",
    "resolve",
    "run_main",
    "to_dict",
]

VALIDATION_PRESET = "laptop"
"""With no preset named, flags are checked against this one until the machine has decided."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or a file that must not grow."""

_OWN_FLAGS = ("preset", "config", "run_dir", "resume", "init_from")

_HEADER = """{description}

Examples:
  {command}
      play, search, learn and find macros on this machine
  {command} --preset smoke --seed 1
      the whole run in under two minutes
  {command} --config my.yaml --search.num_simulations 8
      settings from a file, one of them changed
  {command} --resume --run_dir runs/{experiment}/20260101-120000-seed0
      go on with a run that was stopped, bit for bit; so does experiments.resume with the folder
  {command} --init_from runs/{experiment}/20260101-120000-seed0@best
      a new run that begins with the weights of another one

A run leaves in its folder: config.yaml, metrics.jsonl, tensorboard/, macros.json, summary.json,
checkpoints/, figures/ and report.html. Later wins: defaults, experiment, preset, file, flags.
Switches are pairs: --env.episodic_life and --env.no_episodic_life.
The defaults below are those of the preset {preset}.
"""


@dataclass(frozen=True)
class Invocation:
    """What the user asked for."""

    config: Config
    preset: str | None  # None: named neither by a flag nor in the file
    run_dir: Path | None  # None: a new folder under runs/
    resume: bool
    explicit: dict[str, Any]  # dotted overrides of file and flags, flags winning
    base: dict[str, Any]  # dotted overrides of the experiment itself
    command: str  # what was typed, for the records of the run
    init_from: str | None = None  # folder of a run, with @step or @best: weights to begin with


@dataclass(frozen=True)
class _Options:
    """Everything that `--help` shows; only tyro reads it."""

    preset: Literal["tiny", "smoke", "laptop", "gpu"] | None = None
    """tiny: seconds, for tests. smoke: under 2 minutes. laptop: about 15 minutes on 2 cores.
    gpu: the papers' sizes. Unset: gpu where JAX sees an accelerator, else laptop."""
    config: Path | None = None
    """YAML or JSON file of settings, nested or dotted; it may name a preset."""
    run_dir: Path | None = None
    """Folder of the run. Unset: runs/<experiment>/<time>-seed<seed>."""
    resume: bool = False
    """Go on with the run in --run_dir. Its settings stay; total_env_steps may be raised."""
    init_from: str | None = None
    """RUN_DIR, RUN_DIR@STEP or RUN_DIR@best: begin with these weights. Unset: at random."""


def _read_flags(argv: Sequence[str]) -> dict[str, Any]:
    """Flags as typed, by dotted name; raises ConfigError on an unknown or incomplete one."""
    kinds: dict[str, Any] = {**SETTINGS, **dict.fromkeys(_OWN_FLAGS, str), "resume": bool}
    negated = {}
    for name in (name for name, kind in kinds.items() if kind is bool):
        head, dot, leaf = name.rpartition(".")
        negated[f"{head}{dot}no_{leaf}"] = name
    found: dict[str, Any] = {}
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        typed, equals, value = token.partition("=")
        if not typed.startswith("--"):
            told = "settings are given as --name value"
            raise ConfigError(f"unexpected argument {shorten(token)}: {told}")
        name = typed[2:].replace("-", "_")
        if name in negated and not equals:
            found[negated[name]] = False
            continue
        if name not in kinds:
            hint = suggest(name, list(kinds), prefix="--") or "; --help lists all settings"
            is_plain = typed.isprintable() and len(typed) <= 80
            raise ConfigError(f"unknown flag {typed if is_plain else shorten(typed)}{hint}")
        if not equals and tokens and not tokens[0].startswith("--"):
            value, equals = tokens.pop(0), "="
        if not equals:
            require(kinds[name] is bool, name, None, f"given a value: {typed} VALUE")
            value = True
        found[name] = value
    if isinstance(found.get("resume"), str):
        text = found["resume"].lower()
        require(text in ("true", "false"), "resume", found["resume"], "true or false")
        found["resume"] = text == "true"
    return found


def _print_help(command: str, experiment: str, description: str, defaults: Config, preset: str):
    """Prints tyro's help with the defaults of the chosen preset."""
    import tyro  # only --help pays for it

    shown = dataclasses.make_dataclass(
        "Options",
        [("settings", Annotated[Config, tyro.conf.arg(name="")], field(default=defaults))],
        bases=(_Options,),
        frozen=True,
    )
    header = _HEADER.format(
        description=description, command=command, experiment=experiment, preset=preset
    )
    tyro.cli(shown, args=["--help"], prog=command, description=header, use_underscores=True)


def _own_path(flags: dict[str, Any], name: str, allowed: str = "a path") -> Path | None:
    """Takes the path flag `name` out of `flags`; raises ConfigError if it can be none."""
    value = flags.pop(name, None)
    fits = value is None or (value.isprintable() and 0 < len(value) <= 4096)
    require(fits, name, value, f"{allowed}, printable and of at most 4096 characters")
    return None if value is None else Path(os.path.expanduser(value))


def _saved_preset(config_file: Path) -> str | None:
    """The preset named in the header of a run's config.yaml; its settings hold all it says."""
    for line in config_file.read_text(encoding="utf-8").splitlines()[:5]:
        name = line.removeprefix("# preset: ")
        if name in PRESET_NAMES and name != line:
            return name
    return None


def parse(
    argv: Sequence[str] | None,
    *,
    experiment: str,
    base: Mapping[str, Any] = {},
    description: str = "",
) -> Invocation:
    """Reads the command line; prints help and exits with 0 where it is asked for.

    With `--resume` and no preset named, the settings saved in the run folder come below file and
    flags, so that `--resume --run_dir DIR` alone goes on with the run.

    Args:
        argv: the arguments after the program's name; None takes those of the process.
        experiment: name of the experiment's module, e.g. `breakout`.
        base: the experiment's own overrides, dotted.
        description: one or two sentences on what the experiment does, for `--help`.

    Raises:
        ConfigError: in one line naming the field, its value and what is allowed.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    base = {"experiment": experiment, **base}
    command = f"python -m experiments.{experiment}"
    wants_help = "-h" in argv or "--help" in argv
    try:
        flags = _read_flags([token for token in argv if token not in ("-h", "--help")])
        config_path, run_dir = _own_path(flags, "config"), _own_path(flags, "run_dir")
        resume = flags.pop("resume", False)
        weights = _own_path(flags, "init_from", "RUN_DIR, RUN_DIR@STEP or RUN_DIR@best")
        allowed = "left out with --resume: a run goes on with its own weights"
        require(not (resume and weights), "init_from", str(weights), allowed)
        from_file = {} if config_path is None else read_file(config_path)
        preset = flags.pop("preset", from_file.pop("preset", None))
        saved = run_dir / "config.yaml" if resume and run_dir and preset is None else None
        if saved is not None and os.path.isfile(saved):  # of a Path it may raise
            from_file = {**read_file(saved), **from_file}
            preset = _saved_preset(saved)
        chosen = VALIDATION_PRESET if preset is None else preset
        config = resolve(base, chosen, from_file, flags)
    except ConfigError:
        if not wants_help:
            raise
        chosen = VALIDATION_PRESET
        config = resolve(base, chosen, {}, {})
    if wants_help:
        _print_help(command, experiment, description, config, chosen)
    typed = shlex.join([*command.split(), *argv])
    return Invocation(
        config=config,
        preset=preset,
        run_dir=run_dir,
        resume=resume,
        explicit={**from_file, **flags},
        base=base,
        command="".join(x if x.isprintable() else " " for x in typed[:10_000]),
        init_from=None if weights is None else str(weights),
    )


def choose_preset(invocation: Invocation, has_accelerator: bool) -> Invocation:
    """Lets the machine decide where no preset was named: `gpu` with an accelerator, else `laptop`.

    Raises:
        ConfigError: if the settings do not fit the preset so chosen.
    """
    if invocation.preset is not None:
        return invocation
    preset = "gpu" if has_accelerator else VALIDATION_PRESET
    config = resolve(invocation.base, preset, {}, invocation.explicit)
    return dataclasses.replace(invocation, config=config, preset=preset)


class OneLineParser(argparse.ArgumentParser):
    """Of the commands that take no settings: answers a mistake in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(" ".join(message.split()))


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Runs `main` and exits with its code.

    A `ConfigError` is one line on stderr and code 2. A signal that `main` does not handle itself
    is one line too: 130 after Ctrl-C, 143 after SIGTERM; and so is a full disk, with code 1. A
    closed pipe (`--help | head`) is no error.
    """
    stopped_by = signal.SIGINT

    def terminate(number: int, frame: Any) -> NoReturn:
        nonlocal stopped_by
        stopped_by = signal.SIGTERM
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        code = main()
        sys.stdout.flush()
    except ConfigError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted; a checkpoint that was saved before is kept", file=sys.stderr)
        code = 128 + stopped_by
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        where = error.filename or "a file of the run"
        print(
            f"error: {error.strerror}: {where}; make room and go on with --resume: what was saved "
            "before is kept",
            file=sys.stderr,
        )
        code = 1
    sys.exit(code)
