"""Look at adapters before anything runs: what one lacks is told at once, not after the other side has run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.rules.ports import Port
from legacy_adapters.ground.names import LEGACY, NEW
from legacy_adapters.job import Job
from legacy_adapters.launch import run_side
from legacy_adapters.provenance.executed import is_of_toolkit

from .settings import Machine, Sources, Task
from .sides import Code, legacy_code, new_code


@dataclass(frozen=True)
class Needs:
    """What adapters must be able to do.

    Attributes:
        port: the model, with its layouts.
        checks: as in :class:`Task`; none for an evaluation.
        epoch_length: as there.
        scale: as in :class:`.evaluation_run.EvalTask`.
        ranks: as in :class:`Task`.
    """

    port: Port
    checks: tuple[str, ...]
    epoch_length: int | None = None
    scale: tuple[int, int] | None = None
    ranks: int = 1

    @classmethod
    def of(cls, task: Task, port: Port) -> Needs:
        """Return what a task needs, of a model with layouts."""
        return cls(port, task.checks, task.epoch_length, ranks=task.ranks)


def check_adapters(needs: Needs, sources: Sources, machine: Machine, progress: Callable[[str], None],
                   sides: tuple[str, ...] = (LEGACY, NEW)) -> None:  # fmt: skip
    """Refuse adapters that lack something; those of this toolkit are known to be right.

    A process of its own imports the adapter, builds the model and compares the names and shapes of its weights with the
    layout of that side; nothing is computed.

    Raises:
        legacy_adapters.launch.RefusedError: with file, function and what is missing.
        legacy_adapters.launch.SideError: if the process ends without a report.
    """
    codes = {LEGACY: legacy_code(needs.port, sources), NEW: new_code(needs.port, sources)}
    for side in sides:
        code = codes[side]
        if not is_of_toolkit(str(code.adapter)):
            progress(f"checking the adapter ({code.adapter.stem})")
            _check(side, code, needs, machine)


def _check(side: str, code: Code, needs: Needs, machine: Machine) -> None:
    options = code.options if needs.checks else {**code.options, "scale": needs.scale}
    with tempfile.TemporaryDirectory(prefix="ddq-parity-") as made:
        folder = Path(made)
        job = Job(
            family=needs.port.family.name,
            variant=needs.port.variant.name,
            adapter=str(code.adapter),
            options=options,
            weights="",
            inputs="",
            trace="",
            status=str(folder / "status.json"),
            checks=needs.checks,
            seed=0,
            threads=machine.threads,
            cpu_capability=machine.cpu_capability,
            device=machine.device,
            epoch_length=needs.epoch_length,
            ranks=needs.ranks,
            layout=_layout(side, needs.port, folder),
        )
        run_side(side, job, folder, code.python, machine.time_limit, code.other_python)


def _layout(side: str, port: Port, folder: Path) -> str:
    """Write the shapes of the weights that a side is given, by name, and return the file's path."""
    tensors = port.layout(side).tensors
    shapes = {name: list(spec.shape) for name, spec in tensors.items() if spec.dtype.startswith("float")}
    path = folder / "layout.json"
    path.write_text(json.dumps(shapes))
    return str(path)
