"""Which chance encoder stays alive on frames: `python -m experiments.encoders --help`."""

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

from experiments.encoders.variants import (
    EXPERIMENT,
    SIZES,
    VARIANTS,
    Job,
    Sizes,
    check_explicit,
    check_variants,
    job_config,
)
from smz_jax.config.cli import Invocation, OneLineParser, choose_preset, parse, run_main
from smz_jax.config.settings import ConfigError, require

HELP = """\
Trains variants of the model offline on stored frames of random play in Breakout, with the training
step of the real runs, and measures which steps each predicts to be random.

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

variants:
"""


def make_parser() -> argparse.ArgumentParser:
    """The flags of this experiment; those of a run's settings are left to `parse`."""
    described = "".join(f"  {name:20} {text}\n" for name, (text, _) in VARIANTS.items())
    parser = OneLineParser(
        "python -m experiments.encoders",
        description=HELP + described,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Later wins: base, preset, variant, file, flags.",
    )
    presets = ", ".join(
        f"{name} ({x.transitions:,} steps of play, {x.updates:,} updates)"
        for name, x in SIZES.items()
    )
    parser.add_argument("--preset", help=f"{presets}; unset: gpu with an accelerator, else laptop")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="unset: as the preset says")
    parser.add_argument("--sticky", nargs="+", type=float, metavar="P", help="e.g. 0.25 0")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="unset: 0")
    parser.add_argument("--updates", type=int, metavar="N", help="of each variant")
    parser.add_argument("--eval_every", type=int, metavar="N", help="updates between two rows")
    parser.add_argument("--transitions", type=int, metavar="N", help="steps of random play")
    parser.add_argument("--run_dir", type=Path, metavar="DIR", help="unset: runs/encoders/PRESET")
    parser.add_argument("--config", metavar="FILE", help="YAML or JSON file of settings")
    return parser


def read_sizes(own: argparse.Namespace, preset: str) -> Sizes:
    """The preset's sizes with what was given; raises ConfigError in one line."""
    sizes = SIZES[preset]
    given = {
        name: value
        for name in ("updates", "eval_every", "transitions")
        if (value := getattr(own, name)) is not None
    }
    for name, value in given.items():
        least = 40 * sizes.lanes if name == "transitions" else 1
        require(least <= value <= 10**8, name, value, f"in {least}..100000000")
    return dataclasses.replace(sizes, **given)


def read_jobs(own: argparse.Namespace, sizes: Sizes) -> tuple[Job, ...]:
    """The jobs, those that share frames together; raises ConfigError in one line."""
    names = list(dict.fromkeys(own.variants or sizes.variants))
    check_variants(names)
    sticky = list(dict.fromkeys(sizes.sticky if own.sticky is None else own.sticky))
    seeds = list(dict.fromkeys([0] if own.seeds is None else own.seeds))
    for value in sticky:
        require(0 <= value < 1, "sticky", value, "in [0, 1)")
    for value in seeds:
        require(0 <= value < 2**31, "seeds", value, "in 0..2147483647")
    return tuple(Job(name, p, seed) for seed in seeds for p in sticky for name in names)


def read_command(argv: list[str]) -> tuple[argparse.Namespace, Invocation]:
    """Own flags, and the settings of a run; raises ConfigError, before JAX loads, in one line."""
    own, rest = make_parser().parse_known_args(argv)
    passed = [
        word
        for name in ("preset", "config", "run_dir")
        if (value := getattr(own, name)) is not None
        for word in (f"--{name}", str(value))
    ]
    invocation = parse([*passed, *rest], EXPERIMENT)
    require(not invocation.resume, "resume", True, "left out: a folder continues by itself")
    check_explicit(invocation.explicit)
    preset = invocation.preset or "laptop"
    sizes = read_sizes(own, preset)
    for job in read_jobs(own, sizes):
        job_config(preset, sizes, job, invocation.explicit)
    from smz_jax.envs import check_env_id

    check_env_id(invocation.config.env)
    return own, invocation


def main() -> int:
    """Reads the command line, trains what is not finished, writes figure and table."""
    own, invocation = read_command(sys.argv[1:])
    from smz_jax.run.devices import compile_fast, use_compile_cache

    use_compile_cache()
    if invocation.preset == "tiny":
        compile_fast()
    import jax

    invocation = choose_preset(invocation, has_accelerator=jax.default_backend() != "cpu")
    preset = str(invocation.preset)
    sizes = read_sizes(own, preset)
    from experiments.encoders.compare import Plan, compare
    from experiments.encoders.report import write_report

    run_dir = invocation.run_dir or Path("runs") / EXPERIMENT.name / preset
    plan = Plan(preset, sizes, read_jobs(own, sizes), invocation.explicit, run_dir)
    typed = shlex.join(["python", "-m", "experiments.encoders", *sys.argv[1:]])
    print(
        f"encoders: {len(plan.jobs)} jobs of {sizes.updates:,} updates, folder {run_dir}",
        flush=True,
    )
    try:
        signal_number = compare(plan)
        table = write_report(run_dir, typed)
    except OSError as error:
        raise ConfigError(f"run_dir = {str(run_dir)!r} cannot be written: {error}") from None
    print(f"\n{table}\nwrote results.json, table.md and encoders.png in {run_dir}")
    if signal_number is not None:
        print(f"stopped; what was done is saved. Go on with:\n  {typed}")
        return 128 + signal_number
    return 0


if __name__ == "__main__":
    run_main(main)
