"""Run an exported file and compare what it finds with the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .detector import ExportError
from .writing import INPUT, ONNX

#: Detections are the same if labels are and they differ by no more: in score, and in pixels.
SCORE, PIXELS = 1e-3, 0.5


@dataclass(frozen=True)
class Found:
    """Detections of an image, best first.

    Attributes:
        boxes: [n, 4] xyxy in pixels of the image.
        scores: [n] in [0, 1].
        labels: [n].
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    @classmethod
    def of(cls, boxes: Tensor, scores: Tensor, labels: Tensor) -> Found:
        """Leave out places without a detection."""
        there = scores >= 0
        return cls(boxes[there], scores[there], labels[there])


class Exported:
    """An exported file, ready to run on the CPU.

    Args:
        file: ``.onnx`` or ``.pt2``.
        threads: of ONNX Runtime; None for its own choice.

    Raises:
        ExportError: if it is not there or is no file of this package.
    """

    def __init__(self, file: Path, threads: int | None = None) -> None:
        if not file.is_file():
            raise ExportError(f"{file} is not there; `ddq-export` writes such files.")
        self.run, properties = _onnx(file, threads) if file.suffix == ONNX else _program(file)
        if "size" not in properties:
            raise ExportError(f"{file} was not written by `ddq-export`; it does not say what it takes.")
        size = properties["size"]
        self.size = None if size == "any" else tuple(map(int, size.split("x")))
        self.classes = tuple(json.loads(properties["classes"]))

    def __call__(self, image: Tensor) -> Found:
        """Detect objects in an image, [1, 3, h, w] as :class:`~.detector.OneImage` takes it.

        Raises:
            ExportError: if the file is for images of another size.
        """
        size = tuple(image.shape[2:])
        if self.size not in (None, size):
            raise ExportError("The file is for images of {}x{} pixels (h x w); found {}x{}.".format(*self.size, *size))
        return Found.of(*self.run(image))


def _onnx(file: Path, threads: int | None) -> tuple[Callable, dict[str, str]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of ONNX Runtime, which has no common base of its errors
        raise ExportError(f"ONNX Runtime cannot load {file}: {' '.join(str(error).split())[:200]}") from error

    def run(image: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {INPUT: np.ascontiguousarray(image.numpy())})))

    return run, dict(session.get_modelmeta().custom_metadata_map)


def _program(file: Path) -> tuple[Callable, dict[str, str]]:
    properties = dict.fromkeys(("size", "classes"), "")
    try:
        program = torch.export.load(file, extra_files=properties).module()
    except Exception as error:  # of torch's reader, whatever the bytes lead it to
        raise ExportError(f"torch.export cannot load {file}: {' '.join(str(error).split())[:200]}") from error

    @torch.no_grad()
    def run(image: Tensor) -> tuple[Tensor, ...]:
        return program(image)

    return run, {name: text for name, text in properties.items() if text}


@dataclass(frozen=True)
class Agreement:
    """How the detections of two sides pair, one to one.

    Attributes:
        counts: of both sides.
        paired: with equal labels, within :data:`SCORE` and :data:`PIXELS`.
        at_cut: others whose score is that of the last detection, within :data:`SCORE`: a tie about the last places.
        score: largest difference of a pair.
        pixels: largest difference of a coordinate of a pair.
    """

    counts: tuple[int, int]
    paired: int
    at_cut: int
    score: float
    pixels: float

    @property
    def is_same(self) -> bool:
        """Whether every detection is paired, or may be cut on one side only."""
        return self.counts[0] == self.counts[1] and self.paired + self.at_cut == self.counts[0]


def agreement(one: Found, two: Found) -> Agreement:
    """Pair detections with the least differences."""
    counts = len(one.scores), len(two.scores)
    if not all(counts):
        return Agreement(counts, 0, 0, 0.0, 0.0)
    score = (one.scores.double()[:, None] - two.scores.double()).abs()  # [n, m], like the next two
    pixels = (one.boxes.double()[:, None] - two.boxes.double()).abs().amax(-1)
    same = (one.labels[:, None] == two.labels) & (score <= SCORE) & (pixels <= PIXELS)
    cost = torch.where(same, score / SCORE + pixels / PIXELS, 1e6)
    rows, columns = map(torch.from_numpy, linear_sum_assignment(cost.numpy()))
    good = same[rows, columns]
    rows, columns = rows[good], columns[good]
    last = min(one.scores.min(), two.scores.min()) + SCORE
    lone = torch.ones(counts[0], dtype=torch.bool)
    lone[rows] = False
    at_cut = int((one.scores[lone] <= last).sum())
    differences = [float(x[rows, columns].max()) if len(rows) else 0.0 for x in (score, pixels)]
    return Agreement(counts, len(rows), at_cut, *differences)
