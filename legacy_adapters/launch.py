"""Run a job in a process of its own, with a time limit; this is the parent's side of the worker protocol."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from .ground.packages import EXTRAS, OF_EXTRAS
from .job import Job

WORKER = Path(__file__).with_name("worker.py")


class SideError(Exception):
    """A side crashed or ran out of time.

    Attributes:
        details: the last lines of its traceback or log.
    """

    def __init__(self, side: str, message: str, details: str) -> None:
        super().__init__(f"The {side} side {message}")
        self.details = details


class RefusedError(Exception):
    """An adapter cannot be used; the message, one line, says what it lacks."""


def crash(side: str, report: Dict[str, str]) -> SideError:
    """Return the error of a side that crashed; ``report`` stands in its status or in its trace's provenance."""
    place = f" in {report['place']}" if report["place"] else ""
    return SideError(side, f"crashed{place}: {report['error']}", _tail(report["traceback"]))


def run_side(
    side: str, job: Job, folder: Path, python: str, time_limit: float, other_python: bool, called: str = ""
) -> None:
    """Run ``job`` to its end; what an earlier run of the same name left is removed first.

    Args:
        side: name for messages and files: ``folder/SIDE.job.json`` and ``folder/SIDE.log``.
        job: what to do.
        folder: for the job file and the log; must exist.
        python: interpreter of the code base.
        time_limit: seconds, after which the process and its children are killed.
        other_python: the interpreter is not the current one: do not hand on ``PYTHONPATH``.
        called: name for messages, where ``side`` says nothing to a user.

    Raises:
        SideError: if it crashed, took too long, or did not end with 0.
        RefusedError: if its adapter cannot be used.
    """
    called = called or side
    _remove_earlier(job)
    job_file, log_file = folder / f"{side}.job.json", folder / f"{side}.log"
    job.save(str(job_file))
    try:
        code = execute([python, str(WORKER), str(job_file)], log_file, _environment(job, other_python), time_limit)
    except subprocess.TimeoutExpired:
        raise SideError(
            called,
            f"was stopped after the time limit of {time_limit:g} s; raise it with --time-limit.",
            _tail(log_file.read_text(errors="replace")),
        ) from None
    except OSError as error:
        raise SideError(called, f"did not start: {python}: {error.strerror}.", "") from error
    status = _read_status(Path(job.status))
    if status is None:
        raise SideError(
            called, f"ended without a report (exit code {code}).", _tail(log_file.read_text(errors="replace"))
        )
    if status.get("missing") in OF_EXTRAS and not other_python:
        raise RefusedError(
            f"{job.adapter} needs {status['missing']}, which is not installed; install it with {EXTRAS}."
        )
    if status.get("refused"):
        raise RefusedError(status["error"])
    if not status["ok"]:
        raise crash(called, status)
    if code != 0:
        raise SideError(
            called,
            f"reported success but ended with exit code {code}, expected 0; its trace is not used, run it again.",
            _tail(log_file.read_text(errors="replace")),
        )


@dataclass(frozen=True)
class Description:
    """What a side's model is.

    Attributes:
        layout: key -> dtype, shape and role, in the model's order.
        classes: how many classes a detector tells apart; None if it does not say.
        optimizer: of the config, see :func:`legacy_adapters.tasks.describing.groups`; None if it has none, or was not asked
            for.
    """

    layout: Dict[str, List[Any]]
    classes: Optional[int]
    optimizer: Optional[Dict[str, Any]] = None


def describe_side(
    side: str, adapter: Path, options: Mapping[str, Any], folder: Path, python: str, time_limit: float,
    other_python: bool, runs: bool = False, trains: bool = False,
) -> Description:
    """Build the model of a side and describe it.

    Args:
        side: as in :func:`run_side`, like the last four.
        adapter: file of its adapter.
        options: given to it.
        folder: see there.
        python: see there.
        time_limit: see there.
        other_python: see there.
        runs: the model will be run, so refuse one whose operators are lacking; a conversion needs none.
        trains: describe the optimizer of its config, too.

    Raises:
        SideError: if the model cannot be built.
        RefusedError: if the adapter cannot be used.
    """
    name = side + ".layout"
    path = folder / (name + ".json")
    job = Job(
        family="",
        variant="",
        adapter=str(adapter),
        options=dict(options),
        weights="",
        inputs="",
        trace="",
        status=str(folder / (name + ".status.json")),
        checks=(),
        seed=0,
        threads=1,
        cpu_capability=None,
        device="cpu",
        describe=str(path),
        runs=runs,
        trains=trains,
    )
    run_side(name, job, folder, python, time_limit, other_python, called=side)
    told = json.loads(path.read_text())
    return Description(dict(told["layout"]), told["classes"], told.get("optimizer"))


def execute(command: List[str], log_file: Path, environment: Dict[str, str], time_limit: float) -> int:
    """Run a command in the folder of its log, without input; return its exit code. Nothing that it started is left.

    Raises:
        OSError: if it cannot be started.
        subprocess.TimeoutExpired: if it takes longer than ``time_limit`` seconds.
    """
    with open(log_file, "wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=log_file.parent,
            env=environment,
            start_new_session=True,
        )
        try:
            return process.wait(timeout=time_limit)
        finally:
            _end_group(process)


def _remove_earlier(job: Job) -> None:
    """Remove an earlier status and result of the same name, so that they cannot pass for those of this run."""
    Path(job.status).unlink(missing_ok=True)
    if job.detections is not None:
        Path(job.detections).unlink(missing_ok=True)
    if os.path.isdir(job.trace):
        shutil.rmtree(job.trace)


def _environment(job: Job, other_python: bool) -> Dict[str, str]:
    environment = dict(os.environ)
    if other_python:
        for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
            environment.pop(name, None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(job.threads)
    if job.cpu_capability is not None:
        environment["ATEN_CPU_CAPABILITY"] = job.cpu_capability
    environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # deterministic matmul on CUDA
    return environment


def _end_group(process: subprocess.Popen) -> None:
    """Kill the process and whatever it started, if anything is left."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _read_status(path: Path) -> Optional[dict]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _tail(text: str, lines: int = 12) -> str:
    kept: List[str] = [line for line in text.rstrip().splitlines() if line.strip()][-lines:]
    return "\n".join(kept)
