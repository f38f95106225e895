"""Run sides in forks of a process that has imported everything: a tenth of the time of a process from scratch.

:func:`preload` imports what the new side's adapter imports and starts no thread; then :func:`run_side` can stand in
for :func:`legacy_adapters.launch.run_side`. Only one process per pool may call them, and it must compute nothing in
threads itself: a fork of a process with a pool of OpenMP threads hangs. Jobs of the legacy side, which must hold
nothing of the new one, go to a second process (:mod:`tests.faults.warm`) that has imported that side's code base only.
"""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

import atexit
import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmdet.models  # noqa: F401
import torch

import parity.capture  # noqa: F401
from ddq_port import configs
from legacy_adapters import launch, worker
from legacy_adapters.job import Job
from parity import sides
from parity.adapters import ddq_port as adapter


WARM = Path(__file__).with_name("warm.py")

_legacy: subprocess.Popen | None = None


def preload() -> None:
    """Import what the adapters import and build one model, all on one thread."""
    torch.set_num_threads(1)
    adapter.build({"config": str(configs.path(configs.VARIANTS["tiny_4scale"]))}, "cpu")


def run_side(side: str, job: Job, folder: Path, python: str, time_limit: float, isolated: bool) -> None:
    """Run ``job`` in a fork; arguments and errors as in :func:`legacy_adapters.launch.run_side`.

    A job that asks for another CPU capability than this process has is run in a process from scratch: torch chooses
    its kernels once.
    """
    wanted = job.cpu_capability
    if wanted is not None and wanted != os.environ.get("ATEN_CPU_CAPABILITY"):
        return launch.run_side(side, job, folder, python, time_limit, isolated)
    job_file, log_file = folder / f"{side}.job.json", folder / f"{side}.log"
    job.save(str(job_file))
    done = _forked_there if job.foreign else _forked_here
    if not done(job_file, log_file, time_limit):
        raise launch.SideError(side, f"was stopped after the time limit of {time_limit:g} s.", "")
    if not Path(job.status).is_file():
        raise launch.SideError(side, "ended without a report.", log_file.read_text(errors="replace"))
    status = json.loads(Path(job.status).read_text())
    if not status["ok"]:
        raise launch.crash(side, status)


def _forked_here(job_file: Path, log_file: Path, time_limit: float) -> bool:
    """Do a job in a fork of this process; return whether it ended in time."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # what is there already is not looked at in the fork, where that would copy it
    pid = os.fork()
    if pid == 0:
        _work(job_file, log_file)
    gc.unfreeze()
    if _ended(pid, time_limit):
        return True
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def _forked_there(job_file: Path, log_file: Path, time_limit: float) -> bool:
    """Do a job of the legacy side in a fork of the process that holds its code base; start that where it is missing."""
    global _legacy
    if _legacy is None or _legacy.poll() is not None:
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        _legacy = subprocess.Popen([sys.executable, str(WARM)], start_new_session=True, **pipes)
        atexit.register(_end_legacy)
        _legacy.stdout.readline()
    _legacy.stdin.write(json.dumps([str(job_file), str(log_file)]).encode() + b"\n")
    _legacy.stdin.flush()
    if not select.select([_legacy.stdout], [], [], time_limit)[0]:
        _end_legacy()
        return False
    _legacy.stdout.readline()
    return True


def _end_legacy() -> None:
    """End the process of the legacy side and its fork, if they are there."""
    global _legacy
    if _legacy is not None and _legacy.poll() is None:
        os.killpg(_legacy.pid, signal.SIGKILL)
        _legacy.wait()
    _legacy = None


def _work(job_file: Path, log_file: Path) -> None:
    """Do the job and end this process, whatever happens."""
    code = 1
    try:
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = worker.main(str(job_file))
    finally:
        os._exit(code)


def _ended(pid: int, time_limit: float) -> bool:
    deadline = time.monotonic() + time_limit
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.005)
    return False


def use_forks() -> None:
    """Make :class:`parity.sides.Sides` run its sides in forks of this process from now on."""
    sides.run_side = run_side
