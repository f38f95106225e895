"""Read the logs of a training: what mmengine writes, and what mmdet 2.x (mmcv 1.x) writes.

| | as JSON, one object per line | as text |
|---|---|---|
| mmengine | ``WORK_DIR/TIME/vis_data/{scalars,TIME}.json`` | ``WORK_DIR/TIME/TIME.log`` |
| mmdet 2.x | ``WORK_DIR/TIME.log.json`` | ``WORK_DIR/TIME.log`` |

mmengine's JSON gives iterations from the start of the training, mmdet 2.x's from the start of the epoch; how many an
epoch has stands in the text only, which is therefore looked for beside. JSON is preferred, for it has more digits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from .runlog import BadLogError, Entry, RunLog, assembled

_MOST_BYTES = 1 << 30
#: Where logs lie in a work dir, the best first.
_PATTERNS = ("*/vis_data/scalars.json", "vis_data/scalars.json", "scalars.json", "*.log.json", "*.log", "*/*.log")
_HEADER = re.compile(r"\b(Epoch|Iter)(?:\((\w+)\))?\s+(?:\[\s*(\d+)\])?\[\s*(\d+)(?:/\s*(\d+))?\]\s+(.*)")
_ITEM = re.compile(r"([\w./-]+):\s+(-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|nan|inf))(?=[,\s]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Session:
    """What one start of a training logged.

    Attributes:
        file: that was read.
        entries: in the order in which they were written.
        epoch_length: iterations of an epoch; None if the file does not tell.
    """

    file: Path
    entries: tuple[Entry, ...]
    epoch_length: int | None


def load(path: Path) -> RunLog:
    """Read the log of one training.

    Args:
        path: a log, or the work dir of a training. In a work dir the logs of all its starts are put together: what a
            resumed training did again replaces what it did before.

    Raises:
        BadLogError: if there is no log, or it holds no loss, or cannot be understood.
        OSError: if a file cannot be read.
    """
    sessions = [session for session in map(_read, _files(path)) if any(entry.training for entry in session.entries)]
    if not sessions:
        raise BadLogError(f"{path} holds no loss of a training; give a log or a work dir of mmengine or mmdet 2.x.")
    known = {session.epoch_length for session in sessions} - {None}
    if len(known) > 1:
        lengths = " and ".join(map(str, sorted(known)))
        raise BadLogError(f"The logs in {path} have epochs of {lengths} iterations; give the log of one training.")
    files = tuple(session.file for session in sessions)
    return assembled(str(path), files, [session.entries for session in sessions], next(iter(known), None))


def _files(path: Path) -> list[Path]:
    """Return the logs to read, one per start of the training, in the order of their names, which tell the time."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadLogError(f"{path} does not exist; give a log or a work dir.")
    for pattern in (
        "*/vis_data/scalars.json",
        "vis_data/scalars.json",
        "scalars.json",
        "*.log.json",
        "*.log",
        "*/*.log",
    ):
        files = sorted(file for file in path.glob(pattern) if file.is_file())
        if files:
            return files
    raise BadLogError(f"{path} holds no log; expected TIME/vis_data/scalars.json, TIME.log.json or a .log file in it.")


def _read(file: Path) -> Session:
    if file.stat().st_size > _MOST_BYTES:
        raise BadLogError(f"{file} has more than {_MOST_BYTES >> 20} MiB, which no log of a training has.")
    text = file.read_text(encoding="utf-8", errors="replace")
    start = text.lstrip()[:1]
    if start == "{":
        entries = tuple(_json_entries(file, text))
        length = _length_of_text(file) or _length_of(entries)
    else:
        entries, length = tuple(_text_entries(text)), _stated_length(text)
    return Session(file, entries, length)


def _json_entries(file: Path, text: str) -> Iterator[Entry]:
    lines = text.splitlines()
    iterations = 0  # iterations at the last entry of training
    within = _counts_within_epochs(lines)
    for number, line in enumerate(lines, 1):
        values = _object(file, number, line, last=number == len(lines))
        numbers = {key: float(value) for key, value in values.items() if _is_number(value)}
        # mmengine 0.6 tells an iteration as `step` only; a learning rate is told of training alone
        counter = "step" if "lr" in numbers and "iter" not in numbers else "iter"
        training = values.get("mode", "train" if counter in values else "val") == "train"
        if training and counter in numbers:
            iterations = int(numbers[counter])
            # mmdet 2.x's iteration-based runner counts iterations through; its epochs begin anywhere between entries
            epoch = None if "mode" in values and not within else numbers.get("epoch")
            yield Entry(True, _whole(epoch), iterations, within, numbers)
        elif values.get("mode") == "val" or ("mode" not in values and "step" in values):
            # mmengine tells a validation's epoch as `step`; without epochs that is 0 and the order tells when it was
            epoch = numbers.get("epoch", numbers.get("step"))
            yield Entry(False, _whole(epoch) or None, iterations, within, numbers)


def _object(file: Path, number: int, line: str, last: bool) -> dict[str, Any]:
    if not line.strip():
        return {}
    try:
        values = json.loads(line)
    except ValueError:
        if last:  # a training that was killed, or still runs, leaves half a line
            return {}
        what = f"Line {number} of {file} is not JSON, so this is not a log of mmengine or mmdet 2.x."
        raise BadLogError(what) from None
    if not isinstance(values, dict):
        raise BadLogError(f"Line {number} of {file} is not a JSON object; expected names and numbers.")
    return values


def _counts_within_epochs(lines: list[str]) -> bool:
    """Tell whether mmdet 2.x counted iterations anew in every epoch; its iteration-based runner does not."""
    counted = [values for values in map(_mode_train, lines) if values]
    if not counted:
        return False
    return all(two["iter"] <= one["iter"] for one, two in pairwise(counted) if two["epoch"] > one["epoch"])


def _mode_train(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    asked = isinstance(values, dict) and values.get("mode") == "train"
    return values if asked and _is_number(values.get("iter")) and _is_number(values.get("epoch")) else None


def _text_entries(text: str) -> Iterator[Entry]:
    iterations = 0
    for line in text.splitlines():
        header = _HEADER.search(line)
        if header is None or header[2] not in (None, "train", "val"):
            continue
        numbers = {key: float(value) for key, value in _ITEM.findall(header[6])}
        epoch = int(header[3]) if header[3] else None
        training = header[2] != "val"
        if training:
            iterations = int(header[4])
        yield Entry(training, epoch, iterations, epoch is not None, numbers)


def _stated_length(text: str) -> int | None:
    """Return the iterations of an epoch as the lines of training state them, e.g. ``[2][50/7330]``."""
    for line in text.splitlines():
        header = _HEADER.search(line)
        if header is not None and header[2] in (None, "train") and header[3] and header[5]:
            return int(header[5])
    return None


def _length_of_text(file: Path) -> int | None:
    """Return the iterations of an epoch from the text log that was written together with a JSON log."""
    places: tuple[Callable[[], list[Path]], ...] = (
        lambda: [file.with_name(file.name.removesuffix(".json"))],  # TIME.log.json, TIME.log
        lambda: sorted(file.parent.parent.glob("*.log")) if file.parent.name == "vis_data" else [],
    )
    for place in places:
        for beside in place():
            if beside.suffix == ".log" and beside.is_file():
                length = _stated_length(beside.read_text(encoding="utf-8", errors="replace"))
                if length is not None:
                    return length
    return None


def _length_of(entries: tuple[Entry, ...]) -> int | None:
    """Return the iterations of an epoch from where the first entries of two epochs lie; None if they do not agree."""
    firsts: dict[int, int] = {}
    training = [entry for entry in entries if entry.training and entry.epoch is not None and not entry.within]
    for entry in training:
        firsts.setdefault(entry.epoch, entry.iteration)
    known = [two - one for (a, one), (b, two) in pairwise(firsts.items()) if b == a + 1]
    if not known:
        return None
    length = known[-1]
    return length if all((e.epoch - 1) * length < e.iteration <= e.epoch * length for e in training) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: float | None) -> int | None:
    return None if value is None or value != value else int(value)


def renamed(log: RunLog, names: dict[str, str]) -> RunLog:
    """Give loss terms other names.

    Args:
        log: whose terms are renamed.
        names: name in the log -> other name.

    Raises:
        BadLogError: if the log has no such term, or has the other name already.
    """
    for old, new in names.items():
        if old not in log.terms:
            raise BadLogError(f"{log.name} has no loss term `{old}` to rename; it has {', '.join(sorted(log.terms))}.")
        if new in log.terms and new not in names:
            raise BadLogError(f"{log.name} has a loss term `{new}` already; `{old}` cannot get its name.")
    terms = {names.get(name, name): curve for name, curve in log.terms.items()}
    return replace(log, terms=terms)
