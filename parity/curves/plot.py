"""Draw the curves of two trainings, with what repeated runs allow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .curves import AP, LEVEL, STRETCH, CurvesVerdict
from .report import closing_line
from .runlog import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4
_ALLOWED = "where B may lie: its mean over a stretch, its AP"
_A, _B, _BAND = "#1f4e79", "#d1495b", "#9bb8d3"


def draw(verdict: CurvesVerdict, file: Path) -> None:
    """Write a PNG with one panel per AP and loss term.

    Shaded is where B's mean over each stretch, and its AP, may lie; a red dot marks what lies outside.

    Args:
        verdict: to be drawn.
        file: to be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    aps = list(dict.fromkeys(q.name for q in verdict.quantities if q.kind == AP))
    terms = list(dict.fromkeys(q.name for q in verdict.quantities if q.kind == LEVEL))
    terms.sort(key=lambda name: name != "loss")  # the total first
    panels = [(AP, name) for name in aps] + [(LEVEL, name) for name in terms]
    columns = min(_COLUMNS, max(1, math.ceil(math.sqrt(len(panels)))))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 2.6 * rows + 1.1), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (kind, name) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number)
        if kind == AP:
            _draw_ap(verdict, name, axes)
        else:
            _draw_term(verdict, name, axes)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
        if number > len(panels) - columns:
            axes.set_xlabel(verdict.a.unit, fontsize=8)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=len(unique), fontsize=8)
    figure.suptitle(_wrapped(closing_line(verdict), 34 * columns), fontsize=10)
    figure.savefig(file)


def _draw_term(verdict: CurvesVerdict, name: str, axes: Axes) -> None:
    stretches = [q for q in verdict.quantities if q.kind == STRETCH and q.name == name]
    shown = False
    for quantity in stretches:
        interval = quantity.interval
        if interval is not None and math.isfinite(interval.half):
            axes.fill_between(
                [quantity.start, quantity.end],
                interval.mean - interval.half,
                interval.mean + interval.half,
                color=_BAND,
                alpha=0.45,
                linewidth=0,
                label=None if shown else _ALLOWED,
            )
            shown = True
    _draw_runs(verdict, lambda log: log.terms[name], axes)
    for quantity in stretches:
        color = "red" if quantity.accepted is False else _B
        axes.plot([quantity.start, quantity.end], [quantity.b] * 2, color=color, linewidth=1, linestyle=":")
        if quantity.accepted is False:
            axes.plot((quantity.start + quantity.end) / 2, quantity.b, "o", color="red", markersize=4)
    _focus(axes, [log.terms[name] for log in (verdict.a, verdict.b, *verdict.band)])


def _draw_ap(verdict: CurvesVerdict, name: str, axes: Axes) -> None:
    quantities = [q for q in verdict.quantities if q.kind == AP and q.name == name]
    known = [q for q in quantities if q.interval is not None and math.isfinite(q.interval.half)]
    if known:
        at = [q.end for q in known]
        low = [max(0.0, q.interval.mean - q.interval.half) for q in known]
        high = [min(1.0, q.interval.mean + q.interval.half) for q in known]
        axes.fill_between(at, low, high, color=_BAND, alpha=0.45, linewidth=0, label=_ALLOWED)
    _draw_runs(verdict, lambda log: log.aps[name], axes, marker=".")
    for quantity in quantities:
        if quantity.accepted is False:
            axes.plot(quantity.end, quantity.b, "o", color="red", markersize=5)


def _draw_runs(verdict: CurvesVerdict, curve_of, axes: Axes, marker: str | None = None) -> None:
    for number, log in enumerate(verdict.band):
        curve = curve_of(log)
        label = "repeated runs" if number == 0 else None
        axes.plot(curve.at, curve.values, color="0.6", linewidth=0.6, marker=marker, markersize=3, label=label)
    for label, log, color in (("A", verdict.a, _A), ("B", verdict.b, _B)):
        curve = curve_of(log)
        axes.plot(curve.at, curve.values, color=color, linewidth=1.1, marker=marker, markersize=4, label=label)


def _focus(axes: Axes, curves: list[Curve]) -> None:
    """Keep the first values of a training, often far above the rest, from flattening the rest."""
    values = np.concatenate([curve.values[np.isfinite(curve.values)] for curve in curves])
    if not len(values):
        return
    low, high = float(values.min()), float(np.quantile(values, 0.98))
    room = 0.15 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - room, high + room)


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:3])
