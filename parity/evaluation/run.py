"""Detect objects in a data set with both sides, each in a process of its own and with its own test pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from converters.carrying.classes import class_names
from converters.reading import checkpoint
from converters.rules.class_rows import class_counts
from converters.rules.ports import Port
from legacy_adapters.ground.words import counted

from ..sides.settings import Machine, Sources
from ..sides.sides import both_layouts, num_classes
from .both_sides import images_file, run_both
from .coco import BadSetError, ImageSet
from .evaluation import Bounds, EvalVerdict, files_of, judge


@dataclass(frozen=True)
class EvalTask:
    """What is detected.

    Attributes:
        port: the model, with its layouts.
        seed: of weights, where there is no checkpoint.
        scale: (w, h) that images are resized to fit in, in place of both configs' own; None for these.
    """

    port: Port
    seed: int
    scale: tuple[int, int] | None


def categories_of(task: EvalTask, sources: Sources, images: ImageSet) -> tuple[int, ...]:
    """Return the category that each label of the model stands for; nothing is built or written.

    Raises:
        BadSetError: if the classes of the model are not those of the data set or of the checkpoint.
        converters.errors: if the checkpoint cannot be read.
    """
    number, names = num_classes(task.port), None
    if sources.checkpoint:
        held = checkpoint.read(sources.checkpoint)
        names = class_names(held.meta)
        for count, keys in class_counts(held.state_dict, task.port.family.class_keys).items():
            if count != number:
                raise BadSetError(
                    f"{sources.checkpoint} has {counted(count, 'class', 'classes')} (rows of `{keys[0]}`) and variant {task.port.variant.name} has "
                    f"{number}; pass the --variant that it was trained as, or another --weights."
                )
    return images.category_ids(names, number)


def evaluate(
    task: EvalTask,
    sources: Sources,
    machine: Machine,
    bounds: Bounds,
    images: ImageSet,
    categories: Sequence[int],
    folder: Path,
    progress: Callable[[str], None],
) -> EvalVerdict:
    """Run both sides in ``folder``, which must exist, and judge; ``categories`` are those of :func:`categories_of`.

    Leaves there: weights, job files, logs and detections (``SIDE.detections.jsonl``) of both sides.

    Raises:
        converters.errors: if the checkpoint cannot be read or does not fit.
        legacy_adapters.launch.SideError: if a side crashes or takes too long.
    """
    folder = folder.absolute()
    for side, tensors in both_layouts(task.port, task.seed, sources.checkpoint).items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, _weights(folder, side))
    listed = [{"id": image.id, "file": str(image.file.absolute())} for image in images.images]
    own = {
        side: dict(weights=_weights(folder, side), trace="", images=images_file(folder), detections=str(file))
        for side, file in files_of(folder).items()
    }
    run_both(task, sources, machine, listed, own, folder, progress)
    progress("comparing")
    return judge(files_of(folder), images, categories, bounds)


def _weights(folder: Path, side: str) -> str:
    return str(folder / f"{side}.safetensors")


def options_dict(
    task: EvalTask, sources: Sources, machine: Machine, bounds: Bounds, images: ImageSet
) -> dict[str, Any]:
    """Return everything that defines an evaluation, for a file beside the results."""
    return {
        "task": {
            "family": task.port.family.reference,
            "variant": task.port.variant.name,
            "seed": task.seed,
            "scale": task.scale,
        },
        "sources": asdict(sources),
        "machine": asdict(machine),
        "bounds": asdict(bounds),
        "annotations": str(images.ann_file),
        "images": [image.id for image in images.images],
    }
