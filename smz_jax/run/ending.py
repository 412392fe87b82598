"""The end of a run: summary.json, the report, and what is printed of both."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from smz_jax.config.cli import Invocation
from smz_jax.config.settings import Config
from smz_jax.envs import GameFault
from smz_jax.envs.undisturbed import TIMES
from smz_jax.report.macro_tables import format_rankings
from smz_jax.run import evaluate_and_save
from smz_jax.run.processes import alone
from smz_jax.run.state import RunState, library
from smz_jax.storage.estimate import Estimate
from smz_jax.storage.files import write_json
from smz_jax.storage.run_dir import CONFIG_NAME, git_commit, hardware, versions


class Outcome(NamedTuple):
    """How a run ended."""

    run_dir: Path  # where its folder is now
    finished: bool
    signal_number: int | None  # what stopped it
    saved: bool  # the last checkpoint could be written
    fault: str | None  # why the run stopped by itself
    evaluation: dict[str, Any] | None  # this and the next three as `evaluate_and_save.FinalScores`
    evaluation_greedy: dict[str, Any] | None
    evaluation_sticky: dict[str, Any] | None
    opponent_fault: str | None
    baselines: dict[str, Any] | None
    model_check: dict[str, Any]  # of the last parameters, as `evaluate_and_save.check`
    findings: dict[str, Any]  # what the experiment's own `on_finish` gave
    kept: dict[str, Any] | None  # games of stored play by `replay.keep`; None: all, or none is used
    library: dict[str, Any]  # as macros.json
    seconds: dict[str, float]
    env_steps: int
    learner_steps: int


def conclude(session: evaluate_and_save.Session, state: RunState, fault: str | None) -> Outcome:
    """Saves, and evaluates a run that came to its end; seconds are still to come."""
    parts, writer, stop = session.parts, session.writer, session.stop
    env_steps = parts.steps(state.counters.iteration)
    session.progress.status("saving a checkpoint")
    writer.flush()
    evaluate_and_save.note_failures(session, session.store.wait)
    if fault and session.store.steps("last"):
        fault += "; the last good checkpoint is kept"
    # What went wrong is kept out of the checkpoints: the last good one stays the newest.
    saved = not fault and evaluate_and_save.save_last(session, state, block=True)
    scores, model, findings = evaluate_and_save.FinalScores(), {}, {}
    if not stop and not fault:
        session.progress.status("final evaluation: whole games, unseen seeds")
        model, row = evaluate_and_save.check_model(session, state)
        if row:
            writer.write({"env_steps": env_steps, **row})
        if not alone(lambda: session.store.steps("best")):
            evaluate_and_save.keep_best(session, state)
        try:
            scores = evaluate_and_save.evaluate_final(session, state)
        except GameFault as error:
            fault = str(error)
        session = session.follow()
        hook, folder = session.on_finish, session.run_dir
        if played(scores) and hook and not (stop or alone(session.lost)):
            with parts.timers("evaluation"):
                findings = evaluate_and_save.by_hook(lambda x: hook(parts, x, folder), state)
    writer.close()
    parts.source.close()
    return Outcome(
        run_dir=session.run_dir,
        finished=played(scores) and not stop,
        signal_number=stop.number,
        saved=saved,
        fault=fault,
        **scores._asdict(),
        baselines=None,
        model_check=model,
        findings=findings,
        kept=getattr(parts.demonstrations or parts.source, "kept", None),
        library=library(parts, state),
        seconds={},
        env_steps=env_steps,
        learner_steps=int(state.train.step),
    )


def played(scores: evaluate_and_save.FinalScores) -> bool:
    """Whether there is a score, or none because of the opponent: a run is whole without it."""
    return scores.evaluation is not None or scores.opponent_fault is not None


def finish(invocation: Invocation, outcome: Outcome) -> int:
    """Writes summary and report of a run as it was started; prints both, gives the exit code."""
    config, run_dir = invocation.config, outcome.run_dir
    if not (run_dir / CONFIG_NAME).is_file():
        reason = outcome.fault or f"{run_dir / CONFIG_NAME} was deleted while the run went on"
        print(f"error: {reason}: it cannot be continued, and has no report", file=sys.stderr)
        return 1
    summary = summarise_run(invocation, run_dir, outcome)
    write_json(run_dir / "summary.json", summary)
    if outcome.signal_number is not None:  # first of all: who sent it may not wait for the rest
        print(
            f"stopped after {outcome.env_steps:,} of {config.total_env_steps:,} {config.unit}; "
            f"{'a' if outcome.saved else 'no new'} checkpoint is saved. Go on with:\n"
            f"  {resume_command(invocation, run_dir)}",
            flush=True,
        )
    from smz_jax.report.build import build_report  # plots: of seconds, and needed only now

    report = build_report([run_dir])
    print("\n" + format_summary(summary, config))
    if outcome.library["stats"]["transitions"]:  # else none were looked for
        print("\n" + format_rankings(outcome.library))
    print(f"\nreport: {report}")
    for what, count in TIMES.items():
        if count > 1:
            print(f"{count} times: {what}")
    if outcome.signal_number is not None:
        return 128 + outcome.signal_number
    if outcome.fault:
        print(f"error: {outcome.fault}", file=sys.stderr)
    return 0 if outcome.saved and not outcome.fault else 1


def resume_command(invocation: Invocation, run_dir: Path) -> str:
    """What to type to go on with a run: in a shell, or in Python where it was called from there."""
    if not invocation.words:
        name = invocation.experiment.name
        return f"smz_jax.train({name!r}, run_dir={str(run_dir)!r}, resume=True)"
    return shlex.join([sys.executable, *invocation.words, "--resume", "--run_dir", str(run_dir)])


def summarise_run(invocation: Invocation, run_dir: Path, outcome: Outcome) -> dict[str, Any]:
    """The run as summary.json holds it."""
    config = invocation.config
    return {
        **outcome.findings,
        "experiment": config.experiment,
        "name": run_dir.name,
        "seed": config.seed,
        "preset": invocation.preset,
        "command": invocation.command,
        "init_from": invocation.init_from,
        "kept": outcome.kept,
        "finished": outcome.finished,
        "env_steps": outcome.env_steps,
        "env_frames": outcome.env_steps * config.frames_per_step,
        "learner_steps": outcome.learner_steps,
        "seconds_total": sum(outcome.seconds.values()),
        "seconds": outcome.seconds,
        "evaluation": outcome.evaluation,
        "evaluation_greedy": outcome.evaluation_greedy,
        "evaluation_sticky": outcome.evaluation_sticky,
        "opponent_fault": outcome.opponent_fault,
        "baselines": outcome.baselines,
        "macros": outcome.library["stats"],
        "model_check": outcome.model_check,
        "versions": versions(),
        "commit": git_commit(),
        "platform": hardware(jax.devices()[0]),
    }


def _score(result: Mapping[str, Any]) -> str:
    return Estimate(*(result[f"mean{end}"] for end in ("", "_low", "_high"))).text("{:.2f}".format)


def format_summary(summary: Mapping[str, Any], config: Config) -> str:
    """The end of a run, by its summary.json, in a few lines: scores, baselines, time per phase."""
    minutes = summary["seconds_total"] / 60
    lines = [
        f"{summary['experiment']}, seed {summary['seed']}: {summary['env_steps']:,} {config.unit} "
        f"({summary['env_frames']:,} frames), {summary['learner_steps']:,} learner steps, "
        f"{minutes:.1f} minutes"
    ]
    noisy = f", noise {config.eval.noise:g}" if config.eval.noise else ""
    columns = {
        "evaluation": noisy,
        "evaluation_greedy": ", greedy",
        "evaluation_sticky": f"{noisy}, sticky actions 0.25",
    }
    for name, label in columns.items():
        if result := summary[name]:
            lines.append(
                f"score{label}: mean {_score(result)}, median {result['median']:g}, "
                f"interquartile mean {result['iqm']:.2f}, {result['games']} games, "
                f"{result['distinct']} different, "
                f"{result['cut_share']:.0%} cut off at {config.eval.max_steps:,} steps"
            )
    if fault := summary["opponent_fault"]:
        lines.append(fault)
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
    if stats["transitions"]:
        lines.append(
            f"macros: {stats['total']:.0f} ({stats['play']:.0f} played, {stats['tree']:.0f} only "
            f"in trees), {stats['candidates']:.0f} candidates, certain transitions "
            f"{stats['certain_rate_play']:.1%} of played, {stats['certain_rate_tree']:.1%} in trees"
        )
    return "\n".join(lines)
