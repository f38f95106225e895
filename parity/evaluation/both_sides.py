"""Run both sides over image files, each in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from converters.rules.ports import Port
from legacy_adapters.ground.words import counted
from legacy_adapters.job import Job
from legacy_adapters.launch import run_side

from ..comparing.pairing import LEGACY, NEW
from ..sides.settings import Machine, Sources
from ..sides.shared import foreign
from ..sides.sides import legacy_code, new_code


class Task(Protocol):
    """What both sides are told alike: the model, a seed, and (w, h) to resize images to or None."""

    port: Port
    seed: int
    scale: tuple[int, int] | None


def images_file(folder: Path) -> str:
    """Return the file in which the images stand."""
    return str(folder / "images.json")


def run_both(
    task: Task, sources: Sources, machine: Machine, images: Sequence[Mapping[str, Any]], own: Mapping[str, Mapping[str, Any]],
    folder: Path, progress: Callable[[str], None],
) -> None:  # fmt: skip
    """Run the legacy side, then the new one; ``folder``, an absolute path, gets the list of images, job files and logs.

    Args:
        task: for both.
        sources: the code of both sides.
        machine: what they run on.
        images: what a side is told of each.
        own: by side, the fields of its job that are its own.
        folder: which must exist.
        progress: is called with one line for each side.

    Raises:
        legacy_adapters.launch.RefusedError: if an adapter cannot do it.
        legacy_adapters.launch.SideError: if a side crashes or takes too long.
    """
    Path(images_file(folder)).write_text(json.dumps(list(images)))
    codes = {LEGACY: legacy_code(task.port, sources), NEW: new_code(task.port, sources)}
    family = task.port.family
    for side, code in codes.items():
        progress(f"running the {side} side over {counted(len(images), 'image')}")
        job = Job(
            family=family.name,
            variant=task.port.variant.name,
            adapter=str(code.adapter),
            title=code.title,
            options={**code.options, "scale": task.scale},
            inputs="",
            status=str(folder / f"{side}.status.json"),
            checks=(),
            seed=task.seed,
            threads=machine.threads,
            cpu_capability=machine.cpu_capability,
            device=machine.device,
            foreign=foreign(family, sources.new_side(family).adapter, sources.legacy_repo) if side == LEGACY else (),
            **own[side],
        )
        run_side(side, job, folder, code.python, machine.time_limit, code.other_python)
