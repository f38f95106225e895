"""Processes with everything imported, in a fraction of the time that imports take; they compute in one thread.

They are forked by a server that has imported the detectors and computed nothing: a fork of a process with a pool of
OpenMP threads, such as one that runs tests, may hang.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.training.preloaded"])


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Run a function of a module in a new process; what it writes to stdout and stderr goes to the test's."""
    child = _CONTEXT.Process(target=_alone, args=(target, *args))
    child.start()
    return child


def _alone(target: Callable[..., None], *args: Any) -> None:
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    target(*args)
