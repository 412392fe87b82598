"""The measurements as tables for people; each takes the document of its command."""

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
        env, network, search = (setting["config"][x] for x in ("env", "network", "search"))
        lanes, simulations = env["num_envs"], search["num_simulations"]
        where = f"{name}: {lanes} lanes, {network['family']}, S {simulations}"
        for part, value in setting["seconds"].items():
            speed = f"{setting['steps_per_second'][part]:,.0f} steps/s"
            rows.append([where, ACTING_LABELS[part], speed, f"{value * 1e3:,.2f} ms"])
            where = ""
        rows.append([])
    columns = ["setting", "part", "speed", "time of a step"]
    return Table(columns, rows, "acting without macros, all lanes", _caption(result), left=(0, 1))


def soak_table(result: Document) -> Table:
    """Memory, open files, compilations and speed in each third of a long run."""
    thirds = zip(("first", "second", "last"), result["thirds"], strict=True)
    form = "{memory_mib:,.0f} MiB|{open_files}|{compilations}|{steps_per_second:,.0f}"
    rows: list[list[str | Text]] = [
        [name, *form.format(**third).split("|")] for name, third in thirds
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
    config, speed = result["config"], result["speed"]
    lanes, simulations = config["env"]["num_envs"], config["search"]["num_simulations"]
    length, batch = config["rollout"]["length"], config["learner"]["batch_size"]
    ms = {name: f"{value * 1e3:,.2f} ms" for name, value in result["seconds"].items()}

    def rate(name: str, unit: str) -> str:
        return f"{speed[f'{name}_per_second']:,.1f} {unit}"

    rows = [
        ["environment alone", rate("environment_steps", "steps/s"), ms["environment"]],
        ["search alone", rate("searches", "searches/s = steps/s"), ms["search"]],
        ["rollout, macros included", rate("rollout_steps", "steps/s"), ms["rollout"]],
        [f"training step, batch {batch}", rate("updates", "updates/s"), ms["training_step"]],
    ]
    labels = {"macro": "macros", "macro_worst": "macros, every window a candidate"}
    for name, label in labels.items():
        if f"{name}_pass" in ms:
            share = f"{speed[f'{name}_share_of_search']:.1%} of search time"
            times = f"{ms[f'{name}_pass']} a step, {ms[f'{name}_merge']} a merge"
            rows.append([label, share, times])
    rows.append([f"replay: add {length} steps of all lanes", "", ms["replay_add"]])
    rows.append([f"replay: sample {batch} windows", "", ms["replay_sample"]])
    if "notebook" in ms:
        ratio = f"{speed['notebook_ratio']:.1f} x the notebook's {NOTEBOOK_STEPS_PER_SECOND:.0f}"
        steps = f"{speed['notebook_steps_per_second']:,.0f} steps/s, {ratio}"
        rows.append(["acting, notebook's setting, 32 lanes", steps, ms["notebook"]])
    for name, value in result["compile_seconds"].items():
        rows.append([f"compiling the {name.replace('_', ' ')}", "", f"{value:.1f} s"])
    family = config["network"]["family"]
    title = f"preset {result['preset']}: {family} network, {lanes} lanes, {simulations} simulations"
    return Table(["part", "speed", "time"], rows, title, _caption(result))
