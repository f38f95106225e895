"""Stages of a rehearsal: plain data, each a command that may be typed by hand, and the marks of those that are done."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from legacy_adapters.ground.files import write_whole

MARKS = "done"
LOGS = "logs"


@dataclass(frozen=True)
class Stage:
    """One command of a rehearsal.

    Attributes:
        name: of it; also of its mark and its log.
        title: what it does, in a few words.
        command: program and arguments. It can be killed and started again at any time: it goes on or begins anew.
        needs: names of stages that must be done before.
        writes: files that are there when it is done.
        accepts: exit codes with which it is done; others than 0 are verdicts, which the report tells.
        steps: of a training, the number of its last one; 0 of anything else.
        first: of a training that goes on from a checkpoint of another one, the step that was taken last.
        reads: files that others than stages write, whose content counts as a part of the command.
        work: folder that is removed if what another command left is in it.
        follow: file whose lines are the steps it has taken; None if it has none.
    """

    name: str
    title: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    writes: tuple[Path, ...] = ()
    accepts: tuple[int, ...] = (0,)
    steps: int = 0
    first: int = 0
    reads: tuple[Path, ...] = ()
    work: Path | None = None
    follow: Path | None = None

    @property
    def line(self) -> str:
        """The command as it is typed in a shell."""
        return shlex.join(self.command)


@dataclass(frozen=True)
class Mark:
    """What is known of a stage that is done.

    Attributes:
        key: of the stage, see :func:`keys`.
        code: exit code.
        seconds: that its last run took.
    """

    key: str
    code: int
    seconds: float


def keys(stages: Sequence[Stage]) -> dict[str, str]:
    """Return a digest for each stage of its command and those of all stages that it needs.

    A stage whose digest differs from that of its mark is done again, and so is everything behind it.

    Raises:
        ValueError: if a stage needs one that does not stand before it, or two have one name.
    """
    made: dict[str, str] = {}
    for stage in stages:
        missing = [name for name in stage.needs if name not in made]
        if missing or stage.name in made:
            raise ValueError(f"Stage {stage.name} needs {', '.join(missing)} before it, and a name of its own.")
        read = (hashlib.sha256(path.read_bytes()).hexdigest() for path in stage.reads)
        parts = [*stage.command, *read, *(made[name] for name in stage.needs)]
        made[stage.name] = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    return made


def read_marks(folder: Path, stages: Sequence[Stage]) -> dict[str, Mark]:
    """Return the marks of the stages that are done as they are now, and whose files are there."""
    marks = {}
    for stage, key in zip(stages, keys(stages).values()):
        try:
            mark = Mark(**json.loads((folder / MARKS / f"{stage.name}.json").read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if mark.key == key and all(path.exists() for path in stage.writes):
            marks[stage.name] = mark
    return marks


def write_mark(folder: Path, stage: Stage, mark: Mark) -> None:
    """Note that a stage is done; the mark is there whole or not at all."""
    place = folder / MARKS / f"{stage.name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    content = dict(key=mark.key, code=mark.code, seconds=mark.seconds)
    write_whole(place, json.dumps(content, sort_keys=True) + "\n")


def begin(folder: Path, stage: Stage, key: str) -> None:
    """Note that a stage begins; what an earlier command of this name left in its work folder is removed."""
    place = folder / MARKS / f"{stage.name}.begun"
    place.parent.mkdir(parents=True, exist_ok=True)
    if stage.work is not None and (not place.is_file() or place.read_text() != key):
        shutil.rmtree(stage.work, ignore_errors=True)
    if stage.work is not None:
        stage.work.mkdir(parents=True, exist_ok=True)
    write_whole(place, key)


def ready(stages: Sequence[Stage], done: Mapping[str, Mark], running: Sequence[str]) -> list[Stage]:
    """Return the stages that can begin now, in their order."""
    return [
        stage
        for stage in stages
        if stage.name not in done and stage.name not in running and all(name in done for name in stage.needs)
    ]
