"""From the command line to a finished run folder: what every experiment calls.

Heavy libraries are imported only after the settings are checked, so that a mistake is answered in
about two seconds.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from smz_jax.config.cli import Invocation, choose_preset, parse
from smz_jax.config.experiment import Experiment
from smz_jax.config.process import own_words, run_main
from smz_jax.run.joining import joined
from smz_jax.run.processes import alone, is_first
from smz_jax.run.signals import StopSignal
from smz_jax.run.tracker import Tracker, chosen_service
from smz_jax.storage import run_dir as folders


class Ended(NamedTuple):
    """How a run ended, as far as its folder does not say."""

    run_dir: Path
    code: int  # the exit code of `launch`
    fault: str | None = None  # why it stopped by itself, in one line


def launch(experiment: Experiment, argv: Sequence[str] | None = None) -> None:
    """Runs an experiment from the command line (unset: that of the process) and exits.

    Exit codes: 0 finished; 1 the last checkpoint could not be written, or too many updates were
    not finite; 2 a wrong setting (one line on stderr); 130 after Ctrl-C, 143 after SIGTERM and 129
    after SIGHUP, with a checkpoint saved and the command that continues printed.

    Args:
        experiment: the value of the experiment's module.
        argv: its arguments.
    """
    own = own_words(sys._getframe(1).f_globals)
    run_main(lambda: run(parse(argv, experiment, own=own)).code)


def run(invocation: Invocation) -> Ended:
    """Prepares the folder, trains, writes the summary and the report.

    Raises:
        ConfigError: in one line, if something does not fit.
        KeyboardInterrupt: if a second signal ended it at once.
    """
    from smz_jax.envs import OpponentFault, check_env_id, check_opponent

    check_env_id(invocation.config.env)
    try:
        check_opponent(invocation.config.env, invocation.config.eval.opponent)
    except OpponentFault as error:  # a run that began elsewhere goes on without it
        if not invocation.resume:
            raise
        print(f"{error}; the run goes on without it", flush=True)
    folders.check_run_dir(invocation)
    service = chosen_service(invocation)
    weights = folders.find_weights(invocation.init_from) if invocation.init_from else None
    if invocation.resume:  # needed where it was stopped before its first checkpoint
        invocation = replace(invocation, init_from=folders.began_with(invocation.run_dir))
        weights = folders.split_init_from(invocation.init_from) if invocation.init_from else None
    with contextlib.ExitStack() as locks:
        print(f"{invocation.config.experiment}: starting JAX", flush=True)
        locks.enter_context(joined(invocation))
        import jax

        invocation = choose_preset(invocation, has_accelerator=jax.default_backend() != "cpu")
        named = invocation.run_dir
        before = os.listdir(named) if named and named.is_dir() else []
        lock, prepare = folders.run_lock, folders.prepare_run_dir
        made = alone(lambda: str(prepare(invocation, lambda x: locks.enter_context(lock(x)))))
        run_dir, config = Path(made), invocation.config
        joint = f", {config.processes} processes" if config.processes > 1 else ""
        line = f"preset {invocation.preset}, seed {config.seed}, folder {run_dir}{joint}"
        print(line, flush=True)
        from smz_jax.run.ending import finish, resume_command
        from smz_jax.run.loop import train
        from smz_jax.storage.checkpoint import CheckpointStore

        experiment = invocation.experiment
        hooks = {"on_check": experiment.on_check, "on_finish": experiment.on_finish}
        begins: dict[str, Any] = {"resume": invocation.resume, "weights": weights, **hooks}
        if not is_first():  # it computes its part, and writes nothing
            train(config, run_dir, **begins)
            return Ended(run_dir, 0)
        tracker = locks.enter_context(Tracker(run_dir)) if service else None
        try:
            outcome = train(config, run_dir, **begins)
        except KeyboardInterrupt:
            folders.forget_start(run_dir, before)
            if CheckpointStore(run_dir).steps("last"):
                command = resume_command(invocation, run_dir)
                print(f"the checkpoint that was saved before is kept. Go on with:\n  {command}")
            raise
        except Exception:
            folders.forget_start(run_dir, before)
            raise
        if outcome.fault and not outcome.env_steps:
            folders.forget_start(run_dir, before)
            print(f"error: {outcome.fault}", file=sys.stderr)
            return Ended(run_dir, 1, outcome.fault)
        # A second press at once is the same press still.
        with StopSignal() if outcome.signal_number else contextlib.nullcontext():
            code = finish(invocation, outcome)
            if tracker:
                tracker.end(code)
            return Ended(outcome.run_dir, code, outcome.fault)
