"""Figure of the preconditions: how often the head is right where a macro applies."""

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
            ("always_precision", "always", GREY, "--"),
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
    """Precision, recall and calibration of the precondition head on held-out windows."""
    figure, panels = new_figure("Preconditions of macros, on held-out windows", 1, 3)
    groups = make_groups(runs)
    for axes, (title, lines) in zip(panels, PANELS, strict=True):
        drawn = False
        if len(runs) == 1:
            for key, label, colour, dash in lines:
                drawn |= draw_curve(axes, runs[0].curve(PREFIX + key), colour, label, dash)
        else:
            for group in groups:
                drawn |= draw_group(axes, group, PREFIX + lines[0][0], label=True)
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
    if len(runs) == 1 and panels[1].lines:
        panels[1].axhline(1.0, color=GREY, linestyle="--", linewidth=1.3)  # of always
    add_legend(figure, 4)
    return figure
