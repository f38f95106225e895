"""Run parts of a check as processes with time limits, and write what came of each at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: A line of a part's output that begins with this goes on with a JSON object of figures.
FIGURES = "FIGURES "
#: Stands in a command for the folder of the part; what lies in its subfolder ``run`` afterwards is looked at.
FOLDER = "{folder}"
_LEAST_SECONDS = 10.0  # a part that has less is not started
_GRACE = 8.0  # seconds from SIGTERM to SIGKILL
_TAIL = 60
_LOG_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """One process of the check.

    Attributes:
        name: of the part.
        arguments: of the Python interpreter.
        limit: seconds, after which it is ended.
        disk: gigabytes it writes; it is skipped where less is free.
        threads: CPU threads; None leaves them to torch.
    """

    name: str
    arguments: tuple[str, ...]
    limit: float
    disk: float = 0.0
    threads: int | None = None


@dataclass(frozen=True)
class Phase:
    """Chains of parts: chains run at the same time, parts of a chain one after another.

    Attributes:
        chains: of parts.
        until: seconds after the start of the check, when what still runs is ended.
    """

    chains: tuple[tuple[Part, ...], ...]
    until: float


@dataclass(frozen=True)
class Outcome:
    """What came of a part.

    Attributes:
        name: of the part.
        command: that ran.
        exit_code: None if it was ended or not started.
        state: ``ended by itself``, ``time limit``, or why it was not started.
        seconds: it took.
        figures: it printed.
        tail: last lines of its output.
    """

    name: str
    command: str
    exit_code: int | None
    state: str
    seconds: float
    figures: list[dict[str, Any]] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)


class Report:
    """``report.json``, ``report.txt``, ``logs.txt`` and ``verdicts.zip`` in a folder, complete after every part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._outcomes: list[Outcome] = []
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, outcome: Outcome, log: bytes, verdict: Path) -> None:
        """Take in a part: its log, cut in the middle, and the verdict in full, if there is one."""
        with self._lock:
            self._outcomes.append(outcome)
            self._write("report.json", json.dumps([asdict(one) for one in self._outcomes], indent=1))
            self._write("report.txt", "\n".join(_told(one) for one in self._outcomes))
            with open(self.folder / "logs.txt", "ab") as file:
                file.write(f"\n===== {outcome.name}: {outcome.command}\n".encode() + _shortened(log))
            if verdict.is_file():
                with zipfile.ZipFile(self.folder / "verdicts.zip", "a", zipfile.ZIP_DEFLATED) as archive:
                    archive.write(verdict, f"{outcome.name}.json")
            print(f"{outcome.name}: {_ending(outcome)}", flush=True)

    def _write(self, name: str, text: str) -> None:
        temporary = self.folder / f"{name}.tmp"
        temporary.write_text(text)
        os.replace(temporary, self.folder / name)


def _ending(outcome: Outcome) -> str:
    code = "" if outcome.exit_code is None else f", exit code {outcome.exit_code}"
    return f"{outcome.state}{code}, {outcome.seconds:.1f} s"


def _told(outcome: Outcome) -> str:
    lines = [f"===== {outcome.name}: {_ending(outcome)}", f"$ {outcome.command}"]
    lines += [json.dumps(figures) for figures in outcome.figures]
    return "\n".join([*lines, *(outcome.tail if not outcome.figures or outcome.exit_code else []), ""])


def _shortened(log: bytes) -> bytes:
    half = _LOG_BYTES // 2
    return log if len(log) <= _LOG_BYTES else log[:half] + b"\n[...]\n" + log[-half:]


def run_phases(phases: Sequence[Phase], report: Report, places: Sequence[Path], seconds: float) -> None:
    """Run everything, within ``seconds`` altogether.

    Args:
        phases: one after another.
        report: of what came of the parts.
        places: folders for what parts leave, which is removed after each. Chains take turns with them, so that those of
            a phase do not all fill the same disk.
        seconds: for everything.
    """
    start = time.monotonic()
    for phase in phases:
        end = start + min(phase.until, seconds)
        with ThreadPoolExecutor(len(phase.chains)) as pool:
            turns = [[*places[i % len(places) :], *places[: i % len(places)]] for i in range(len(phase.chains))]
            for future in [pool.submit(_run_chain, *both, report, end) for both in zip(phase.chains, turns)]:
                future.result()


def _run_chain(chain: Sequence[Part], places: Sequence[Path], report: Report, end: float) -> None:
    for part in chain:
        scratch = next((place for place in places if _free(place) >= part.disk), places[0])
        folder = scratch / part.name
        folder.mkdir(parents=True)
        log = scratch / f"{part.name}.log"
        log.touch()
        outcome = _run(part, folder, log, end)
        report.add(outcome, log.read_bytes(), folder / "run" / "report.json")
        shutil.rmtree(folder, ignore_errors=True)


def _run(part: Part, folder: Path, log: Path, end: float) -> Outcome:
    arguments = [argument.replace(FOLDER, str(folder)) for argument in part.arguments]
    command = " ".join(["python", *arguments])
    limit = min(part.limit, end - time.monotonic())
    free = _free(folder)
    if limit < _LEAST_SECONDS:
        return Outcome(part.name, command, None, "not started: no time left", 0.0)
    if free < part.disk:
        return Outcome(part.name, command, None, f"not started: {free:.0f} GB free, {part.disk:.0f} needed", 0.0)
    start = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT,
            env=_environment(part, folder), start_new_session=True,
        )  # fmt: skip
        try:
            code, state = process.wait(timeout=limit), "ended by itself"
        except subprocess.TimeoutExpired:
            code, state = None, "time limit"
            _end(process)
    lines = log.read_text(errors="replace").splitlines()
    figures = [json.loads(line.removeprefix(FIGURES)) for line in lines if line.startswith(FIGURES)]
    tail = [line for line in lines if not line.startswith(FIGURES)][-_TAIL:]
    return Outcome(part.name, command, code, state, round(time.monotonic() - start, 1), figures, tail)


def _free(folder: Path) -> float:
    """Return the gigabytes free where ``folder`` is."""
    return shutil.disk_usage(folder).free / 1e9


def _environment(part: Part, folder: Path) -> dict[str, str]:
    environment = dict(os.environ, TMPDIR=str(folder), PYTHONUNBUFFERED="1", NO_COLOR="1", COLUMNS="80")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment.pop("PYTEST_ADDOPTS", None)  # a folder named there would be emptied by the tests of this check
    if part.threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = str(part.threads)
    return environment


def _end(process: subprocess.Popen) -> None:
    """End a process and all it started, which may lead sessions of their own: first politely, then not."""
    started = [process.pid, *_descendants(process.pid)]
    process.terminate()
    try:
        process.wait(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        started += _descendants(process.pid)
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def _descendants(pid: int) -> list[int]:
    """Return the processes below ``pid``, from ``/proc``."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    below, waiting = [], [pid]
    while waiting:
        waiting += children.get(waiting.pop(), [])
        below += [child for child in waiting if child not in below]
    return below
