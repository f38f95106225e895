"""Run image files through both sides' own pipelines, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from converters.rules.ports import Port
from legacy_adapters.numerics.seeding import seed_of

from ..comparing.pairing import LEGACY, NEW
from ..sides.settings import Machine, Sources
from ..traces.trace import Trace
from .both_sides import images_file, run_both
from .preprocessing import PreprocessingVerdict, judge

#: Objects that are made up in every image for the pipeline of training.
_OBJECTS = 3
#: Where EXIF says how an image is to be turned, and the values by which height and width change places.
_ORIENTATION, _ASIDE = 274, (5, 6, 7, 8)


@dataclass(frozen=True)
class PreprocessingTask:
    """What is compared.

    Attributes:
        port: the model.
        images: the files.
        seed: of made-up objects and random draws.
        repeats: how often each image goes through the training pipeline.
        scale: (w, h) in place of that of both test pipelines; None for their own.
    """

    port: Port
    images: tuple[Path, ...]
    seed: int
    repeats: int
    scale: tuple[int, int] | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "family": self.port.family.reference, "variant": self.port.variant.name, "images": list(map(str, self.images)),
            "seed": self.seed, "repeats": self.repeats, "scale": self.scale,
        }  # fmt: skip


def preprocess(
    task: PreprocessingTask, sources: Sources, machine: Machine, folder: Path, progress: Callable[[str], None]
) -> PreprocessingVerdict:
    """Run both sides in ``folder``, which must exist, and judge.

    Leaves there: the list of images, job files, logs and a trace of both sides.

    Raises:
        legacy_adapters.launch.RefusedError: if an adapter cannot do it.
        legacy_adapters.launch.SideError: if a side crashes or takes too long.
    """
    folder = folder.absolute()
    listed = [described(number, file, task.seed) for number, file in enumerate(task.images)]
    shared = dict(weights="", preprocess=dict(images=images_file(folder), repeats=task.repeats))
    legacy, new = (str(folder / side) for side in (LEGACY, NEW))
    own = {LEGACY: dict(shared, trace=legacy), NEW: dict(shared, trace=new, beside=legacy)}
    run_both(task, sources, machine, listed, own, folder, progress)
    progress("comparing")
    return judge(*(Trace.load(folder / side) for side in (LEGACY, NEW)), [file.name for file in task.images])


def described(number: int, file: Path, seed: int) -> dict[str, Any]:
    """Return an image as a side is told of it, with made-up objects; without any where its size cannot be read."""
    size = _size(file)
    boxes: list[list[float]] = []
    if size is not None:
        height, width = size
        generator = torch.Generator().manual_seed(seed_of(seed, f"objects of image {number}"))
        for _ in range(_OBJECTS):
            x, y, w, h = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
            left, top = x * width / 2, y * height / 2
            right, bottom = left + max(1.0, w * width / 2), top + max(1.0, h * height / 2)
            boxes.append([left, top, min(right, float(width)), min(bottom, float(height))])
    return dict(
        id=number, file=str(file.absolute()), size=list(size or (1, 1)), bboxes=boxes, labels=[n % 2 for n in range(len(boxes))]
    )


def _size(file: Path) -> tuple[int, int] | None:
    """Return height and width as the image is looked at, turned as EXIF says; None if that cannot be told."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            width, height = image.size
            return (width, height) if image.getexif().get(_ORIENTATION) in _ASIDE else (height, width)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def options_dict(task: PreprocessingTask, sources: Sources, machine: Machine) -> dict[str, Any]:
    """Return everything that defines a comparison, for a file beside the results."""
    return {"task": task.as_dict(), "sources": asdict(sources), "machine": asdict(machine)}
