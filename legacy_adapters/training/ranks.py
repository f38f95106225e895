"""Train a side with several processes, ranks, that torch.distributed joins, and make one trace of theirs.

The process that is asked for several ranks imports what they have in common, forks into one worker for each, and
computes nothing itself. The ranks meet by gloo on this machine, over a file; each records a trace of its own, in phases
that bear its number.
"""

from __future__ import annotations

import functools
import glob
import json
import multiprocessing
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing import connection
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from ..job import Job, write_json
from ..origin import PlainError, ReportedError
from ..recording import kinds
from ..recording.trace_writer import INDEX_NAME, sealed
from .phases import rank_of, step_of

#: Seconds that the other ranks have at most to end by themselves when one has failed, which they notice at once.
_GRACE = 10.0
_POLL = 0.005  # seconds
#: Fields of the coverage that list what happened in phases, and where such an entry has its phase.
_BY_PHASE = {
    "leaf_calls": "phase", "inner_calls": "phase", "records": "phase",
    "cut_off": 0, "not_finite": 0, "changed_inputs": 0,
}  # fmt: skip
#: Those that list what no rank did.
_NEVER = ("never_executed", "without_gradient")


class RankError(PlainError):
    """Ranks do not do the same, so that they cannot go on together; the message is one line."""


@dataclass(frozen=True)
class _Running:
    """A rank's job and process."""

    job: Job
    process: Any

    @property
    def failed(self) -> bool:
        return self.process.exitcode not in (None, 0)


def run(job: Job, work: Callable[[str], int]) -> None:
    """Run a job of several ranks; the ranks' traces lie in folders of that of the job.

    Args:
        job: with ``ranks`` above 1.
        work: does the job of one rank, whose file it is given; returns an exit code.

    Raises:
        ReportedError: if a rank failed, with what the first of them reported; what all ranks had recorded until then is
            in the trace, if each of them left that much.
    """
    os.makedirs(job.trace)
    ranks = [_Running(own, _started(own, work)) for own in _jobs(job)]
    try:
        _wait(ranks)
        failed = [rank for rank in ranks if rank.failed]  # before the others are killed
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.join()
        for path in glob.glob(glob.escape(str(ranks[0].job.meeting)) + "*"):
            os.remove(path)
    error = _report(min(failed, key=_reported_at)) if failed else None
    if all(os.path.isfile(os.path.join(rank.job.trace, INDEX_NAME)) for rank in ranks):
        _put_together(job.trace, [rank.job.trace for rank in ranks], error)
    if error is not None:
        raise ReportedError(error)


@contextmanager
def joined(job: Job) -> Iterator[None]:
    """Join the other ranks for what runs within; does nothing for a job that is none of several.

    Raises:
        RuntimeError: if another rank does not come.
    """
    if job.rank is None:
        yield
        return
    from torch import distributed

    # what launchers set, and code bases read
    os.environ.update(RANK=str(job.rank), LOCAL_RANK=str(job.rank), WORLD_SIZE=str(job.ranks))
    distributed.init_process_group(
        "gloo",
        init_method="file://" + str(job.meeting),
        rank=job.rank,
        world_size=job.ranks,
        timeout=timedelta(seconds=job.patience),
    )
    yield
    # not after an error: the others would fail before this one has reported, and seem to be the cause
    distributed.destroy_process_group()


class Meeting:
    """Lets ranks tell each other what they do next, before they wait for each other in it.

    Ranks that sum different things over all of them, or one that sums where another one does not, would wait without
    end, or die without a word. So they agree first: each writes a line to a file of its own and reads those of the
    others.

    Args:
        job: of this rank.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._count = job, 0
        self._others = [rank for rank in range(job.ranks) if rank != job.rank]
        self._own = open(_lines_of(job, job.rank), "w", encoding="utf-8")

    @contextmanager
    def forward(self, note: Callable[[], str]) -> Iterator[None]:
        """Watch what code that runs within, a forward pass, sums over all ranks, and agree on it.

        Args:
            note: is called at each such sum; returns who makes it, in words.

        Raises:
            RankError: if the ranks do different things, or another one does not come or has failed.
        """
        from torch import distributed

        all_reduce = distributed.all_reduce

        @functools.wraps(all_reduce)
        def watched(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            self.agree("sums a tensor of shape {} over all ranks in {}".format(list(tensor.shape), note()))
            return all_reduce(tensor, *args, **kwargs)

        distributed.all_reduce = watched
        try:
            yield
            self.agree("ends its forward pass")
        finally:
            distributed.all_reduce = all_reduce

    def agree(self, what: str) -> None:
        """Wait until every other rank comes to the same; ``what`` is a predicate in words, one line.

        Raises:
            RankError: if one comes to something else, does not come, or has failed.
        """
        self._own.write(what + "\n")
        self._own.flush()
        for rank in self._others:
            other = self._line_of(rank, what)
            if other != what:
                raise RankError("rank {} {}, where rank {} {}.".format(self._job.rank, what, rank, other))
        self._count += 1

    def _line_of(self, rank: int, what: str) -> str:
        last = time.monotonic() + self._job.patience
        while True:
            lines = _complete_lines(_lines_of(self._job, rank))
            if len(lines) > self._count:
                return lines[self._count]
            if os.path.exists(_failure_of(self._job)):
                raise RankError("another rank has failed, where rank {} {}.".format(self._job.rank, what))
            if time.monotonic() > last:
                told = "rank {} {}, but rank {} did not come to it within {:g} s."
                raise RankError(told.format(self._job.rank, what, rank, self._job.patience))
            time.sleep(_POLL)


def _lines_of(job: Job, rank: Optional[int]) -> str:
    return "{}.rank{}".format(job.meeting, rank)


def _failure_of(job: Job) -> str:
    return "{}.failed".format(job.meeting)


def _complete_lines(path: str) -> List[str]:
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


def _jobs(job: Job) -> List[Job]:
    """Return the job of each rank."""
    return [
        replace(
            job,
            rank=rank,
            trace=os.path.join(job.trace, "rank{}".format(rank)),
            status=os.path.join(job.trace, "rank{}.status.json".format(rank)),
            meeting=os.path.join(job.trace, "meeting"),
        )
        for rank in range(job.ranks)
    ]


def _started(job: Job, work: Callable[[str], int]) -> Any:
    path = job.trace + ".job.json"
    job.save(path)
    process = multiprocessing.get_context("fork").Process(target=_end_with, args=(work, path))
    process.start()
    return process


def _end_with(work: Callable[[str], int], path: str) -> None:
    sys.exit(work(path))


def _wait(ranks: Sequence[_Running]) -> None:
    """Wait until all ranks have ended; once one has failed, not for long."""
    running = [rank.process for rank in ranks]
    while running:
        limit = None
        if any(rank.failed for rank in ranks):
            open(_failure_of(ranks[0].job), "w").close()  # so that none waits for it
            limit = min(_GRACE, ranks[0].job.patience)
        ended = connection.wait([process.sentinel for process in running], limit)
        if not ended:
            return
        for process in running:
            process.join(0 if process.sentinel not in ended else None)
        running = [process for process in running if process.exitcode is None]


def _reported_at(rank: _Running) -> float:
    """Return when a failed rank reported; one that died without a report is the cause of what others report."""
    path = rank.job.status
    return os.stat(path).st_mtime if os.path.isfile(path) else 0.0


def _report(rank: _Running) -> Dict[str, str]:
    """Return what a failed rank reported, or that it reported nothing."""
    try:
        with open(rank.job.status, encoding="utf-8") as file:
            told = json.load(file)
    except (OSError, ValueError):
        code = rank.process.exitcode
        text = "rank {} of {} ended without a report (exit code {})".format(rank.job.rank, rank.job.ranks, code)
        return dict(error=text, place="", traceback="")
    return dict(error=told["error"], place=told["place"], traceback=told["traceback"])


def _put_together(folder: str, parts: Sequence[str], error: Optional[Dict[str, str]]) -> None:
    """Write the index of one trace of those of all ranks; the tensors stay where they are.

    Args:
        folder: of the trace; those of the ranks lie in it.
        parts: folders of the ranks' traces, the first rank's first.
        error: why the side did not come to its end, or None.
    """
    indexes = []
    for part in parts:
        with open(os.path.join(part, INDEX_NAME), encoding="utf-8") as file:
            indexes.append(json.load(file))
    shards = {}  # type: Dict[str, str]
    for part, index in zip(parts, indexes):
        for digest, shard in index["shards"].items():
            shards.setdefault(digest, os.path.relpath(os.path.join(part, shard), folder))
    whole = dict(
        indexes[0],
        provenance=_provenance([index["provenance"] for index in indexes], error),
        coverage=_coverage([index["coverage"] for index in indexes]),
        shards=shards,
        records=_in_order([index["records"] for index in indexes]),
    )
    write_json(os.path.join(folder, INDEX_NAME), sealed(whole))


def _provenance(parts: Sequence[Dict[str, Any]], error: Optional[Dict[str, str]]) -> Dict[str, Any]:
    """Return the first rank's, with what all of them held and were given."""
    whole = dict(parts[0])
    whole["peak_memory"] = {
        name: sum(part["peak_memory"][name] for part in parts) for name in parts[0].get("peak_memory", {})
    }
    for name in ("objects", "reductions"):
        whole[name] = {phase: value for part in parts for phase, value in part.get(name, {}).items()}
    whole.pop("stopped", None)
    return whole if error is None else dict(whole, stopped=error)


def _coverage(parts: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """Return the first rank's, with the phases of all and what none of them did."""
    whole = dict(parts[0])
    for name, place in _BY_PHASE.items():
        entries = [entry for part in parts for entry in part[name]]
        whole[name] = sorted(entries, key=lambda entry: step_of(entry[place]) or 0)
    for name in _NEVER:
        whole[name] = [entry for entry in parts[0][name] if all(entry in part[name] for part in parts[1:])]
    return whole


def _in_order(parts: Sequence[Sequence[Dict[str, Any]]]) -> List[Dict[str, Any]]:
    """Put records in an order in which none stands before one that it follows from.

    In a step all ranks compute their losses, then their gradients, which follow from the losses of all.
    """
    found = []
    for part in parts:
        losses = {record["phase"]: place for place, record in enumerate(part) if record["kind"] == kinds.LOSS}
        for place, record in enumerate(part):
            is_behind = place > losses.get(record["phase"], len(part))
            found.append((step_of(record["phase"]) or 0, is_behind, rank_of(record["phase"]) or 0, place, record))
    return [entry[-1] for entry in sorted(found, key=lambda entry: entry[:-1])]
