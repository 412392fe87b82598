"""The measurements as tables for people."""

from typing import Any

from rich.table import Table

from experiments.benchmark.rollout import NOTEBOOK_STEPS_PER_SECOND


def _caption(result: dict[str, Any]) -> str:
    hardware = result["hardware"]
    return (
        f"{hardware['device']}, {hardware['usable_cores']} cores; medians of {result['rounds']} "
        f"interleaved rounds; load before: {hardware['load_before']:.1f}"
    )


def figures_table(result: dict[str, Any]) -> Table:
    """Each figure beside its target.

    Args:
        result: with `figures` (mappings of `plan.Figure` and `reached`), `hardware`, `rounds`.
    """
    table = Table(title="figures: ratios of times measured in turn", caption=_caption(result))
    for name in ("case", "what"):
        table.add_column(name)
    for name in ("measured", "target"):
        table.add_column(name, justify="right")
    table.add_column("")
    for figure in result["figures"]:
        bound = "at least" if figure["at_least"] else "at most"
        target = "" if figure["target"] is None else f"{bound} {figure['target']:,g}"
        verdict = {None: "", True: "[green]reached[/]", False: "[red]not reached[/]"}
        table.add_row(
            figure["case"],
            figure["what"],
            f"{figure['value']:,.2f}" if figure["value"] < 100 else f"{figure['value']:,.0f}",
            target,
            verdict[figure["reached"]],
        )
    return table


def search_table(result: dict[str, Any]) -> Table:
    """Searches per second of both engines and of the networks alone.

    Args:
        result: as `search.measure` gives it.
    """
    notes = [f"{name}: {about}" for name, about in result["networks"].items()]
    notes.append("networks: both functions for every row at each simulation, no tree")
    notes += [f"left out for time: {group}" for group in result["left_out"]]
    table = Table(
        title="searches per second, from embeddings (no representation), collapsing off",
        caption="; ".join(notes),
    )
    table.add_column("network")
    for name in ("B", "S", "stock mctx", "engine mctx", "batched", "x stock", "networks",
                 "time / networks", "tree", "compile stock", "batched"):  # fmt: skip
        table.add_column(name, justify="right")
    for row in result["cells"]:
        reference = row["mctx_searches_per_second"]
        table.add_row(
            row["network"],
            str(row["batch"]),
            str(row["simulations"]),
            f"{row['stock_searches_per_second']:,.0f}",
            "" if reference is None else f"{reference:,.0f}",
            f"{row['batched_searches_per_second']:,.0f}",
            f"{row['batched_over_stock']:.2f}",
            f"{row['networks_searches_per_second']:,.0f}",
            f"{row['time_over_networks']:.2f}",
            f"{row['tree_bytes'] / 1e6:,.2f} MB",
            f"{row['stock_compile_seconds']:.1f} s",
            f"{row['batched_compile_seconds']:.1f} s",
        )
    return table


def rollout_table(result: dict[str, Any]) -> Table:
    """Steps per second of environment and search apart, in turn and overlapped.

    Args:
        result: as `rollout.measure` gives it.
    """
    table = Table(title="acting without macros, all lanes", caption=_caption(result))
    table.add_column("setting")
    table.add_column("part")
    table.add_column("speed", justify="right")
    table.add_column("time of a step", justify="right")
    labels = {
        "environment": "environment alone",
        "search": "search alone",
        "in_turn": "both in turn",
        "overlapped": "both overlapped, two pools",
    }
    for name, setting in result["settings"].items():
        config = setting["config"]
        where = (
            f"{name}: {config['env']['num_envs']} lanes, {config['network']['family']}, "
            f"S {config['search']['num_simulations']}"
        )
        for part, value in setting["seconds"].items():
            speed = f"{setting['steps_per_second'][part]:,.0f} steps/s"
            table.add_row(where, labels[part], speed, f"{value * 1e3:,.2f} ms")
            where = ""
        table.add_section()
    return table


def soak_table(result: dict[str, Any]) -> Table:
    """Memory, open files, compilations and speed in each third of a long run.

    Args:
        result: as `soak.measure` gives it.
    """
    table = Table(
        title=f"{result['seconds'] / 60:.1f} minutes at preset {result['preset']}: "
        f"{result['env_steps']:,} steps, {result['learner_steps']:,} updates"
    )
    for name in ("third", "memory", "open files", "compilations", "environment steps/s"):
        table.add_column(name, justify="right")
    for name, third in zip(("first", "second", "last"), result["thirds"], strict=True):
        table.add_row(
            name,
            f"{third['memory_mib']:,.0f} MiB",
            str(third["open_files"]),
            str(third["compilations"]),
            f"{third['steps_per_second']:,.0f}",
        )
    cells = [
        f"[{'green' if figure['reached'] else 'red'}]{figure['value']:.2f}"
        f" ({'at least' if figure['at_least'] else 'at most'} {figure['target']:g})[/]"
        for figure in result["figures"]
    ]
    table.add_row("last / second", *cells[:2], cells[2].replace(".00", ""), cells[3])
    return table


def parts_table(result: dict[str, Any]) -> Table:
    """The measurement as a table for people.

    Args:
        result: as `parts.measure` gives it, with `preset`.
    """
    config, seconds, speed = result["config"], result["seconds"], result["speed"]
    compiling = result["compile_seconds"]
    lanes, simulations = config["env"]["num_envs"], config["search"]["num_simulations"]
    length, batch = config["rollout"]["length"], config["learner"]["batch_size"]

    def ms(name: str) -> str:
        return f"{seconds[name] * 1e3:,.2f} ms"

    table = Table(
        title=f"preset {result['preset']}: {config['network']['family']} network, {lanes} lanes, "
        f"{simulations} simulations",
        caption=_caption(result),
    )
    table.add_column("part")
    table.add_column("speed", justify="right")
    table.add_column("time", justify="right")
    rows = [
        ("environment alone", speed["environment_steps_per_second"], "steps/s", "environment"),
        ("search alone", speed["searches_per_second"], "searches/s = steps/s", "search"),
        ("rollout, macros included", speed["rollout_steps_per_second"], "steps/s", "rollout"),
        (
            f"training step, batch {batch}",
            speed["updates_per_second"],
            "updates/s",
            "training_step",
        ),
    ]
    for label, value, unit, name in rows:
        table.add_row(label, f"{value:,.1f} {unit}", ms(name))
    labels = {"macro": "macros", "macro_worst": "macros, every window a candidate"}
    for name, label in labels.items():
        if f"{name}_share_of_search" not in speed:
            continue
        share = f"{speed[f'{name}_share_of_search']:.1%} of search time"
        time_text = f"{ms(f'{name}_pass')} a step, {ms(f'{name}_merge')} a merge"
        table.add_row(label, share, time_text)
    table.add_row(f"replay: add {length} steps of all lanes", "", ms("replay_add"))
    table.add_row(f"replay: sample {batch} windows", "", ms("replay_sample"))
    if "notebook" in seconds:
        table.add_row(
            "acting, notebook's setting, 32 lanes",
            f"{speed['notebook_steps_per_second']:,.0f} steps/s, {speed['notebook_ratio']:.1f} x "
            f"the notebook's {NOTEBOOK_STEPS_PER_SECOND:.0f}",
            ms("notebook"),
        )
    table.add_row("compiling the search", "", f"{compiling['search']:.1f} s")
    table.add_row("compiling the training step", "", f"{compiling['training_step']:.1f} s")
    return table
