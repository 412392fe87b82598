"""The preconditions as a figure and in words: how often the head is right that one applies."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from smz_jax.report.data import RunData
from smz_jax.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    add_legend,
    draw_curve,
    draw_group,
    from_zero,
    make_groups,
    mean_curve,
    new_figure,
    note_empty,
    steps_axis,
)

PREFIX = "check/precondition/"
PANELS = (
    (
        "precision: said to apply, and did",
        (
            ("precision", "head", GREEN, "-"),
            ("bucket_precision", "start-state bucket", ORANGE, "--"),
            ("always_precision", "always", GREY, ":"),
        ),
    ),
    (
        "recall: applied, and was said to",
        (("recall", "head", GREEN, "-"), ("bucket_recall", "start-state bucket", ORANGE, "--")),
    ),
    (
        "expected calibration error",
        (("ece", "head", GREEN, "-"), ("ece_raw", "head, without temperature", BLUE, ":")),
    ),
)
"""Title of each panel; metric, label, colour and dash of its lines, the head's own first."""


def preconditions_figure(runs: Sequence[RunData]) -> Figure:
    """Precision, recall and calibration of the precondition head on held-out windows.

    Of several runs those of each setting have one colour; their baselines are means, dashed and
    dotted, in the colours of a single run where there is one setting only.
    """
    figure, panels = new_figure("Preconditions of macros, on held-out windows", 1, 3)
    groups = make_groups(runs)
    for axes, (title, lines) in zip(panels, PANELS, strict=True):
        drawn = False
        for group in groups:
            for number, (key, label, colour, dash) in enumerate(lines):
                if len(runs) == 1:
                    drawn |= draw_curve(axes, runs[0].curve(PREFIX + key), colour, label, dash)
                elif not number:
                    drawn |= draw_group(axes, group, PREFIX + key, label=True)
                else:
                    curves = [run.curve(PREFIX + key) for run in group.runs]
                    mean = mean_curve(curves)
                    colour = colour if len(groups) == 1 else group.colour
                    name = label if group is groups[0] else None
                    for curve in [mean] if mean[0] else curves:
                        drawn |= draw_curve(axes, curve, colour, name, ("--", ":")[number - 1])
        axes.set_title(title, fontsize=11)
        axes.tick_params(labelsize=9)
        steps_axis(axes)
        axes.locator_params(axis="x", nbins=4)
        if not drawn:
            note_empty(axes, "not known yet")
        elif title.startswith("expected"):
            from_zero(axes)
        else:
            axes.set_ylim(0, 1.02)
    if panels[1].lines:
        panels[1].axhline(1.0, color=GREY, linestyle=":", linewidth=1.3)  # of always
    add_legend(figure, 4)
    return figure


def precondition_lines(run: RunData) -> list[str]:
    """Precision and recall at the last check in words, beside the baselines; none: not known."""
    found = {
        name: run.last(PREFIX + name)
        for name in (*(key for _, lines in PANELS for key, *_ in lines), "windows")
    }

    def share(name: str) -> str:
        return "-" if found[name] is None else f"{found[name]:.1%}"

    windows = found["windows"]
    if not windows:
        return []
    text = (
        f"Preconditions, on {windows:,.0f} held-out windows (older ones count for less): of those "
        f"that the head said a macro to apply in, it did in {share('precision')} (precision; "
        f"start-state bucket {share('bucket_precision')}, always {share('always_precision')}); of "
        f"those that one applied in, the head said so in {share('recall')} (recall; start-state "
        f"bucket {share('bucket_recall')}, always 100%)."
    )
    if found["ece"] is None:
        return [text]
    raw = "" if found["ece_raw"] is None else f" ({found['ece_raw']:.3f} without temperature)"
    return [f"{text} Its probabilities are {found['ece']:.3f} off on average{raw}."]
