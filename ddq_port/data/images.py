"""Load every image with the loader of the training, in processes of their own, and say what is wrong with it.

A file may hold more pixels than there is memory for, or make a decoder crash: the process that tried is lost then, not
the check.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddq_port.data.pixels import OPENCV_LIMIT, Image, Remark, examine, size_of

Loader = Callable[[dict[str, Any]], Mapping[str, Any] | None]
_MOST_PROCESSES = 8
_CHUNK = 16  # images per task: a process that dies takes at most so many with it, which are then tried one by one
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
_BYTES = 7.5  # per pixel: three colours, two and a half copies while it is decoded and converted


def check(
    images: Sequence[Image], loader: Loader, decode: bool, progress: Callable[[int], None]
) -> Iterator[tuple[Image, Remark]]:
    """Yield what is wrong with images, in their order.

    Args:
        images: whose files are there.
        loader: a transform of mmcv's kind: it reads ``img_path`` and returns ``img``.
        decode: whether to load them; otherwise only their headers are read.
        progress: is given the number of images that are done.
    """
    progress(0)
    remarks: dict[int, tuple[Remark, ...]] = {}
    alone: list[int] = []
    with _no_threads_of_opencv():
        for number, told in _in_pools(images, loader, decode):
            if told is None:
                alone.append(number)
            else:
                remarks[number] = told
                progress(len(remarks))
        for number in alone:
            remarks[number] = _alone(images[number], loader, decode)
            progress(len(remarks))
    for number in sorted(remarks):
        yield from ((images[number], remark) for remark in remarks[number])


@contextmanager
def _no_threads_of_opencv() -> Iterator[None]:
    """End OpenCV's threads before processes are forked: a fork has none of them, and would wait for them for ever."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


_state: dict[str, Any] = {}  # of a process of the pool


def _begin(loader: Loader, decode: bool) -> None:
    """Prepare a process: its decoder's messages go into a file, and an interrupt is left to the parent."""
    import cv2

    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # it would wait for work forever
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
    _state.update(loader=loader, decode=decode)


def _examine(chunk: Sequence[tuple[int, Image]], large: bool = False) -> list[tuple[int, tuple[Remark, ...] | None]]:
    return [(number, examine(image, _state["loader"], _state["decode"], large)) for number, image in chunk]


def _in_pools(images: Sequence[Image], loader: Loader, decode: bool) -> Iterator[tuple[int, tuple[Remark, ...] | None]]:
    """Examine images in a pool of processes, and in a new one if one of them dies.

    Yields:
        number and remarks; None in their place for an image to be examined alone: a large one, or one that was in the
        hands of a pool when it broke.
    """
    numbered = list(enumerate(images))
    waiting = deque(numbered[start : start + _CHUNK] for start in range(0, len(numbered), _CHUNK))
    while waiting:
        processes = min(_MOST_PROCESSES, len(os.sched_getaffinity(0)), len(waiting))
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(processes, context, _begin, (loader, decode)) as pool:
            running: dict[Future, Sequence[tuple[int, Image]]] = {}
            broken = False
            while (waiting and not broken) or running:
                while waiting and not broken and len(running) < 2 * processes:
                    try:
                        running[pool.submit(_examine, waiting[0])] = waiting[0]
                    except BrokenProcessPool:
                        broken = True
                    else:
                        waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    chunk = running.pop(future)
                    try:
                        yield from future.result()
                    except BrokenProcessPool:
                        broken = True
                        yield from ((number, None) for number, _ in chunk)


def _alone(image: Image, loader: Loader, decode: bool) -> tuple[Remark, ...]:
    """Examine one image in a process of its own, if there is memory for it."""
    width, height = size_of(image.path) or (0, 0)
    needed, available = _BYTES * width * height, _available_memory()
    if width * height <= OPENCV_LIMIT and needed > available:
        size = f"{width} x {height} pixels need about {needed / 1e9:.1f} GB, {available / 1e9:.1f} GB are free"
        return (Remark("large-image", f"{size}; it was not decoded, make it smaller"),)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, image, loader, decode))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        how = _ending(process.exitcode)
        return (Remark("unreadable-image", f"the process that decoded it {how}; a training would end there, too"),)
    finally:
        process.join()


def _send(sender: Any, image: Image, loader: Loader, decode: bool) -> None:
    _begin(loader, decode)
    sender.send(_examine([(0, image)], large=True)[0][1])


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _available_memory() -> float:
    """Return the bytes that may still be taken, of the machine and of the container."""
    free = [float("inf")]
    free += [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    limit, used = (next(_lines(f"/sys/fs/cgroup/{name}"), "max") for name in ("memory.max", "memory.current"))
    if limit.isdecimal() and used.isdecimal():
        cached = [line.split()[1] for line in _lines("/sys/fs/cgroup/memory.stat") if line.startswith("inactive_file ")]
        free.append(int(limit) - int(used) + sum(map(int, cached)))
    return min(free)


def _lines(path: str) -> Iterator[str]:
    try:
        yield from Path(path).read_text().splitlines()
    except OSError:
        return
