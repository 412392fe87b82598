r"""The macros of a run or an export: `python -m experiments.macros RUN_DIR`.

Shows the macros that a run has found, which of them are sound, what they save, and what they do.

examples:
  everything: the table, the library by compression, three figures:
    python -m experiments.macros runs/breakout/20260131-120000-seed0
  the table alone, at once (no model is loaded):
    python -m experiments.macros runs/breakout/a --table --status sound --sort held --top 20
  macros that press RIGHT and something else, three to five actions long:
    python -m experiments.macros runs/breakout/a --table --contains RIGHT --no_repeats \
        --min_length 3 --max_length 5
  the same for a program; - is the standard output:
    python -m experiments.macros runs/breakout/a --status sound --json -

Without --table and --json the macros of the fewest bits are chosen: among the sound ones (among all
of the table, where none is sound, which is said), by the actions of the run's replay or, where
there is none, of games that the model plays. What is found goes into RUN_DIR/macros.json
(docs/macros_json.md) and RUN_DIR/figures: macro_timeline.png, macro_tree.png, macro_strips.png;
`python -m experiments.report RUN_DIR` then shows them in report.html. An export's macros.json stays
as it is, since its sum is kept: name another folder in --out to get one with the selection.
"""  # noqa: D405

from dataclasses import replace

from smz_jax.analysis.requests import MacrosRequest
from smz_jax.analysis.view.command import print_library, read_library, write_listing
from smz_jax.config.cli import tool
from smz_jax.config.process import run_main
from smz_jax.macros.library.listing import Wanted, listed
from smz_jax.run.devices import prepare_jax
from smz_jax.storage.pretrained import find_model, place_for


def macros(request: MacrosRequest) -> int:
    """Prints the table; chooses the library and draws, unless the table alone is wanted.

    Raises:
        ConfigError: in one line, if an argument, the folder or a file in it cannot be used.
    """
    request = replace(request, folder=find_model(request.folder))
    library, is_run = read_library(request)
    wanted = Wanted(**{name: getattr(request, name) for name in Wanted._fields})
    if request.json is not None:
        write_listing(library, wanted, request.json)
        return 0
    wanted = wanted._replace(top=20) if wanted.top is None else wanted
    if request.table:
        print_library(library, wanted)
    else:
        place_for(request.folder, request.out)
        listed({**library, "selection": {}}, wanted)  # a wrong filter is answered before JAX loads
        prepare_jax()
        from smz_jax.analysis.view.drawing import draw_library

        draw_library(request, library, wanted, is_run=is_run)
    return 0


main = tool(macros, MacrosRequest, __doc__)

if __name__ == "__main__":
    run_main(main)
