"""Which chance encoder stays alive on frames: `python -m experiments.encoders --help`."""

if not __package__:
    raise SystemExit("error: type `python -m experiments.encoders` in the project's root")

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from experiments.encoders.variants import EXPERIMENT, SIZES, VARIANTS, Job, Plan, job_config
from smz_jax.config.check import Between, ConfigError, require
from smz_jax.config.cli import Invocation, RunRequest, choose_preset, parse, print_help
from smz_jax.config.process import run_main

HELP = """\
`python -m experiments.encoders` trains variants of the model offline on stored frames of random
play in Breakout, with the training step of the real runs, and measures which steps each predicts to
be random.

  python -m experiments.encoders
      every variant, sticky actions 0.25 and 0, seed 0
  python -m experiments.encoders --variants difference standardised --sticky 0.25 --updates 1000
  python -m experiments.encoders --variants difference --loss.reconstruction 100 --run_dir runs/x
      any setting of a run may be changed for all variants: python -m experiments.breakout --help

Truth: under sticky actions a step is random where the effect of its action differs from that of
the action before. Whether it does is found with the emulator, which plays each possible delay of
the action: RIGHT at the right wall does what NOOP does, and a third of the steps whose action
changes are certain for that reason. Only steps with the ball in play count.

A run continues where it was stopped, in the same folder; a finished job is not run again. Two calls
with different variants or --sticky may share a folder at the same time. It leaves

  results.json, table.md, encoders.png     of all that is finished
  frames-*.npz                             the stored frames
  jobs/NAME/                               rows.jsonl, settings, checkpoint, result.json

Later wins: base, preset, variant, file, flags. Presets, where no flag says otherwise:

""" + "".join(
    [
        f"  {name}: {x.transitions:,} steps of play, {x.updates:,} updates\n"
        for name, x in SIZES.items()
    ]
    + ["\nvariants:\n"]
    + [f"  {name:20} {about}\n" for name, (about, _) in VARIANTS.items()]
)


@dataclass(frozen=True)
class EncodersRequest(RunRequest):
    """What the command line takes beside the settings of a run."""

    preset: Literal["tiny", "smoke", "laptop", "gpu"] | None = None
    """Sizes and general settings. Unset: gpu where JAX sees an accelerator, else laptop."""
    run_dir: Path | None = None
    """Unset: runs/encoders/PRESET."""
    variants: tuple[str, ...] | None = None
    """Which variants. Unset: as the preset says."""
    sticky: Annotated[tuple[float, ...] | None, Between(0, 1, "[)")] = None
    """Chances that an action is repeated, e.g. 0.25 0. Unset: as the preset says."""
    seeds: Annotated[tuple[int, ...] | None, Between(0, 2**31 - 1)] = None
    """Unset: 0."""
    updates: Annotated[int | None, Between(1, 10**8)] = None
    """Of each variant."""
    eval_every: Annotated[int | None, Between(1, 10**8)] = None
    """Updates between two rows."""
    transitions: Annotated[int | None, Between(1, 10**8)] = None
    """Steps of random play."""


def make_plan(request: EncodersRequest, invocation: Invocation) -> Plan:
    """What the command line stands for; raises ConfigError in one line."""
    preset = invocation.preset or "laptop"
    names = ("updates", "eval_every", "transitions")
    given = {name: value for name in names if (value := getattr(request, name)) is not None}
    sizes = dataclasses.replace(SIZES[preset], **given)
    fits, allowed = sizes.rows >= 40, f"in {40 * sizes.lanes}..100000000"
    require(fits, "transitions", sizes.transitions, allowed)
    jobs = (
        Job(name, sticky, seed)
        for seed in request.seeds or [0]
        for sticky in request.sticky or sizes.sticky
        for name in request.variants or sizes.variants
    )
    run_dir = invocation.run_dir or Path("runs") / EXPERIMENT.name / preset
    return Plan(preset, sizes, tuple(dict.fromkeys(jobs)), invocation.explicit, run_dir)


def read_command(argv: list[str]) -> tuple[EncodersRequest, Invocation]:
    """Own flags, and the settings of a run; raises ConfigError, before JAX loads, in one line."""
    if "-h" in argv or "--help" in argv:
        print_help(EncodersRequest, HELP)
    invocation = parse(argv, EXPERIMENT, EncodersRequest)
    request = invocation.request
    assert isinstance(request, EncodersRequest)
    for name in ("resume", "init_from"):
        value = getattr(request, name)
        require(not value, name, value, "left out: a folder continues by itself")
    plan = make_plan(request, invocation)
    for job in plan.jobs:
        job_config(plan, job)
    from smz_jax.envs import check_env_id

    check_env_id(invocation.config.env)
    return request, invocation


def main() -> int:
    """Reads the command line, trains what is not finished, writes figure and table."""
    request, invocation = read_command(sys.argv[1:])
    from smz_jax.run.devices import prepare_jax

    prepare_jax(fast=invocation.preset == "tiny")
    import jax

    invocation = choose_preset(invocation, has_accelerator=jax.default_backend() != "cpu")
    from experiments.encoders.comparison import compare
    from experiments.encoders.comparison_report import write_report

    plan = make_plan(request, invocation)
    folder, updates = plan.run_dir, plan.sizes.updates
    print(f"encoders: {len(plan.jobs)} jobs of {updates:,} updates, folder {folder}", flush=True)
    try:
        signal_number = compare(plan)
        table = write_report(folder, invocation.command)
    except OSError as error:
        raise ConfigError(f"run_dir = {str(folder)!r} cannot be written: {error}") from None
    print(f"\n{table}\nwrote results.json, table.md and encoders.png in {folder}")
    if signal_number is not None:
        print(f"stopped; what was done is saved. Go on with:\n  {invocation.command}")
        return 128 + signal_number
    return 0


if __name__ == "__main__":
    run_main(main)
