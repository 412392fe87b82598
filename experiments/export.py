r"""A trained model as one small folder: `python -m experiments.export RUN_DIR`.

examples:
  the best model of a run by its own evaluations, into RUN_DIR/export:
    python -m experiments.export runs/breakout/20260131-120000-seed0
  the last one, elsewhere; then play with it, on any machine:
    python -m experiments.export runs/breakout/a --checkpoint last --out breakout-a
    python -m experiments.play breakout-a --out game.gif

The folder holds weights.npz (NumPy arrays, no pickle), config.yaml, evaluation.json (every
evaluation of the run, and the baselines), macros.json, export.json and SHA256SUMS. It needs no
other file of the run. Whoever reads it compares the sums first; `sha256sum -c SHA256SUMS` does so
without this project.
"""  # noqa: D405

from smz_jax.analysis.requests import ExportRequest
from smz_jax.config.check import ConfigError
from smz_jax.config.cli import tool
from smz_jax.config.process import run_main
from smz_jax.storage.run_dir import read_config


def export(request: ExportRequest) -> int:
    """Writes the export and prints what is in it; raises ConfigError in one line."""
    from smz_jax.storage.export import check_new_folder  # imports NumPy

    out = request.out or request.run_dir / "export"
    read_config(request.run_dir)
    check_new_folder(out)
    from smz_jax.analysis.load import export_run, format_scores
    from smz_jax.run.devices import prepare_jax

    prepare_jax()
    try:
        model = export_run(request.run_dir, out, request.checkpoint)
    except OSError as error:
        raise ConfigError(f"out = {str(out)!r} cannot be written: {error.strerror}") from None
    numbers = sum(array.size for array in model.weights.values())
    size = sum(path.stat().st_size for path in out.iterdir())
    steps = model.about["env_steps"]
    about = model.about
    print(f"{about['experiment']}, seed {about['seed']}, {about['checkpoint']} model")
    print(f"{numbers:,} parameters" + (f" after {steps:,} steps" if steps is not None else ""))
    if model.scores:
        print(f"scores of the run (* of this very model):\n{format_scores(model.scores)}")
    found = len(model.macros["macros"]) if model.macros else 0
    print(f"{found} macros\nwrote {out} ({size / 1e6:.2f} MB)")
    return 0


main = tool(export, ExportRequest, __doc__)

if __name__ == "__main__":
    run_main(main)
