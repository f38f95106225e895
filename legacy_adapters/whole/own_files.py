"""Which checkpoints of a work dir a whole training of this tool wrote, whole, so that they may be loaded as pickles."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Optional

_NOTES = "own_checkpoints.jsonl"


def note(work_dir: str, path: str) -> None:
    """Note that a checkpoint is complete."""
    with open(os.path.join(work_dir, _NOTES), "a", encoding="utf-8") as file:
        file.write(json.dumps(dict(file=os.path.basename(path), sha256=_sha256(path))) + "\n")


def newest(work_dir: str) -> Optional[str]:
    """Return the checkpoint that was noted last and is as it was then; None if there is none."""
    try:
        with open(os.path.join(work_dir, _NOTES), encoding="utf-8") as file:
            notes = [json.loads(line) for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return None
    for noted in reversed(notes):
        path = os.path.join(work_dir, noted["file"])
        if os.path.isfile(path) and _sha256(path) == noted["sha256"]:
            return path
    return None


def _sha256(path: str) -> str:
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            whole.update(piece)
    return whole.hexdigest()
