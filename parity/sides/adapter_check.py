"""Look at a user's adapter before anything runs: what it lacks is told at once, not after the legacy side has run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.rules import layout
from legacy_adapters.job import Job
from legacy_adapters.launch import run_side

from ..comparing.pairing import NEW
from .settings import NEW_ADAPTER, Machine, Sources, Task
from .sides import new_code


@dataclass(frozen=True)
class Needs:
    """What an adapter must be able to do.

    Attributes:
        family: of the legacy side.
        variant: of the model.
        checks: as in :class:`Task`; none for an evaluation.
        epoch_length: as there.
        scale: as in :class:`.evaluation_run.EvalTask`.
        ranks: as in :class:`Task`.
    """

    family: str
    variant: str
    checks: tuple[str, ...]
    epoch_length: int | None = None
    scale: tuple[int, int] | None = None
    ranks: int = 1

    @classmethod
    def of(cls, task: Task) -> Needs:
        """Return what a task needs."""
        return cls(task.family, task.variant, task.checks, task.epoch_length, ranks=task.ranks)


def check_adapter(needs: Needs, sources: Sources, machine: Machine, progress: Callable[[str], None]) -> None:
    """Refuse an adapter of the new side that lacks something; this package's own is known to be right.

    A process of its own imports the adapter, builds the model and compares the names and shapes of its weights with the
    new layout; nothing is computed.

    Raises:
        legacy_adapters.launch.RefusedError: with file, function and what is missing.
        legacy_adapters.launch.SideError: if the process ends without a report.
    """
    if sources.new_adapter.resolve() == NEW_ADAPTER.resolve():
        return
    progress(f"looking at the adapter ({sources.new_adapter.stem})")
    code = new_code(needs.variant, sources)
    options = code.options if needs.checks else {**code.options, "scale": needs.scale}
    with tempfile.TemporaryDirectory(prefix="ddq-parity-") as made:
        folder = Path(made)
        job = Job(
            family=needs.family,
            variant=needs.variant,
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
            layout=_layout(needs, folder),
        )
        run_side(NEW, job, folder, code.python, machine.time_limit, code.apart)


def _layout(needs: Needs, folder: Path) -> str:
    """Write the shapes of the weights that both sides are given, by name, and return the file's path."""
    tensors = layout.load(needs.variant, needs.family, NEW).tensors
    shapes = {name: list(spec.shape) for name, spec in tensors.items() if spec.dtype.startswith("float")}
    path = folder / "layout.json"
    path.write_text(json.dumps(shapes))
    return str(path)
