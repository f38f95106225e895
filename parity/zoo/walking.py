"""Go through the configs of a zoo, each in a process of its own; what is done is not done again."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from legacy_adapters.ground.files import write_whole
from legacy_adapters.ground.words import one_line

from . import result
from .request import Request
from .result import Result

_MODULE = "parity.zoo.trying"
_RESULTS, _LOGS = "results", "logs"
_TAIL = 3  # lines of a log
_PATIENCE = 10.0  # seconds for a process to end its sides
_PR_SET_PDEATHSIG = 1


def walk(
    requests: Sequence[Request], folder: Path, limit: float, say: Callable[[str, Result, bool], None]
) -> tuple[Result, ...]:
    """Try what was not tried before, and return the results of all in their order.

    Results lie in ``folder``, with the request that each answers. Where that was another one, where time ran out, or
    where this toolkit failed, the config is tried again.

    Args:
        requests: one for each config.
        folder: which exists.
        limit: seconds that a config may take.
        say: is told how far it is, a result, and whether it was there before.
    """
    for name in (_RESULTS, _LOGS):
        (folder / name).mkdir(exist_ok=True)
    found = []
    for number, request in enumerate(requests, 1):
        before = _before(folder, request)
        one = before or _tried(folder, request, limit)
        say(f"{number}/{len(requests)}", one, before is not None)
        found.append(one)
    return tuple(found)


def _file(folder: Path, room: str, request: Request, end: str) -> Path:
    return folder / room / (request.name.replace("/", "__").removesuffix(".py") + end)


def _before(folder: Path, request: Request) -> Result | None:
    """Return what an earlier walk found, if it stands."""
    try:
        data = json.loads(_file(folder, _RESULTS, request, ".json").read_text("utf-8"))
        answered, one = data["request"], Result.from_dict(data["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    stands = answered == request.as_plain() and one.verdict not in (result.TIMEOUT, result.ERROR)
    return one if stands else None


def _tried(folder: Path, request: Request, limit: float) -> Result:
    if request.lacking:
        return Result(request.name, request.architecture, result.UNSUPPORTED, request.lacking)
    asked, answer, log = (
        _file(folder, room, request, end)
        for room, end in ((_LOGS, ".request.json"), (_LOGS, ".result.json"), (_LOGS, ".log"))
    )
    write_whole(asked, json.dumps(request.as_plain()))
    answer.unlink(missing_ok=True)
    began = time.monotonic()
    with open(log, "wb") as lines:
        command = [sys.executable, "-m", _MODULE, str(asked), str(answer)]
        with _running(command, lines) as process:
            try:
                code = process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                code = None
    found = Result(request.name, request.architecture, result.ERROR, checks=request.checks)
    if code == 0:
        found = Result.from_dict(json.loads(answer.read_text("utf-8")))
    elif code is None:
        found = found.but(verdict=result.TIMEOUT, why=f"not done after {limit:g} s; raise it with --limit")
    else:
        found = found.but(why=_told(code, log))
    if not found.seconds:
        found = found.but(seconds=round(time.monotonic() - began, 1))
    data = dict(request=request.as_plain(), result=found.as_dict())
    write_whole(_file(folder, _RESULTS, request, ".json"), json.dumps(data, indent=1) + "\n")
    return found


def _told(code: int, log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"exit code {code}, see {log.name}: {one_line(' '.join(lines[-_TAIL:]))}"


@contextmanager
def _running(command: Sequence[str], log: object) -> Iterator[subprocess.Popen]:
    """Start a process and see to it that neither it nor its sides are left."""
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=_end_with_parent,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it ends its sides, which are sessions of their own
            try:
                process.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _end_with_parent() -> None:
    """Let the kernel end the process if the walk was killed, so that none goes on beside the next one (Linux)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):
        pass
