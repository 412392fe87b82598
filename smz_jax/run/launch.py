"""From the command line to a finished run folder: what every experiment calls.

Heavy libraries are imported only after the settings are checked, so that a mistake is answered in
about two seconds.
"""

import contextlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smz_jax.config.cli import Invocation, choose_preset, parse, run_main
from smz_jax.config.settings import Config
from smz_jax.run.compiling import compile_fast, use_compile_cache
from smz_jax.storage.run_dir import (
    RunLock,
    Weights,
    began_with,
    check_run_dir,
    find_weights,
    git_commit,
    hardware,
    prepare_run_dir,
    split_init_from,
    versions,
)


def launch(
    experiment: str,
    base: Mapping[str, Any],
    description: str,
    argv: Sequence[str] | None = None,
    *,
    on_check: Callable[[Any], dict[str, float]] | None = None,
    on_finish: Callable[[Any, Path], dict[str, Any]] | None = None,
) -> None:
    """Runs an experiment from the command line and exits.

    Exit codes: 0 finished; 1 the last checkpoint could not be written, or too many updates were
    not finite; 2 a wrong setting (one line on stderr); 130 after Ctrl-C and 143 after SIGTERM, with
    a checkpoint saved and the command to go on printed.

    Args:
        experiment: name of the experiment's module.
        base: the experiment's own overrides, dotted.
        description: one or two sentences for `--help`.
        argv: arguments; unset: those of the process.
        on_check: `(smz_jax.run.parts.Run) -> metrics`, called at each check of the model;
            they go into the same row of metrics.jsonl.
        on_finish: `(Run, folder) -> entries`, called after the final evaluation; they go into
            summary.json.
    """

    def main() -> int:
        invocation = parse(argv, experiment=experiment, base=base, description=description)
        return _run(experiment, invocation, on_check=on_check, on_finish=on_finish)

    run_main(main)


def _run(experiment: str, invocation: Invocation, **hooks: Any) -> int:
    """Prepares the folder, trains, writes the summary and the report; gives the exit code."""
    from smz_jax.envs import check_env_id

    check_env_id(invocation.config.env)
    check_run_dir(invocation)
    weights = find_weights(invocation.init_from) if invocation.init_from else None
    if invocation.resume:  # needed where it was stopped before its first checkpoint
        invocation = replace(invocation, init_from=began_with(invocation.run_dir))
        weights = split_init_from(invocation.init_from) if invocation.init_from else None
    print(f"{invocation.config.experiment}: starting JAX", flush=True)
    use_compile_cache()
    if invocation.preset == "tiny":
        compile_fast()
    import jax

    invocation = choose_preset(invocation, has_accelerator=jax.default_backend() != "cpu")
    with contextlib.ExitStack() as locks:
        run_dir = prepare_run_dir(invocation, lambda folder: locks.enter_context(RunLock(folder)))
        return _train(experiment, invocation, run_dir, weights, **hooks)


def _train(
    experiment: str,
    invocation: Invocation,
    run_dir: Path,
    weights: Weights | None,
    **hooks: Any,
) -> int:
    """Trains in a folder that is locked, writes the summary and the report; gives the exit code."""
    import jax

    from smz_jax.run.loop import train

    config = invocation.config
    print(f"preset {invocation.preset}, seed {config.seed}, folder {run_dir}", flush=True)
    outcome = train(config, run_dir, resume=invocation.resume, weights=weights, **hooks)
    summary = {
        **outcome.findings,
        "experiment": config.experiment,
        "name": run_dir.name,
        "seed": config.seed,
        "preset": invocation.preset,
        "command": invocation.command,
        "init_from": invocation.init_from,
        "finished": outcome.finished,
        "env_steps": outcome.env_steps,
        "env_frames": outcome.env_steps * config.env.frames_per_step,
        "learner_steps": outcome.learner_steps,
        "seconds_total": sum(outcome.seconds.values()),
        "seconds": outcome.seconds,
        "evaluation": outcome.evaluation,
        "evaluation_sticky": outcome.evaluation_sticky,
        "baselines": outcome.baselines,
        "macros": outcome.library["stats"],
        "model_check": outcome.model_check,
        "versions": versions(),
        "commit": git_commit(),
        "platform": hardware(jax.devices()[0]),
    }
    return _finish(experiment, run_dir, config, summary, outcome)


def _finish(
    experiment: str, run_dir: Path, config: Config, summary: dict[str, Any], outcome: Any
) -> int:
    """Writes summary and report and prints both; gives the exit code."""
    from smz_jax.macros.library.summary import format_rankings
    from smz_jax.report.build import build_report
    from smz_jax.storage.files import write_json

    write_json(run_dir / "summary.json", summary)
    if outcome.signal_number is not None:  # first of all: who sent it may not wait for the rest
        module = f"experiments.{experiment}"
        go_on = [sys.executable, "-m", module, "--resume", "--run_dir", str(run_dir)]
        print(
            f"stopped after {outcome.env_steps:,} of {config.total_env_steps:,} environment steps; "
            f"{'a' if outcome.saved else 'no new'} checkpoint is saved. Go on with:\n"
            f"  {shlex.join(go_on)}",
            flush=True,
        )
    report = build_report([run_dir])
    print("\n" + format_summary(summary, config))
    print("\n" + format_rankings(outcome.library))
    print(f"\nreport: {report}")
    if outcome.signal_number is not None:
        return 128 + outcome.signal_number
    if outcome.fault:
        print(f"error: {outcome.fault}", file=sys.stderr)
    return 0 if outcome.saved and not outcome.fault else 1


def _score(result: Mapping[str, Any]) -> str:
    return f"{result['mean']:.2f} ({result['mean_low']:.2f} to {result['mean_high']:.2f})"


def format_summary(summary: Mapping[str, Any], config: Config) -> str:
    """The end of a run in a few lines: scores next to the baselines, time per phase.

    Args:
        summary: as in summary.json.
        config: the run's settings.
    """
    minutes = summary["seconds_total"] / 60
    lines = [
        f"{summary['experiment']}, seed {summary['seed']}: {summary['env_steps']:,} environment "
        f"steps ({summary['env_frames']:,} frames), {summary['learner_steps']:,} learner steps, "
        f"{minutes:.1f} minutes"
    ]
    columns = (("evaluation", ""), ("evaluation_sticky", ", sticky actions 0.25"))
    for name, label in columns:
        result = summary[name]
        if result:
            repeats = result["distinct"] < result["games"]
            different = f" ({result['distinct']} different)" if repeats else ""
            lines.append(
                f"score{label}: mean {_score(result)}, median {result['median']:g}, "
                f"interquartile mean {result['iqm']:.2f}, {result['games']} games{different}, "
                f"{result['cut_share']:.0%} cut off at {config.eval.max_steps:,} steps"
            )
    baselines = summary["baselines"]
    if baselines and baselines["random"]:
        lines.append(f"random policy: mean {_score(baselines['random'])}")
    if baselines and baselines["constant"]:
        best = max(baselines["constant"], key=lambda name: baselines["constant"][name]["mean"])
        result = baselines["constant"][best]
        lines.append(f"best constant action: {best}, mean {_score(result)}")
    if model := summary["model_check"]:
        lines.append(
            f"model: {model['code_perplexity']:.2f} codes in use (perplexity), "
            f"{model['agreement']:.0%} of them foreseen, mean transition entropy "
            f"{model['transition_entropy']:.3f} of ln C"
        )
    total = max(summary["seconds_total"], 1e-9)
    phases = sorted(summary["seconds"].items(), key=lambda item: -item[1])
    lines.append("time: " + ", ".join(f"{k} {v:.0f} s ({v / total:.0%})" for k, v in phases if v))
    stats = summary["macros"]
    lines.append(
        f"macros: {stats['total']:.0f} ({stats['play']:.0f} played, {stats['tree']:.0f} only in "
        f"trees), {stats['candidates']:.0f} candidates, certain transitions "
        f"{stats['certain_rate_play']:.1%} of played, {stats['certain_rate_tree']:.1%} in trees"
    )
    return "\n".join(lines)
