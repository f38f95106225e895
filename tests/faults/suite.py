"""Run the whole suite in some processes and sum it up."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any
from unittest import mock

from ..warm.execute import use_forks
from . import diagnoses
from .bench import ALARM, MISNAMED, MISSED, TOLERANCES, Bench, Measurement
from .clean import Alarm, Case, alarms
from .fault import Fault, Rewrite

#: Least share of the faults that must be named at the very place: of all, and of the added ones.
NAMED_OF_ALL, NAMED_OF_ADDED = 0.95, 0.97
#: A fault is quiet if mean and standard deviation of the first differing record stay within this.
QUIET = 1e-4
Progress = Callable[[str], None]

_bench: Bench | None = None
_folder: Path | None = None


def _start(folder: str) -> None:
    """Prepare a worker: sides in forks of warm processes, a folder of its own."""
    global _bench, _folder
    use_forks()
    _folder = Path(tempfile.mkdtemp(dir=folder))
    _bench = Bench(_folder)


def _measure(name: str) -> Measurement:
    from .catalogue import PLANTED

    return _bench.measure(PLANTED[name])


def _check(case: Case) -> tuple[str, int, list[Alarm]]:
    return (str(case), *alarms(case, _folder / "clean"))


@contextmanager
def pool(workers: int) -> Iterator[Pool]:
    """Give a pool of processes that can measure; their folders are removed in the end."""
    # not forked from this process, which may have run threads; they must not make threads of OpenMP either
    with (
        tempfile.TemporaryDirectory(prefix="ddq-faults-") as folder,
        mock.patch.dict(os.environ, OMP_NUM_THREADS="1"),
        multiprocessing.get_context("spawn").Pool(workers, _start, (folder,)) as started,
    ):
        yield started


def measure_all(
    started: Pool, planted: Sequence[Fault | Rewrite], progress: Progress, log: Path | None = None
) -> dict[str, Measurement]:
    """Measure faults and rewrites; return the measurements by name, in the order of ``planted``.

    With ``log`` a line of JSON for each is added to that file as it comes.
    """
    found: dict[str, Measurement] = {}
    by_name = {one.name: one for one in planted}
    for done in started.imap_unordered(_measure, [one.name for one in planted]):
        found[done.name] = done
        said = ", ".join(f"{name} {finding.judged(by_name[done.name])}" for name, finding in done.findings.items())
        progress(f"{len(found)} of {len(planted)}: {done.name}: {said}; {done.seconds:.1f} s")
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_logged(done, by_name[done.name])) + "\n")
    return {one.name: found[one.name] for one in planted}


def _logged(done: Measurement, planted: Fault | Rewrite) -> dict[str, Any]:
    """Return what a line of the log says of a fault or rewrite."""
    return {
        "name": done.name,
        "kind": planted.kind,
        "findings": {
            tolerance: {
                "judged": finding.judged(planted), "outcome": finding.outcome, "where": finding.where,
                "message": finding.message, "diagnoses": finding.diagnoses,
                "diagnosed": diagnoses.score(done.name, tolerance, finding.diagnoses).judged,
            }
            for tolerance, finding in done.findings.items()
        },
    }  # fmt: skip


def check_all(started: Pool, cases: Sequence[Case], progress: Progress) -> tuple[int, list[Alarm]]:
    """Do the clean runs; return their number and the false alarms."""
    total, found = 0, []
    for case, runs, wrong in started.imap_unordered(_check, cases):
        total += runs
        found += wrong
        progress(f"{total} clean runs: {case}")
    return total, found


@dataclass(frozen=True)
class Summary:
    """Figures of a run of the suite.

    Attributes:
        faults: that were measured.
        measurements: of each, by name.
        clean_runs: number of clean runs.
        alarms: clean runs that were not a match.
        rewrites: harmless ones that were measured.
        added: names of the faults that the figures show by themselves, too.
    """

    faults: Sequence[Fault]
    measurements: dict[str, Measurement]
    clean_runs: int
    alarms: Sequence[Alarm]
    rewrites: Sequence[Rewrite] = ()
    added: frozenset[str] = frozenset()

    @property
    def quiet(self) -> list[str]:
        """Names of the faults that move mean and standard deviation by less than :data:`QUIET`."""
        shifts = ((fault.name, self.measurements[fault.name].shift) for fault in self.faults)
        return [name for name, shift in shifts if shift is not None and shift <= QUIET]

    def missed(self, tolerance: str) -> list[Fault]:
        """Return the faults that were not detected."""
        return [fault for fault in self.faults if self._judged(fault, tolerance) == MISSED]

    def misnamed(self, tolerance: str) -> list[Fault]:
        """Return the faults that were detected and not named at the very place."""
        return [fault for fault in self.faults if self._judged(fault, tolerance) == MISNAMED]

    def false_alarms(self, tolerance: str) -> list[Rewrite]:
        """Return the rewrites that did not match."""
        return [one for one in self._rewrites(tolerance) if self._judged(one, tolerance) == ALARM]

    def _judged(self, planted: Fault | Rewrite, tolerance: str) -> str:
        return self.measurements[planted.name].findings[tolerance].judged(planted)

    def _rewrites(self, tolerance: str) -> list[Rewrite]:
        return [one for one in self.rewrites if tolerance in self.measurements[one.name].findings]

    @property
    def diagnosed(self) -> list[diagnoses.Score]:
        """How what was said of each fault is judged."""
        names = (fault.name for fault in self.faults)
        return diagnoses.scores(
            {name: {t: one.diagnoses for t, one in self.measurements[name].findings.items()} for name in names}
        )

    @property
    def good(self) -> bool:
        """Tell whether all are detected and enough named, nothing is diagnosed wrongly, and nothing raised an alarm."""
        wrong = any(one.judged == diagnoses.WRONG for one in self.diagnosed)
        return not self.alarms and not wrong and all(
            not self.missed(name) and not self.false_alarms(name) and self._enough_named(name) for name in TOLERANCES
        )

    def _enough_named(self, tolerance: str) -> bool:
        misnamed = self.misnamed(tolerance)
        added = [fault for fault in self.faults if fault.name in self.added]
        return len(misnamed) <= (1 - NAMED_OF_ALL) * len(self.faults) and sum(
            fault.name in self.added for fault in misnamed
        ) <= (1 - NAMED_OF_ADDED) * len(added)

    def lines(self) -> Iterator[str]:
        """Yield the figures as text."""
        kinds = Counter(fault.kind for fault in self.faults)
        if self.faults:
            yield f"faults      {len(self.faults)} of {len(kinds)} kinds, at most {max(kinds.values())} of a kind"
            places = Counter(fault.place for fault in self.faults)
            yield "planted in  " + ", ".join(f"{place} {count}" for place, count in places.items())
            yield f"quiet       {len(self.quiet)} keep mean and standard deviation within {QUIET:g}"
            yield from chain.from_iterable(self._tolerance_lines(name) for name in TOLERANCES)
            yield from diagnoses.lines(self.diagnosed)
        if self.rewrites:
            bits = sum(one.keeps_bits for one in self.rewrites)
            yield f"rewrites    {len(self.rewrites)}: {bits} keep bits, {len(self.rewrites) - bits} round otherwise"
            yield from chain.from_iterable(self._rewrite_lines(name) for name in TOLERANCES)
        if self.clean_runs:
            yield f"clean runs  {self.clean_runs}, false alarms {len(self.alarms)}"
            yield from (f"  {alarm.outcome} {alarm.case}: {alarm.message}" for alarm in self.alarms)

    def _tolerance_lines(self, tolerance: str) -> Iterator[str]:
        missed, misnamed, total = self.missed(tolerance), self.misnamed(tolerance), len(self.faults)
        named = total - len(missed) - len(misnamed)
        yield f"{tolerance:<10}  detected {total - len(missed)} of {total}, named {named} ({named / total:.1%})"
        if 0 < (count := sum(fault.name in self.added for fault in self.faults)) < total:
            lost = [sum(fault.name in self.added for fault in faults) for faults in (missed, misnamed)]
            named = count - sum(lost)
            yield f"  of the added  detected {count - lost[0]} of {count}, named {named} ({named / count:.1%})"
        for fault in missed:
            found = self.measurements[fault.name].findings[tolerance]
            yield f"  missed    {fault.name}: {found.outcome} instead of {fault.outcome}; {found.message[:300]}"
        for fault in misnamed:
            found = self.measurements[fault.name].findings[tolerance]
            yield f"  misnamed  {fault.name}: {found.where or 'nothing'} instead of {fault.where}; {found.message}"

    def _rewrite_lines(self, tolerance: str) -> Iterator[str]:
        alarms = self.false_alarms(tolerance)
        yield f"{tolerance:<10}  false alarms {len(alarms)} of {len(self._rewrites(tolerance))} rewrites"
        for one in alarms:
            found = self.measurements[one.name].findings[tolerance]
            yield f"  {found.outcome} {one.name}: {found.where} {found.message[:400]}"

    def kinds(self) -> Iterator[str]:
        """Yield the number of faults of each kind."""
        for kind, count in sorted(Counter(fault.kind for fault in self.faults).items()):
            yield f"  {count}  {kind}"
