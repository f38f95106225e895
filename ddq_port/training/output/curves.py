"""Draw the curves of a training from what mmengine logged: `vis_data/scalars.json` in its work dir."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from legacy_adapters.ground.files import whole_file

#: Groups of loss terms, by what their names contain; the first that fits, all others are of matching queries.
_GROUPS = (("dense queries", "aux_"), ("denoising queries", "dn_"), ("encoder", "enc_"))
_MATCHING = "matching queries"
_TERMS = ("loss_cls", "loss_bbox", "loss_iou")
_AP = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")


@dataclass
class Curve:
    """Values over training steps."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def append(self, step: int, value: float) -> None:
        """Add a point; of several at one step the last counts."""
        if self.steps and self.steps[-1] == step:
            self.values[-1] = value
        else:
            self.steps.append(step)
            self.values.append(value)


@dataclass(frozen=True)
class Curves:
    """What a training logged.

    Attributes:
        training: curves of the training by name: ``loss``, its terms, ``lr``, ``grad_norm`` ...
        validation: curves of the validations by name: ``coco/bbox_mAP`` ...
    """

    training: dict[str, Curve]
    validation: dict[str, Curve]

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the terms that add up to ``loss``."""
        return tuple(name for name in self.training if "loss" in name and name != "loss")


def read(work_dir: str | Path) -> Curves:
    """Read the curves of a work dir; a training that was resumed counts from where it went on.

    Raises:
        FileNotFoundError: if nothing was logged there.
        ValueError: if a log is not a list of JSON objects.
    """
    logs = sorted(Path(work_dir).glob("*/vis_data/scalars.json"))
    if not logs:
        raise FileNotFoundError(
            f"There is no `*/vis_data/scalars.json` in `{work_dir}`; expected a work dir of mmengine."
        )
    entries: list[dict[str, Any]] = []
    for log in logs:
        new = _entries(log)
        first = min((entry["step"] for entry in new if "loss" in entry), default=None)
        if first is not None:
            entries = _before(entries, first)
        entries += new
    return _curves(entries)


def draw(curves: Curves, file: str | Path, title: str = "") -> None:
    """Draw loss, loss terms, learning rate and AP into a PNG file, long curves smoothed.

    Raises:
        OSError: if it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    (total, groups), (terms, ap) = figure.subplots(2, 2)
    _plot(total, "loss, all terms", [("loss", curves.training.get("loss"))])
    _plot(groups, "loss by kind of query", grouped(curves))
    _plot(terms, "loss of the last decoder layer", [(name, curves.training.get(name)) for name in _TERMS])
    _plot(ap, "AP on the validation images", list(_ap(curves)), marker="o")
    ap.set_ylim(0, 1)
    _rate(total.twinx(), curves.training.get("lr"))
    with whole_file(file) as image:
        figure.savefig(image, format="png", dpi=100)


def smooth(values: list[float]) -> list[float]:
    """Return the mean of each value and those before it, of a fiftieth of them all; up to 50 stay as they are."""
    window = max(1, len(values) // 50)
    sums = [0.0, *accumulate(values)]
    return [(sums[at] - sums[max(0, at - window)]) / min(at, window) for at in range(1, len(sums))]


def _entries(log: Path) -> list[dict[str, Any]]:
    entries = []
    for number, line in enumerate(log.read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            entries.append(dict(entry, step=int(entry["step"])))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"Line {number} of `{log}` is not a logged step: {error}.") from error
    return entries


def _before(entries: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """Return the entries logged before a training step, validations included."""
    kept = []
    for entry in entries:
        if "loss" in entry and entry["step"] >= step:
            break
        kept.append(entry)
    return kept


def _curves(entries: Iterable[dict[str, Any]]) -> Curves:
    training: dict[str, Curve] = {}
    validation: dict[str, Curve] = {}
    step = 0
    for entry in entries:
        curves = training if "loss" in entry else validation
        # a validation is logged with its epoch or its step; it belongs behind the last step before it
        step = entry["step"] if "loss" in entry else step
        for name, value in entry.items():
            if isinstance(value, (int, float)) and name != "step":
                curves.setdefault(name, Curve()).append(step, value)
    return Curves(training, validation)


def grouped(curves: Curves) -> list[tuple[str, Curve]]:
    """Return the sums of the terms of each kind of query."""
    sums: dict[str, dict[int, float]] = {_MATCHING: {}, **{name: {} for name, _ in _GROUPS}}
    for term in curves.terms:
        group = next((name for name, part in _GROUPS if part in term), _MATCHING)
        for step, value in zip(curves.training[term].steps, curves.training[term].values):
            sums[group][step] = sums[group].get(step, 0.0) + value
    return [(name, Curve(list(points), list(points.values()))) for name, points in sums.items() if points]


def _ap(curves: Curves) -> Iterable[tuple[str, Curve]]:
    for name, curve in curves.validation.items():
        if name.rpartition("/")[2] in _AP and min(curve.values) >= 0:  # -1: no objects of that size
            yield name.rpartition("/")[2].removeprefix("bbox_"), curve


def _plot(axes: Any, title: str, named: Iterable[tuple[str, Curve | None]], marker: str = "") -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("training step")
    axes.grid(alpha=0.3)
    for name, curve in named:
        if curve is not None:
            drawn = smooth(curve.values)
            axes.plot(curve.steps, drawn, label=name, marker=marker, markersize=3, linewidth=1)
    if axes.lines:
        axes.set_xlim(left=0)
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "nothing logged", ha="center", transform=axes.transAxes)


def _rate(axes: Any, curve: Curve | None) -> None:
    if curve is not None:
        axes.plot(curve.steps, curve.values, color="0.6", linewidth=1, linestyle="--")
        axes.set_ylabel("learning rate (dashed)", color="0.4")
