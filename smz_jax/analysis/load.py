"""A trained model from where it is: an export, or a checkpoint of a run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from smz_jax.acting.agent import make_decide
from smz_jax.analysis.requests import Checkpoint
from smz_jax.config.check import require
from smz_jax.config.settings import Config
from smz_jax.envs import make_spec
from smz_jax.macros.library.summary import precondition_fields
from smz_jax.macros.mine.keys import why_no_macros
from smz_jax.macros.precondition.quality import slot_entries
from smz_jax.macros.precondition.updates import HeadState, init_head, model_part
from smz_jax.model.networks import make_networks
from smz_jax.storage.checkpoint import CheckpointStore
from smz_jax.storage.documents.forms import Document
from smz_jax.storage.documents.macro_form import LIBRARY
from smz_jax.storage.documents.results_json import BASELINES, SUMMARY
from smz_jax.storage.estimate import Estimate
from smz_jax.storage.export import Exported, check_new_folder, read_export, write_export
from smz_jax.storage.metrics import read_metrics
from smz_jax.storage.pretrained import find_model, is_export
from smz_jax.storage.run_dir import read_config, versions
from smz_jax.storage.weights import fit, named_weights
from smz_jax.types import Decision, EnvSpec, Networks, Params

STATISTICS = (
    *("games", "distinct", "mean", "mean_low", "mean_high", "median", "iqm", "iqm_low", "iqm_high"),
    *("min", "max", "length_mean", "cut_share"),
)


def load_model(folder: Path, checkpoint: Checkpoint | None = None) -> Exported:
    """The model of an export, which holds one, or of a run's checkpoint, see `read_run`.

    The folder may be the name of weights that come with the package.

    Raises:
        ConfigError: in one line, if there is none or it is damaged.
    """
    folder = find_model(folder)
    return read_export(folder) if is_export(folder) else read_run(folder, checkpoint)


def export_run(run_dir: Path, out: Path, checkpoint: Checkpoint | None = None) -> Exported:
    """Writes an export of a run's checkpoint to a new or empty folder; gives what is read back.

    Raises:
        ConfigError: in one line, if the run or `out` cannot be used.
        OSError: if `out` cannot be written.
    """
    check_new_folder(out)
    return read_export(write_export(out, read_run(run_dir, checkpoint)))


def read_run(run_dir: Path, checkpoint: Checkpoint | None) -> Exported:
    """The model of a run's newest checkpoint of a kind; its scores and macros, if it has some.

    With no kind named it is the best one, or the last where there is no other.

    Raises:
        ConfigError: in one line, if the folder holds no such run, or something in it is damaged.
    """
    config, store = read_config(run_dir), CheckpointStore(run_dir)
    if checkpoint is None:
        checkpoint = "best" if store.steps("best") or not store.steps("last") else "last"
    other: Checkpoint = "last" if checkpoint == "best" else "best"
    there = bool(store.steps(checkpoint)) or not store.steps(other)
    require(there, "checkpoint", checkpoint, f"{other}, the only one that the run has")
    spec = make_spec(config.env)
    networks = make_networks(config.network, spec)
    abstract = abstract_params(networks), abstract_head(networks, config, spec)
    params, head, manifest = store.restore_model(checkpoint, *abstract)
    env_steps = manifest["step"]
    summary = _read(SUMMARY, run_dir)
    about = {
        "experiment": config.experiment,
        "seed": config.seed,
        "run": run_dir.absolute().name,
        "checkpoint": checkpoint,
        "env_steps": env_steps,
        "action_names": list(spec.action_names),
        "frame_shape": list(spec.frame_shape),
        "commit": summary.get("commit"),
        "versions": summary.get("versions") or versions(),
    }
    library = _read(LIBRARY, run_dir) or None
    if library and head is not None:
        # Slots and preconditions as of the head that is read; the file's are of the newest one.
        # Trials and status stay those of the newest parameters, whose claims they were.
        entries = slot_entries(head.slots, head.tally)
        for macro in library["macros"]:
            macro |= precondition_fields(entries.get(tuple(macro["actions"])))
    scores, weights = score_table(run_dir, env_steps), named_weights(params)
    return Exported(config, weights, about, scores, library, head and named_weights(head))


def _read(document: Document, run_dir: Path) -> dict[str, Any]:
    """A document of a run, empty where there is none; raises ConfigError if it is damaged."""
    return document.read(run_dir) if (run_dir / document.file).exists() else {}


def score_table(run_dir: Path, env_steps: int | None) -> list[dict[str, Any]]:
    """Every evaluation of a run as a row: those during training, the final ones, the baselines.

    The run may be unfinished; the table is for the model that stood at `env_steps`.

    Returns:
        Rows of `policy` (agent, random, or `always NAME`), `when` (interim, final, `final,
        greedy`, `final, sticky 0.25`, baseline), `env_steps` of the parameters that played,
        `this_model` (whether they are those of the model), and the statistics of
        `summarise_games` that were kept, without the single scores.

    Raises:
        ConfigError: in one line, if a file is damaged.
    """
    metrics, summary = run_dir / "metrics.jsonl", _read(SUMMARY, run_dir)
    found: list[tuple[str, str, int | None, Any]] = []  # policy, when, steps, statistics
    for row in read_metrics(metrics) if metrics.exists() else ():
        if "iteration" in row:
            result = {name: row[f"eval/{name}"] for name in STATISTICS if f"eval/{name}" in row}
            found.append(("agent", "interim", row.get("env_steps"), result))
    columns = {"": "", ", greedy": "_greedy", ", sticky 0.25": "_sticky"}
    for when, key in ((f"final{x}", f"evaluation{y}") for x, y in columns.items()):
        found.append(("agent", when, summary.get("env_steps"), summary.get(key)))
    baselines = summary.get("baselines") or _read(BASELINES, run_dir)
    found.append(("random", "baseline", None, baselines.get("random")))
    for name, result in (baselines.get("constant") or {}).items():
        found.append((f"always {name}", "baseline", None, result))
    return [
        {
            "policy": policy,
            "when": when,
            "env_steps": steps,
            "this_model": policy == "agent" and steps is not None and steps == env_steps,
            **{name: result[name] for name in STATISTICS if name in result},
        }
        for policy, when, steps, result in found
        if result and result.get("mean") is not None
    ]


def format_scores(rows: list[dict[str, Any]]) -> str:
    """The rows of `score_table` as lines; `*` marks those of the very model."""
    lines = []
    for row in rows:
        steps = "" if row["env_steps"] is None else f" after {row['env_steps']:,} steps"
        games = f", {row['games']} games" if "games" in row else ""
        games += f", {row['distinct']:.0f} different" if row.get("distinct") else ""
        who = f"{'*' if row['this_model'] else ' '} {row['policy']}, {row['when']}{steps}"
        score = Estimate(row["mean"], row.get("mean_low"), row.get("mean_high"))
        lines.append(f"{who}: mean {score.text('{:.2f}'.format)}{games}")
    return "\n".join(lines)


def abstract_params(networks: Networks) -> Params:
    """Shapes and dtypes of a model's parameters, without computing any."""
    return jax.eval_shape(networks.init, jax.random.key(0))


def fit_params(networks: Networks, weights: dict[str, np.ndarray]) -> Params:
    """Weights as `named_weights` gives them as a model's parameters, on the device, bit for bit.

    Raises:
        ConfigError: in one line naming the first entry that is missing, unknown or of another
            shape or type.
    """
    return fit(abstract_params(networks), weights)


def abstract_head(networks: Networks, config: Config, spec: EnvSpec) -> HeadState | None:
    """Shapes and dtypes of a run's precondition head without its optimiser; None: it has none."""
    if why_no_macros(spec.action_space):
        return None
    observation = jax.ShapeDtypeStruct((1, *spec.observation_shape), spec.frame_dtype)
    embedding = jax.eval_shape(networks.representation, abstract_params(networks), observation)
    init = functools.partial(init_head, config.macro, embedding.shape[1:])
    return model_part(jax.eval_shape(init, jax.random.key(0)), config.macro)


def fit_head(networks: Networks, spec: EnvSpec, model: Exported) -> HeadState | None:
    """The precondition head of a model, for `head.applies`; None: it has none.

    Raises:
        ConfigError: as `fit_params`.
    """
    abstract = abstract_head(networks, model.config, spec)
    return None if abstract is None or model.head is None else fit(abstract, model.head)


def check_layout(model: Exported, spec: EnvSpec) -> None:
    """Raises ConfigError if the game as it is installed shows or takes other things than then."""
    names, shape = model.about["action_names"], model.about.get("frame_shape")
    installed = f"those of the installed {spec.name}"
    allowed = f"{installed}: {', '.join(spec.action_names)}"
    require(names == list(spec.action_names), "the model's actions", names, allowed)
    allowed = f"{installed}: {list(spec.frame_shape)}"
    require(shape in (None, list(spec.frame_shape)), "the model's observations", shape, allowed)


class Functions(NamedTuple):
    """A trained model as functions: what acting with it and looking into it need."""

    config: Config
    spec: EnvSpec  # of its game, as it is installed
    networks: Networks
    params: Params
    decide: Callable[..., Decision]  # by the searched policy, see `make_decide`


def make_functions(model: Exported, spec: EnvSpec) -> Functions:
    """A model's functions; `spec` is that of its game.

    Raises:
        ConfigError: in one line, if the model does not fit the game, or this version.
    """
    check_layout(model, spec)
    config, networks = model.config, make_networks(model.config.network, spec)
    decide = make_decide(networks, config, spec, policy="search")
    return Functions(config, spec, networks, fit_params(networks, model.weights), decide)
