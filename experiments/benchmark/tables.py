"""The measurements as tables for people; each takes the document of its command."""

import contextlib
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from experiments.benchmark.parts import NOTEBOOK_STEPS_PER_SECOND
from smz_jax.report.tables import Table

Document = Mapping[str, Any]
ACTING_LABELS = {
    "environment": "environment alone",
    "search": "search alone",
    "in_turn": "both in turn",
    "overlapped": "both overlapped, two pools",
}
SPEEDS = {
    "network": ("network", "{}"),
    "batch": ("B", "{}"),
    "simulations": ("S", "{}"),
    "stock_searches_per_second": ("stock mctx", "{:,.0f}"),
    "mctx_searches_per_second": ("engine mctx", "{:,.0f}"),
    "batched_searches_per_second": ("batched", "{:,.0f}"),
    "batched_over_stock": ("x stock", "{:.2f}"),
    "networks_searches_per_second": ("networks", "{:,.0f}"),
    "time_over_networks": ("time / networks", "{:.2f}"),
    "tree_mb": ("tree", "{:,.2f} MB"),
    "stock_compile_seconds": ("compile stock", "{:.1f} s"),
    "batched_compile_seconds": ("compile batched", "{:.1f} s"),
}
PARTS = (
    ("environment alone", "{environment_steps_per_second:,.1f} steps/s", "{environment}"),
    ("search alone", "{searches_per_second:,.1f} searches/s = steps/s", "{search}"),
    ("rollout, macros included", "{rollout_steps_per_second:,.1f} steps/s", "{rollout}"),
    ("training step, batch {batch}", "{updates_per_second:,.1f} updates/s", "{training_step}"),
    ("macros", "{macro_share_of_search:.1%} of search time",
     "{macro_pass} a step, {macro_merge} a merge"),
    ("macros, every window a candidate", "{macro_worst_share_of_search:.1%} of search time",
     "{macro_worst_pass} a step, {macro_worst_merge} a merge"),
    ("replay: add {length} steps of all lanes", "", "{replay_add}"),
    ("replay: sample {batch} windows", "", "{replay_sample}"),
    ("acting, notebook's setting, 32 lanes",
     "{notebook_steps_per_second:,.0f} steps/s, {notebook_ratio:.1f} x the notebook's "
     "{original:.0f}", "{notebook}"),
)  # fmt: skip


def _caption(result: Document) -> str:
    hardware, rounds = result["hardware"], result["rounds"]
    form = "{device}, {usable_cores} cores; medians of {} interleaved rounds; load before: "
    return form.format(rounds, **hardware) + f"{hardware['load_before']:.1f}"


def _bound(figure: Document) -> str:
    if figure["target"] is None:
        return ""
    return f"{'at least' if figure['at_least'] else 'at most'} {figure['target']:,g}"


def figures_table(result: Document) -> Table:
    """Each figure beside its target."""
    verdicts = {
        None: "",
        True: Text("reached", style="green"),
        False: Text("not reached", style="red"),
    }
    rows = []
    for x in result["figures"]:
        value = f"{x['value']:,.2f}" if x["value"] < 100 else f"{x['value']:,.0f}"
        rows.append([x["case"], x["what"], value, _bound(x), verdicts[x["reached"]]])
    title = "figures: ratios of times measured in turn"
    columns = ["case", "what", "measured", "target", ""]
    return Table(columns, rows, title, _caption(result), left=(0, 1, 4))


def search_table(result: Document) -> Table:
    """Searches per second of both engines and of the networks alone."""
    notes = [f"{name}: {about}" for name, about in result["networks"].items()]
    notes.append("networks: both functions for every row at each simulation, no tree")
    notes += [f"left out for time: {group}" for group in result["left_out"]]
    cells = [{**cell, "tree_mb": cell["tree_bytes"] / 1e6} for cell in result["cells"]]
    rows = [
        ["" if cell[x] is None else form.format(cell[x]) for x, (_, form) in SPEEDS.items()]
        for cell in cells
    ]
    title = "searches per second, from embeddings (no representation), collapsing off"
    return Table([name for name, _ in SPEEDS.values()], rows, title, "; ".join(notes))


def acting_table(result: Document) -> Table:
    """Steps per second of environment and search apart, in turn and overlapped."""
    rows = []
    for name, setting in result["settings"].items():
        form = "{}: {env[num_envs]} lanes, {network[family]}, S {search[num_simulations]}"
        where = form.format(name, **setting["config"])
        for part, value in setting["seconds"].items():
            speed = f"{setting['steps_per_second'][part]:,.0f} steps/s"
            rows.append([where, ACTING_LABELS[part], speed, f"{value * 1e3:,.2f} ms"])
            where = ""
        rows.append([])
    columns = ["setting", "part", "speed", "time of a step"]
    return Table(columns, rows, "acting without macros, all lanes", _caption(result), left=(0, 1))


def torsos_table(result: Document) -> Table:
    """The training step of each family, beside that of the first."""
    rows = [
        [
            name,
            str(x["frames"]),
            f"{x['seconds'] * 1e3:,.1f} ms",
            f"{x['times']:.1f}",
            f"{x['compile_seconds']:.1f} s",
        ]
        for name, x in result["families"].items()
    ]
    first = next(iter(result["families"]))
    form = "a training step of {batch_size} windows and {unroll_steps} unroll steps, preset "
    title = form.format(**result["config"]["learner"]) + result["preset"]
    columns = ["family", "frames", "time", f"x {first}", "compile"]
    return Table(columns, rows, title, _caption(result), left=(0,))


def drawn_table(result: Document) -> Table:
    """The time of a search of all lanes, by root rule and by what a node's edges are."""
    rows = [
        [root, actions, f"{seconds * 1e3:,.2f} ms"]
        for root, found in result["searches"].items()
        for actions, seconds in found.items()
    ]
    form = "a search of {num_envs} lanes, {num_simulations} simulations, preset "
    config = result["config"]
    title = form.format(**config["env"], **config["search"]) + result["preset"]
    return Table(["root", "actions", "time"], rows, title, _caption(result), left=(0, 1))


def turns_table(result: Document) -> Table:
    """Searches and steps of games of two players, in microseconds of a lane."""
    lanes = result["config"]["env"]["num_envs"]
    rows = []
    for name, x in result["boards"].items():
        one, two, host, device = (
            x[key] / lanes * 1e6 for key in ("one_player", "two_players", "host", "device")
        )
        cells = [f"{one:,.0f} us", f"{two:,.0f} us", f"{two / one:.2f}"]
        cells += [f"{host:,.1f} us", f"{device:,.1f} us", f"{host / device:.2f}"]
        rows.append([name, str(x["actions"]), *cells])
    columns = ["board", "A", "search, one player", "two", "x", "step, host", "device", "x"]
    form = "of one of {num_envs} lanes, {num_simulations} simulations"
    title = form.format(**result["config"]["env"], **result["config"]["search"])
    return Table(columns, rows, title, _caption(result), left=(0,))


def soak_table(result: Document) -> Table:
    """Memory, open files, compilations and speed in each third of a long run."""
    thirds = zip(("first", "second", "last"), result["thirds"], strict=True)
    forms = ("{memory_mib:,.0f} MiB", "{open_files}", "{compilations}", "{steps_per_second:,.0f}")
    rows: list[list[str | Text]] = [
        [name, *(form.format(**third) for form in forms)] for name, third in thirds
    ]
    forms = ("{:.2f}", "{:.2f}", "{:.0f}", "{:.2f}")
    cells = [
        Text(f"{form.format(x['value'])} ({_bound(x)})", "green" if x["reached"] else "red")
        for form, x in zip(forms, result["figures"], strict=True)
    ]
    rows.append(["last / second", *cells])
    title = (
        f"{result['seconds'] / 60:.1f} minutes at preset {result['preset']}: "
        f"{result['env_steps']:,} steps, {result['learner_steps']:,} updates"
    )
    columns = ["third", "memory", "open files", "compilations", "environment steps/s"]
    return Table(columns, rows, title, left=())


def parts_table(result: Document) -> Table:
    """Speed and time of each part."""
    config, rows = result["config"], []
    values = {**result["speed"], "length": config["rollout"]["length"]}
    values |= {name: f"{value * 1e3:,.2f} ms" for name, value in result["seconds"].items()}
    values |= {"batch": config["learner"]["batch_size"], "original": NOTEBOOK_STEPS_PER_SECOND}
    for row in PARTS:
        with contextlib.suppress(KeyError):  # a quick measurement leaves some parts out
            rows.append([cell.format(**values) for cell in row])
    for name, value in result["compile_seconds"].items():
        rows.append([f"compiling the {name.replace('_', ' ')}", "", f"{value:.1f} s"])
    form = "preset {}: {network[family]} network, {env[num_envs]} lanes, "
    form += "{search[num_simulations]} simulations"
    title = form.format(result["preset"], **config)
    return Table(["part", "speed", "time"], rows, title, _caption(result))
