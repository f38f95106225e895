"""Keep what jobs have written for as long as a run of the tests lasts: one recording serves all that ask for the same.

A side's trace is a function of its job, of the files that the job names and of the environment. Many tests vary the
new side only, or ask one trace several questions; all of them would record the same legacy side again. Recordings are
kept by the contents of all these, in one folder for all processes that run tests, and removed with the last test;
those that nobody has asked for longest are removed before, when the folder grows beyond ``ROOM``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: Environment variable that names the folder of the recordings of a run of the tests, which all its processes share.
VARIABLE = "DDQ_TEST_RECORDINGS"
#: Bytes of tensors that the folder may hold. A whole run of the tests writes some ten times as much.
ROOM = 4 * 2**30
_ROOT = Path(__file__).resolve().parents[2]
#: Adapters whose jobs are all different: each plants another fault.
_FAULTS = _ROOT / "tests" / "faults"
#: Fields of a job that name files it reads; several of them a list of files.
_READ = ("weights", "inputs", "replay", "force", "checkpoint_from", "adapter")
#: Fields that name what it writes; a job that writes anything else is always done.
_WRITTEN = ("trace", "status", "checkpoint_to")
#: Fields of jobs that are always done: they leave no trace, or more than one.
_OTHERS = ("images", "detections", "target", "meeting", "describe", "layout", "rank")
#: Variables that say which test is running, not what it computes.
_OF_PYTEST = ("PYTEST_", VARIABLE)
#: Variable that names the fault that an adapter of the fault suite plants.
FAULT = "DDQ_FAULT"


def begin() -> str:
    """Make the folder of the recordings and name it in the environment; return it."""
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="ddq-recordings-")
    return os.environ[VARIABLE]


def end() -> None:
    """Remove the folder."""
    shutil.rmtree(os.environ.pop(VARIABLE), ignore_errors=True)


def recalled(job_file: str, log: Path, environment: dict[str, str], work: Callable[[], int]) -> int:
    """Write what an equal job has written before, or do the job with ``work``; return the exit code.

    Processes that ask at the same time wait for the one that records. Failures are not kept.
    """
    job = json.loads(Path(job_file).read_text())
    folder = os.environ.get(VARIABLE, "")
    if not os.path.isdir(folder) or not _shareable(job):  # no run of tests, or what cleans /tmp has removed it
        return work()
    try:
        place = Path(folder, _key(job, environment))
    except OSError:  # a file is not there, which the side will say
        return work()
    with _locked(f"{place}.lock"):
        if not place.is_dir():
            code = work()
            if code == 0 and json.loads(Path(job["status"]).read_text())["ok"]:
                _store(job, log, place)
                _make_room(place.parent)
            return code
    if _shards(place) != json.loads((place / "shards.json").read_text()):
        raise RuntimeError(f"A test changed the tensors of a recorded trace in place; it must change a copy ({place}).")
    if _holds_foreign(job, place):
        return work()
    _restore(job, log, place)
    return 0


def _shareable(job: dict[str, Any]) -> bool:
    """Tell whether a job leaves one trace and its adapter is one of ours, which nobody changes meanwhile."""
    adapter = Path(job["adapter"]).resolve()
    own = adapter.is_relative_to(_ROOT) and not adapter.is_relative_to(_FAULTS)
    return own and job["device"] == "cpu" and not any(job[name] is not None for name in _OTHERS)


def _key(job: dict[str, Any], environment: dict[str, str]) -> str:
    """Return a digest of all that what a job writes depends on, save the other side's code: see `_holds_foreign`."""
    content = {name: value for name, value in job.items() if name not in (*_WRITTEN, "foreign")}
    if job["ranks"] == 1:
        del content["patience"]
    for name in _READ:
        content[name] = job[name] and _digest(Path(job[name]))
    content["adapter"] += job["adapter"]  # its provenance tells the path
    content["step_inputs"] = [_digest(Path(path)) for path in job["step_inputs"]]
    content["writes"] = job["checkpoint_to"] is not None
    if job["states"] is not None:
        content["states"] = [(file.name, _digest(file)) for file in sorted(Path(job["states"]).iterdir())]
    if job["beside"] is not None:
        index = Path(job["beside"], "index.json")
        content["beside"] = os.path.relpath(job["beside"], job["trace"]), _digest(index)
    ignored = _OF_PYTEST if _plants(job) else (*_OF_PYTEST, FAULT)
    variables = {name: value for name, value in environment.items() if not name.startswith(ignored)}
    return hashlib.sha256(json.dumps([content, variables], sort_keys=True).encode()).hexdigest()


def _plants(job: dict[str, Any]) -> bool:
    """Tell whether a job's adapter plants the fault that the environment names; no other job looks at that."""
    return b"tests.faults" in Path(job["adapter"]).read_bytes()


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _holds_foreign(job: dict[str, Any], place: Path) -> bool:
    """Tell whether the recorded process may hold what this job must not: then the job must say so itself.

    What the recorded job must not hold either, it has checked, with the exceptions that are made there.
    """
    unchecked = set(job["foreign"]) - set(json.loads((place / "foreign.json").read_text()))
    if not all(map(os.path.isabs, unchecked)):
        return True
    provenance = json.loads((place / "trace" / "index.json").read_text())["provenance"]
    files, places = [[Path(os.path.realpath(path)) for path in paths] for paths in (provenance["files"], unchecked)]
    return any(file.is_relative_to(one) for file in files for one in places)


def _store(job: dict[str, Any], log: Path, place: Path) -> None:
    temporary = Path(tempfile.mkdtemp(dir=place.parent))
    shutil.copytree(job["trace"], temporary / "trace", copy_function=_linked)
    shutil.copyfile(job["status"], temporary / "status")
    shutil.copyfile(log, temporary / "log")
    if job["checkpoint_to"] is not None:
        shutil.copyfile(job["checkpoint_to"], temporary / "checkpoint_to")
    (temporary / "foreign.json").write_text(json.dumps(job["foreign"]))
    (temporary / "shards.json").write_text(json.dumps(_shards(temporary)))
    temporary.rename(place)


def _make_room(folder: Path) -> None:
    """Remove the recordings that were asked for longest ago, save those in use, until the others fit."""
    with _locked(folder / "room.lock"):  # one process at a time
        asked = sorted(folder.glob("*/shards.json"), key=lambda file: file.stat().st_mtime)
        sizes = {file.parent: sum(size for size, _ in json.loads(file.read_text()).values()) for file in asked}
        excess = sum(sizes.values()) - ROOM
        for place, size in sizes.items():
            if excess <= 0:
                return
            with suppress(BlockingIOError), _locked(f"{place}.lock", fcntl.LOCK_NB):
                shutil.rmtree(place)
                excess -= size


@contextmanager
def _locked(file: str | Path, flags: int = 0) -> Iterator[None]:
    with open(file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | flags)
        yield


def _restore(job: dict[str, Any], log: Path, place: Path) -> None:
    os.utime(place / "shards.json")
    shutil.copytree(place / "trace", job["trace"], copy_function=_linked, dirs_exist_ok=True)
    shutil.copyfile(place / "log", log)
    if job["checkpoint_to"] is not None:
        shutil.copyfile(place / "checkpoint_to", job["checkpoint_to"])
    shutil.copyfile(place / "status", job["status"])


def _linked(source: str, target: str) -> None:
    """Copy a file; one of tensors, which are large and never written to again, becomes another name of the same file."""
    if source.endswith(".safetensors"):
        try:
            return os.link(source, target)
        except OSError:  # on another file system
            pass
    shutil.copyfile(source, target)


def _shards(place: Path) -> dict[str, list[int]]:
    """Return size and time of change of the files of tensors."""
    stats = {file.name: file.stat() for file in sorted((place / "trace").glob("*.safetensors"))}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
