"""Run tasks on threads; what takes time here (reading, hashing, numpy and torch) lets other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

BUFFERED = 8  # as many threads at most where each holds buffers of its own


def in_order(tasks: Iterable[Callable[[], T]], most: int | None = None) -> Iterator[T]:
    """Run ``tasks`` and yield what they return, in their order.

    An exception of a task is raised in its place; tasks that have not begun by then are dropped.

    Args:
        tasks: to be run.
        most: number of threads at most; never more than there are processors, which is what None means.
    """
    processors = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(processors if most is None else min(most, processors)) as pool:
        try:
            for future in [pool.submit(task) for task in tasks]:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
