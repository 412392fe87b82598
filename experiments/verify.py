"""Macros tried where they claim to hold: `python -m experiments.verify RUN_DIR`.

examples:
  the sound macros of a run, by its newest model, in a few minutes:
    python -m experiments.verify runs/breakout/20260131-120000-seed0
  more of everything, for narrower intervals:
    python -m experiments.verify runs/breakout/a --states 32 --games 32 --max_steps 3000
  an export of a grid world, against its exact rules; also macros that are not sound yet:
    python -m experiments.verify grid-a --any_status

A run's macros are of its newest checkpoint, so that one judges them: with --checkpoint best they
are compared with an older model, whose claims they are not.

Atari is tried in ale-py's emulator, whose states can be cloned: from states of the agent's own
games each macro is played. What the model foresees is compared with real ends of other moments (the
whole state), and with those of other sequences from the same state (the effect of the actions). A
lost life counts as a failure unless it was foreseen. The grid world is compared with its exact
rules, from every state. A macro applies where the model holds every transition to be certain and,
if it owns a slot of the precondition head, the head agrees; it is also tried without the head.
Sound macros without a slot are tried only where none has one. The same is done for as many macros
from shuffled play, at random, and from the untrained network; none of the first two is among the
run's own. Criteria compare them under the same condition. The tables, and which criteria are met,
are printed and written to FOLDER/verify.md, all numbers to FOLDER/verify.json (or into --out).
Where no macro is sound the controls are tried all the same, and the tables say which gate closed.
"""  # noqa: D405

from smz_jax.analysis.requests import VerifyRequest, check_can_be_verified, check_folder
from smz_jax.config.check import require
from smz_jax.config.cli import tool
from smz_jax.config.process import run_main
from smz_jax.run.devices import prepare_jax
from smz_jax.storage.pretrained import find_model, place_for
from smz_jax.storage.run_dir import WRITABLE, can_write


def verify(request: VerifyRequest) -> int:
    """Verifies, prints the tables and writes them.

    Raises:
        ConfigError: in one line, if an argument, the folder or the game cannot be used.
    """
    check_can_be_verified(check_folder(request.folder, request.checkpoint))
    out = place_for(find_model(request.folder), request.out)
    name = "FOLDER" if request.out is None else "out"
    require(can_write(out), name, str(out), f"{WRITABLE}: verify.json and verify.md go there")
    prepare_jax()
    from smz_jax.analysis.verify.session import verify_folder

    verify_folder(request)
    return 0


main = tool(verify, VerifyRequest, __doc__)

if __name__ == "__main__":
    run_main(main)
