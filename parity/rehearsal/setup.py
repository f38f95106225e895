"""What a rehearsal is of, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.rules.ports import Port
from legacy_adapters.family import Rehearsal

Data = tuple[Path, Path]
#: The generated configs of the new side.
TWIN, OWN, FREE, MIDDLE = "new-twin", "new-own", "new-free", "new-middle"


@dataclass(frozen=True)
class Setup:
    """What is rehearsed.

    Attributes:
        folder: of everything; absolute.
        port: the model.
        rehearsal: of its family.
        repo: checkout of the legacy code, None if it is installed.
        python: interpreter of the legacy side, None for the current one.
        data: annotation file and image folder to train on.
        val_data: to validate and test on.
        draws: the data are drawn by the first stage.
        seeds: number of legacy trainings, with seeds from 0 on.
        steps: of a training.
        jobs: stages side by side.
        threads: of each.
        device: of the legacy side.
        new_settings: `key=value` texts that change the new side's config alone.
        expected_ap: that every training must reach; None for none.
    """

    folder: Path
    port: Port
    rehearsal: Rehearsal
    repo: Path | None
    python: str | None
    data: Data
    val_data: Data
    draws: bool
    seeds: int
    steps: int
    jobs: int
    threads: int
    device: str
    new_settings: tuple[str, ...]
    expected_ap: float | None

    @property
    def middle(self) -> int:
        """The step at which trainings are stopped and carried over: the middle of the checkpoints."""
        return self.steps // 2

    def config(self, name: str) -> Path:
        """Return the file of a config of the new side."""
        return self.folder / "configs" / f"{name}.py"
