"""The command line of runs and tools, answered before JAX or an environment loads.

A request is a checked dataclass: a field is a flag of the same name, its docstring the help text; a
field without a default is a positional argument, a tuple a flag with several values. Flags are read
here, so that every mistake is one line; tyro renders `--help`. Names take underscores or dashes
(`--run_dir`, `--run-dir`). A switch is a pair, `--env.episodic_life` and `--env.no_episodic_life`;
it also takes `true` or `false` as its value.
"""

import dataclasses
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_origin

from smz_jax.config.check import (
    Alone,
    Between,
    Checked,
    ConfigError,
    Several,
    field_type,
    require,
    shorten,
)
from smz_jax.config.experiment import PRESET_NAMES, Experiment, resolve
from smz_jax.config.process import command_words
from smz_jax.config.settings import Config
from smz_jax.config.sources import SETTINGS, coerce, read_file, suggest, types_of

R = TypeVar("R")

VALIDATION_PRESET = "laptop"
"""With no preset named, flags are checked against this one until the machine has decided."""

LEAST_COLUMNS = 40

_HEADER = """{description}

Examples:
  {command}
      play, search, learn and find macros on this machine
  {command} --preset smoke --seed 1
      the whole run in under two minutes
  {command} --config my.yaml --search.num_simulations 8
      settings from a file, one of them changed
  {command} --resume --run_dir runs/{experiment}/20260101-120000-seed0
      continue a run that was stopped, bit for bit; so does experiments.resume with the folder
  {command} --init_from runs/{experiment}/20260101-120000-seed0@best
      a new run that begins with the weights of another one

A run leaves in its folder: config.yaml, metrics.jsonl, tensorboard/, macros.json, summary.json,
checkpoints/, figures/ and report.html. Later wins: defaults, experiment, preset, file, flags.
Switches are pairs: --env.episodic_life and --env.no_episodic_life.
The defaults below are those of the preset {preset}.
"""


@dataclass(frozen=True)
class RunRequest(Checked):
    """What the command line of a run takes beside the settings."""

    preset: Literal["tiny", "smoke", "laptop", "gpu"] | None = None
    """tiny: seconds, for tests. smoke: under 2 minutes. laptop: about 15 minutes on 2 cores.
    gpu: the papers' sizes. Unset: gpu where JAX sees an accelerator, else laptop."""
    config: Path | None = None
    """YAML or JSON file of settings, nested or dotted; it may name a preset."""
    run_dir: Path | None = None
    """Folder of the run. Unset: runs/<experiment>/<time>-seed<seed>."""
    resume: bool = False
    """Continue the run in --run_dir. Its settings stay; total_env_steps may be raised,
    devices and processes differ."""
    init_from: str | None = None
    """RUN_DIR, RUN_DIR@STEP or RUN_DIR@best: begin with these weights. Unset: at random."""
    track: Literal["none", "wandb"] | None = None
    """wandb: mirror the run to Weights & Biases, by a process beside it (docs/tracking.md).
    Unset: none; where a run is resumed, as before."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes that are started by hand (docs/devices.md).
    Unset: $JAX_COORDINATOR_ADDRESS, or the processes are found or started."""
    process_id: Annotated[int | None, Between(0, 1023)] = None
    """Which of these processes this one is, from 0 on. Unset: $JAX_PROCESS_ID."""


@dataclass(frozen=True)
class Invocation:
    """A run as its command line describes it."""

    config: Config
    preset: str | None  # None: named neither by a flag nor in the file
    run_dir: Path | None  # None: a new folder under runs/
    resume: bool
    explicit: dict[str, Any]  # dotted overrides of file and flags, flags winning
    experiment: Experiment
    command: str  # what was typed, for the records of the run
    init_from: str | None = None  # folder of a run, with @step or @best: weights to begin with
    words: Sequence[str] = ()  # what is typed after `python`, without the flags; empty: the run was
    #                            called from Python
    request: RunRequest = RunRequest()  # of a tool: its own flags too


def _read_words(
    kinds: Mapping[str, Any], argv: Sequence[str], places: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Flags as typed by name, and the words that are none.

    Where there are positional arguments a flag of several values takes one word each time it is
    given (`Several`: all that follow), a switch only `true` or `false`, and the beginning of a name
    is enough.

    Raises:
        ConfigError: on an unknown or incomplete flag, or a word where none is expected.
    """
    flags = {name: field_type(kind) for name, kind in kinds.items() if name not in places}
    negated = {}
    for name in (name for name, flag in flags.items() if flag.kind is bool):
        head, dot, leaf = name.rpartition(".")
        negated[f"{head}{dot}no_{leaf}"] = name
    found: dict[str, Any] = {}
    words: list[str] = []
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        typed, equals, value = token.partition("=")
        if not typed.startswith("--"):
            if not places or (token.startswith("-") and token != "-"):
                allowed = "settings are given as --name value"
                raise ConfigError(f"unexpected argument {shorten(token)}: {allowed}")
            words.append(token)
            continue
        name = typed[2:].replace("-", "_")
        if name not in flags and name in negated and not equals:
            found[negated[name]] = False
            continue
        if places and name and name not in flags:
            longer = [known for known in flags if known.startswith(name)]
            name = longer[0] if len(longer) == 1 else name
        if name not in flags:
            hint = suggest(name, list(flags), prefix="--") or "; --help lists all settings"
            is_plain = typed.isprintable() and len(typed) <= 80
            raise ConfigError(f"unknown flag {typed if is_plain else shorten(typed)}{hint}")
        kind, notes = flags[name].kind, flags[name].notes
        is_list, is_switch = get_origin(kind) is tuple, kind is bool
        values = [value] if equals else []
        takes_all = is_list and (not places or Several in notes)
        while tokens and (not values or takes_all):
            if tokens[0].startswith("--"):
                break
            if is_switch and places and tokens[0].lower() not in ("true", "false"):
                break
            values.append(tokens.pop(0))
        if not values:
            alone = next((x.value for x in notes if isinstance(x, Alone)), None)
            fits = is_switch or alone is not None
            require(fits, name, None, f"given a value: {typed} VALUE")
            found[name] = True if alone is None else alone
        elif is_list:
            found[name] = [*found.get(name, ()), *values] if places else values
        else:
            found[name] = values[0]
    return found, words


def _make(request: type[R], found: Mapping[str, Any]) -> R:
    """A request of flags as typed; raises ConfigError in one line."""
    kinds = types_of(request)
    return request(**{name: coerce(kinds[name], value) for name, value in found.items()})


def read_request(request: type[R], argv: Sequence[str] | None, help_text: str = "") -> R:
    """Reads the command line of a tool; prints help and exits with 0 where `--help` is given.

    The arguments are those after the program's name, None those of the process. `help_text` stands
    above the flags; the program is what it names first between backquotes.

    Raises:
        ConfigError: in one line naming the argument, its value and what is allowed.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if "-h" in argv or "--help" in argv:
        print_help(request, help_text)
    fields = dataclasses.fields(cast(Any, request))
    places = [spec.name for spec in fields if spec.default is dataclasses.MISSING]
    kinds = types_of(request)
    found, words = _read_words(kinds, argv, places)
    for name in places:
        if not words:
            raise ConfigError(f"{name.upper()} is missing; --help shows the arguments")
        is_list = get_origin(field_type(kinds[name]).kind) is tuple
        found[name] = words if is_list else words[0]
        words = [] if is_list else words[1:]
    if words:
        raise ConfigError(f"unexpected argument {shorten(words[0])}")
    return _make(request, found)


def tool(main: Callable[[R], int], request: type[R], help_text: str | None) -> Callable[..., int]:
    """The `main(argv=None)` of a tool: reads its request, does it, gives the exit code.

    Above the flags `--help` says `help_text`, the docstring of the tool's module.
    """
    return lambda argv=None: main(read_request(request, argv, help_text or ""))


def print_help(request: Any, text: str, program: str = "") -> None:
    """Prints tyro's help of a request below a text and exits with 0.

    The program is what is typed; empty: what the text names first between backquotes.
    """
    import tyro  # only --help pays for it

    program = program or " ".join(text.partition("`")[2].partition("`")[0].split()[:3])
    style = [tyro.conf.PositionalRequiredArgs, tyro.conf.PositionalMetavarFromFieldName]
    if not issubclass(request, RunRequest):
        style.append(tyro.conf.FlagCreatePairsOff)
    # Of less tyro makes pages of single letters, for minutes.
    columns = shutil.get_terminal_size().columns
    os.environ["COLUMNS"] = str(max(columns, LEAST_COLUMNS))
    args = {"prog": program, "description": text, "use_underscores": True, "config": style}
    tyro.cli(request, args=["--help"], **args)


def _print_run_help(
    experiment: Experiment, defaults: Config, preset: str, words: Sequence[str]
) -> None:
    """Prints the help of a run with the defaults of the chosen preset, and exits with 0."""
    import tyro

    settings = ("settings", Annotated[Config, tyro.conf.arg(name="")], field(default=defaults))
    shown = dataclasses.make_dataclass("Options", [settings], bases=(RunRequest,), frozen=True)
    name, command = experiment.name, shlex.join(["python", *words])
    expects = f" Expected at laptop: {experiment.expects}." if experiment.expects else ""
    text = experiment.description + expects
    header = _HEADER.format(description=text, command=command, experiment=name, preset=preset)
    print_help(shown, header, command)


def _saved_preset(config_file: Path) -> str | None:
    """The preset named in the header of a run's config.yaml; its settings hold all it says."""
    for line in config_file.read_text(encoding="utf-8").splitlines()[:5]:
        name = line.removeprefix("# preset: ")
        if name in PRESET_NAMES and name != line:
            return name
    return None


def parse(
    argv: Sequence[str] | None,
    experiment: Experiment,
    request: type[RunRequest] = RunRequest,
    own: Sequence[str] = (),
) -> Invocation:
    """Reads the command line; prints help and exits with 0 where `--help` is given.

    With `--resume` and no preset named, the settings saved in the run folder come below file and
    flags, so that `--resume --run_dir DIR` alone continues the run. The request has the flags
    beside the settings; `own` is what was typed where that is no module of `experiments`.

    Raises:
        ConfigError: in one line naming the field, its value and what is allowed.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    wants_help = "-h" in argv or "--help" in argv
    kinds, words = types_of(request), own or command_words(experiment.name)
    try:
        given = [token for token in argv if token not in ("-h", "--help")]
        flags, _ = _read_words({**SETTINGS, **kinds}, given)
        typed = {name: flags.pop(name) for name in kinds if name in flags}
        for name in [x for x in ("config", "run_dir", "init_from") if x in typed]:
            value, allowed = typed[name], "a path, printable and of at most 4096 characters"
            if name == "init_from":
                allowed = allowed.replace("a path", "RUN_DIR, RUN_DIR@STEP or RUN_DIR@best")
            fits = value.isprintable() and 0 < len(value) <= 4096
            require(fits, name, value, allowed)
            typed[name] = str(Path(os.path.expanduser(value)))
            allowed = "a path without ~: there is no home folder of that name"
            require(not typed[name].startswith("~"), name, value, allowed)
        command = shlex.join(["python", *words, *(sys.argv[1:] if own else argv)])
        called = invoke(experiment, _make(request, typed), flags, command=command, words=words)
    except ConfigError:
        if not wants_help:
            raise
        called = invoke(experiment, RunRequest(), {}, command="")
    if wants_help:
        chosen = called.preset or VALIDATION_PRESET
        _print_run_help(experiment, called.config, chosen, words)
    return called


def invoke(
    experiment: Experiment,
    wanted: RunRequest,
    flags: Mapping[str, Any],
    *,
    command: str,
    words: Sequence[str] = (),
) -> Invocation:
    """A run as it is described by a request and dotted settings over those of its file.

    `command` is what was typed, for the records of the run; `words` what continues it when typed
    after `python`, none where no command line does.

    Raises:
        ConfigError: in one line naming the field, its value and what is allowed.
    """
    allowed = "left out with --resume: a run continues with its own weights"
    weights = wanted.init_from
    require(not (wanted.resume and weights), "init_from", weights, allowed)
    from_file = {} if wanted.config is None else read_file(wanted.config)
    named = from_file.pop("preset", None) or (wanted.config and _saved_preset(wanted.config))
    preset = named if wanted.preset is None else wanted.preset
    saved = wanted.run_dir / "config.yaml" if wanted.resume and wanted.run_dir else None
    if preset is None and saved and os.path.isfile(saved):  # of a Path it may raise
        from_file = {**read_file(saved), **from_file}
        preset = _saved_preset(saved)
    chosen = VALIDATION_PRESET if preset is None else preset
    config = resolve(experiment, chosen, from_file, flags)
    if experiment.check is not None:
        experiment.check(config)
    return Invocation(
        config=config,
        preset=preset,
        run_dir=wanted.run_dir,
        resume=wanted.resume,
        explicit={**from_file, **flags},
        experiment=experiment,
        command="".join(x if x.isprintable() else " " for x in command[:10_000]),
        init_from=wanted.init_from,
        words=words,
        request=wanted,
    )


def choose_preset(invocation: Invocation, has_accelerator: bool) -> Invocation:
    """Lets the machine decide where no preset was named: `gpu` with an accelerator, else `laptop`.

    Raises:
        ConfigError: if the settings do not fit the preset so chosen.
    """
    if invocation.preset is not None:
        return invocation
    preset = "gpu" if has_accelerator else VALIDATION_PRESET
    config = resolve(invocation.experiment, preset, {}, invocation.explicit)
    return dataclasses.replace(invocation, config=config, preset=preset)
