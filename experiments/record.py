"""Games as a dataset, played by a person, a model or chance: `python -m experiments.record`.

examples:
  a person plays Breakout in a window; any setting of a run may follow:
    python -m experiments.record --env.id Breakout --out mine
  slower, three games, of which the best two are kept:
    python -m experiments.record --env.id Breakout --fps 8 --games 3 --best 2 --out mine
  2048 in the terminal, a key a move:
    python -m experiments.record --experiment twenty48 --terminal --out mine
  keys of one's own:
    python -m experiments.record --env.suite gym --env.id CartPole-v1 --keys 0=j 1=l --out mine
  20,000 steps of a trained model, of a run or of an export:
    python -m experiments.record --by runs/breakout/a --total_env_steps 20000 --out good
  40,000 steps of random play:
    python -m experiments.record --by random --experiment gridworld --total_env_steps 40000 --out r
  training on it, without playing:
    python -m experiments.offline --dataset mine

A game in which an action does nothing runs by itself, any other one waits for a key. P pauses,
Backspace goes back (a lost life is undone so), Enter begins the next game, Esc ends. Ctrl-C and
closing the window keep what was played. Of two players in turn the person plays both. What is
written is as that of `experiments.dataset`. Needs `pip install '.[record]'`.
"""  # noqa: D405

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.dataset import value_of, write
from smz_jax.analysis.requests import PersonWay
from smz_jax.config.check import require
from smz_jax.config.cli import RunRequest, choose_preset, parse, print_help
from smz_jax.config.experiment import Experiment, find_experiment
from smz_jax.config.kept import Kept
from smz_jax.config.process import run_main
from smz_jax.storage.run_dir import CONFIG_NAME, read_config

GAMES = {"atari": "atari", "gym": "gym", "grid": "gridworld", "turns": "pig", "pgx": "twenty48"}
"""Experiment of a suite, where none is named."""


@dataclass(frozen=True)
class RecordRequest(RunRequest, Kept, PersonWay):
    """What is recorded, beside the settings of a run."""

    by: str = "person"
    """person, random, or the folder of a run or of an export that plays with its own settings and
    the exploration of training"""
    out: Path | None = None
    """new or empty folder; must be given"""


def experiment_of(words: list[str], by: str) -> tuple[Experiment, list[str]]:
    """Whose settings and presets are meant, and the words with what `by` adds.

    Raises:
        ConfigError: in one line, if the words do not say it.
    """
    if by not in ("person", "random"):
        name = read_config(Path(by)).experiment
        return Experiment(name), ["--config", str(Path(by) / CONFIG_NAME), *words]
    if name := value_of("--experiment", words):
        return find_experiment(name), words
    suite, game = value_of("--env.suite", words) or "atari", value_of("--env.id", words)
    is_known = bool(game or value_of("--config", words))
    allowed = "given: --env.id GAME (--env.suite gym, pgx, ...), --experiment NAME or --by RUN_DIR"
    if not is_known:
        parse(words, Experiment("atari", "atari"), RecordRequest)  # names what is wrong beside it
        require(False, "env.id", game, allowed)
    from smz_jax.envs.pgx.pgx_games import BOARDS

    return find_experiment("board" if game in BOARDS else GAMES.get(suite, "atari")), words


def main() -> int:
    """Plays, or lets play, and writes it."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print_help(RecordRequest, __doc__ or "")
    by = value_of("--by", words) or "person"
    experiment, words = experiment_of(words, by)
    invocation = parse(words, experiment, RecordRequest, own=("-m", "experiments.record"))
    request: Any = invocation.request
    require(not request.resume, "resume", True, "left out: a recording is always a new one")
    from smz_jax.envs import check_env_id

    check_env_id(invocation.config.env)

    def make() -> Any:
        import jax

        from smz_jax.analysis import recording
        from smz_jax.run.signals import StopSignal

        config = choose_preset(invocation, jax.default_backend() != "cpu").config
        with StopSignal() as stop:
            if request.by == "person":
                return recording.record_person(config, request, lambda: bool(stop))
            folder = None if request.by == "random" else Path(request.by)
            return recording.record(config, folder, lambda: bool(stop))

    write(request.out, make, request)
    return 0


if __name__ == "__main__":
    run_main(main)
