"""Run tasks on threads; what takes time here (reading, hashing, numpy and torch) lets other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_MOST = 8  # threads; each holds buffers of its own


def in_order(tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Run ``tasks`` and yield what they return, in their order.

    An exception of a task is raised in its place; tasks that have not begun by then are dropped.
    """
    with ThreadPoolExecutor(min(_MOST, len(os.sched_getaffinity(0)))) as pool:
        try:
            for future in [pool.submit(task) for task in tasks]:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
