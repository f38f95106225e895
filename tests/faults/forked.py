"""Run sides in forks of a process that has imported everything: a tenth of the time of a process from scratch.

:func:`preload` imports what the adapters of both sides import and starts no thread; then :func:`run_side` can stand in
for :func:`legacy_adapters.launch.run_side`. Only one process per pool may call them, and it must compute nothing in
threads itself: a fork of a process with a pool of OpenMP threads hangs.
"""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

import json
import os
import signal
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


def preload() -> None:
    """Import what both adapters import and build one model, all on one thread."""
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
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _work(job_file, log_file)
    if not _ended(pid, time_limit):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise launch.SideError(side, f"was stopped after the time limit of {time_limit:g} s.", "")
    if not Path(job.status).is_file():
        raise launch.SideError(side, "ended without a report.", log_file.read_text(errors="replace"))
    status = json.loads(Path(job.status).read_text())
    if not status["ok"]:
        raise launch.crash(side, status)


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
