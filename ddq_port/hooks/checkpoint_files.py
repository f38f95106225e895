"""Checkpoint files of which a resumable one is complete at any time, whenever the process is killed.

mmengine writes a checkpoint and the file ``last_checkpoint`` in place, and with ``max_keep_ckpts`` removes the old
checkpoint before it writes the new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mmengine.fileio import LocalBackend, get_file_backend

from legacy_adapters.ground.files import publish

#: A second name (hard link) of the newest complete checkpoint, in the work dir; it costs no disk space of its own while
#: the checkpoint exists under its first name.
LAST_COMPLETE = "last_complete.pth"
_POINTER = "last_checkpoint"  # mmengine's
_PART = ".part"


def is_local(folder: str, backend_args: dict | None) -> bool:
    """Tell whether mmengine writes files of this folder to a local disk; other stores take a file as a whole."""
    return isinstance(get_file_backend(folder, backend_args=backend_args), LocalBackend)


def write_atomically(folder: str, filename: str, write: Callable[[str], None]) -> Path:
    """Let ``write(name)`` write a file of another name in ``folder``, and rename it when it is on the disk as a whole.

    Returns:
        The path of the file.
    """
    part, path = Path(folder, f".{filename}{_PART}"), Path(folder, filename)
    write(part.name)
    publish(part, path)
    return path


def remember(path: Path, work_dir: str) -> bool:
    """Give a complete checkpoint its second name; return False where the file system cannot."""
    part = Path(work_dir, f".{LAST_COMPLETE}{_PART}")
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)
    except OSError:
        return False
    os.replace(part, Path(work_dir, LAST_COMPLETE))
    return True


def repair(work_dir: str) -> str | None:
    """Let mmengine's ``last_checkpoint`` name a file that exists, if a kill has left it empty or naming a removed one.

    Returns:
        What was done, as a line to be logged; None if all was well or nothing can be done.
    """
    pointer, complete = Path(work_dir, _POINTER), Path(work_dir, LAST_COMPLETE)
    named = pointer.read_text().strip() if pointer.is_file() else ""
    if os.path.isfile(named) or not complete.is_file():
        return None
    write_atomically(work_dir, _POINTER, lambda name: _write_text(Path(work_dir, name), str(complete)))
    return f"{pointer} named {named or 'no file'}, which is missing: the training was killed there; using {complete}."


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)
