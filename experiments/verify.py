"""Macros tried where they claim to hold: `python -m experiments.verify RUN_DIR`.

examples:
  the sound macros of a run, by its newest model, in a few minutes:
    python -m experiments.verify runs/breakout/20260131-120000-seed0
  more of everything, for narrower intervals:
    python -m experiments.verify runs/breakout/a --states 32 --games 32 --max_steps 3000
  an export of a grid world, against its exact rules; also macros that are not sound yet:
    python -m experiments.verify grid-a --any_status

A run's macros are of its newest checkpoint, so that one judges them: with --checkpoint best they
are held against an older model, whose claims they are not.

Atari is tried in ale-py's emulator, whose states can be cloned: from states of the agent's own
games each macro is played, and other sequences of its length. The grid world is held against its
exact rules, from every state. A macro applies where the model holds every transition to be certain
and, if it owns a slot of the precondition head, the head agrees; it is also tried without the head.
Sound macros without a slot are tried only where none has one.
The same is done for as many macros from shuffled play, at random, and from the untrained network;
none of the first two is among the run's own. The tables, and which criteria are met, are printed
and written to FOLDER/verify.md, all numbers to FOLDER/verify.json. Where no macro is sound the
controls are tried all the same, and the tables say which gate closed.
"""  # noqa: D405

import os
from pathlib import Path

from smz_jax.analysis.requests import VerifyRequest, check_folder
from smz_jax.config.check import ConfigError, require
from smz_jax.config.cli import tool
from smz_jax.config.process import run_main


def check_checkpoint(folder: Path, kind: str) -> None:
    """Raises ConfigError in one line that says what would work if a run has no such checkpoint."""
    from smz_jax.storage.checkpoint import CheckpointStore
    from smz_jax.storage.export import is_export

    if is_export(folder):
        return
    store = CheckpointStore(folder)
    there = [other for other in ("last", "best") if store.exists(other)]
    if there:
        allowed = f"{there[0]} (the only one that the run has)"
        require(kind in there, "--checkpoint", kind, allowed)
        return
    works = "a run that has saved one: training does so at its end, and now and then before"
    raise ConfigError(f"{folder} holds no checkpoint; what would work is {works}")


def verify(request: VerifyRequest) -> int:
    """Verifies, prints the tables and writes them.

    Raises:
        ConfigError: in one line, if an argument, the folder or the game cannot be used.
    """
    folder = request.folder
    suite = check_folder(folder, request.checkpoint).env.suite
    allowed = "atari (tried in ale-py's emulator) or grid (against its exact rules)"
    require(suite in ("atari", "grid"), "env.suite", suite, allowed)
    allowed = "a folder that can be written: verify.json and verify.md go there"
    require(os.access(folder, os.W_OK), "FOLDER", str(folder), allowed)
    from smz_jax.run.devices import prepare_jax

    prepare_jax()
    from smz_jax.analysis.load import load_model
    from smz_jax.analysis.verify.document import code_perplexity
    from smz_jax.analysis.verify.session import verify as verify_model
    from smz_jax.analysis.verify.table import to_markdown, to_text
    from smz_jax.storage.documents.verify_json import TABLE, write_verify_json
    from smz_jax.storage.files import atomic_write_text

    kind = request.checkpoint or "last"
    check_checkpoint(folder, kind)
    model = load_model(folder, kind)
    document = verify_model(model, request, lambda line: print(line, flush=True))
    document["code_perplexity"] = code_perplexity(folder)
    print(to_text(document))
    try:
        path = write_verify_json(folder, document)
        atomic_write_text(folder / TABLE, to_markdown(document))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from None
    print(f"wrote {path} and {folder / TABLE}")
    return 0


main = tool(verify, VerifyRequest, __doc__)

if __name__ == "__main__":
    run_main(main)
