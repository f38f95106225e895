"""Carry one config over, run both sides and judge; run as a program, ``python -m parity.zoo.trying REQUEST RESULT``."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from converters.configs.kinds import Remark
from converters.configs.zoo import Case, NarrowError, Zoo
from converters.errors import ConversionError
from converters.rules.ports import port
from legacy_adapters import registry
from legacy_adapters.family import FamilyError, of_configs
from legacy_adapters.ground.files import write_whole
from legacy_adapters.ground.names import NEW
from legacy_adapters.ground.words import one_line, sentence
from legacy_adapters.launch import RefusedError, SideError

from ..comparing.compare import DERIVED, EXACT, Tolerance
from ..runs.run import run as run_parity
from ..sides.prepared import Prepared
from ..sides.settings import Machine, RunOptions, Sources, Task
from ..sides.sides import prepare
from ..verdict.verdict import Verdict
from . import result
from .request import Request
from .result import Result

#: Scale factors of the exact comparison, (w, h) of each image. A division by a power of two and a multiplication by its
#: reciprocal give the same bits, so which of the two a side does is left to the comparison under derived tolerance.
_POWERS = ((2.0, 0.5), (0.25, 4.0))
_ALL = ("forward", "loss", "grad")
_FEWEST = 2  # detections of all images together: one alone shows neither an order nor a suppression


def attempt(request: Request, folder: Path) -> Result:
    """Try a config in all forms until one runs on the legacy side: narrow and small first.

    Args:
        request: what to try.
        folder: for configs, weights and traces.
    """
    began = time.monotonic()
    trial = _Trial(request, folder, registry.called(registry.get(request.family), "zoo"))
    found = Result(request.name, request.architecture, result.UNSUPPORTED)
    for narrow, sizes in trial.forms():
        found, is_final = trial.tried(narrow, sizes)
        if is_final:
            break
    is_seen = sum(found.detections) >= _FEWEST
    if found.verdict == result.INCOMPARABLE and is_seen and set(request.checks) < set(_ALL):
        # more is compared than was asked for: what has no twin is then a smaller part of all
        more = _Trial(replace(request, checks=_ALL), folder, trial.zoo).tried(found.width < 1, found.sizes)[0]
        found = more if more.verdict in (result.MATCH, result.DEVIATION) else found
    return replace(found, seconds=round(time.monotonic() - began, 1))


@dataclass(frozen=True)
class _Trial:
    request: Request
    folder: Path
    zoo: Zoo

    def forms(self) -> Iterator[tuple[bool, tuple[tuple[int, int], ...]]]:
        """Give widths and sizes in the order in which they are tried."""
        smallest, *larger = self.zoo.sizes
        if self.request.narrow:
            yield from ((True, sizes) for sizes in self.zoo.sizes)
        yield False, smallest
        yield from ((False, sizes) for sizes in larger[-1:])

    def tried(self, narrow: bool, sizes: tuple[tuple[int, int], ...]) -> tuple[Result, bool]:
        """Try one form; return what became of it, and whether no other form need be tried."""
        request = self.request
        found = Result(request.name, request.architecture, result.UNSUPPORTED, sizes=sizes, checks=request.checks)
        try:
            case = self.zoo.case(Path(request.repo), request.name, self.folder, narrow)
            found = replace(found, width=case.width, remarks=sum(map(_is_told, case.translation.remarks)))
            return self._compared(case, sizes, found), True
        except NarrowError as error:
            return replace(found, why=f"cannot be made narrow: {error}"), False
        except SideError as error:  # layers that need more of an image, or a width that others follow
            return replace(found, why=one_line(str(error))), False
        except (ConversionError, FamilyError, RefusedError) as error:
            return replace(found, why=one_line(str(error))), not narrow or isinstance(error, (FamilyError, RefusedError))

    def _compared(self, case: Case, sizes: tuple[tuple[int, int], ...], found: Result) -> Result:
        """Compare bit by bit, as it is and with known deviations undone; then, where that matches in neither way, as rounding
        allows.
        """
        request = self.request
        of = port(request.family, of_configs(str(case.legacy), str(case.new)))
        sources, machine = Sources(Path(request.repo)), Machine("cpu", request.threads, None, request.time_limit)
        task = Task(of, sizes, None, request.seed, request.checks)
        prepared = prepare(task, sources, machine)
        task = replace(task, port=prepared.port)
        latest: dict[bool, Result] = {}
        of_rounding: Result | None = None
        for tolerance in (EXACT,) if request.exact_only else (EXACT, DERIVED):  # two runs of sides, and nine
            given = _scaled(prepared, len(sizes)) if tolerance == EXACT else prepared
            for is_undone in (False, True):
                if (is_undone and of_rounding is not None) or _shows_no_more(latest.get(is_undone)):
                    continue
                by = replace(sources, new_adapter=self.zoo.undoing if is_undone else None)
                options = RunOptions(task, by, machine, "float32", Tolerance(tolerance), False)
                told, numbers = self._round(options, given, found)
                latest[is_undone] = told
                if told.verdict != result.MATCH:
                    continue
                if not is_undone:
                    return told
                deviation = replace(told, verdict=result.DEVIATION, why=latest[False].why)
                if not set(numbers) <= set(self.zoo.of_rounding):
                    return deviation
                of_rounding = deviation
        if of_rounding is not None:
            return of_rounding
        plain, undone = latest[False], latest[True]
        if undone.why in ("", plain.why):
            return plain
        return replace(plain, why=f"{plain.why} With {undone.undone or 'known deviations undone'}: {undone.why}")

    def _round(self, options: RunOptions, given: Prepared, found: Result) -> tuple[Result, tuple[str, ...]]:
        """Run both sides once and judge; return which deviations were undone that can show, too.

        Raises:
            SideError: if the legacy side fails.
        """
        is_undone = options.sources.new_adapter is not None
        try:
            with tempfile.TemporaryDirectory(prefix="ddq-parity-") as made:
                verdict = run_parity(options, given, Path(made), lambda step: None)
        except SideError as error:
            if not str(error).startswith("The new side"):
                raise
            return replace(found, why=one_line(str(error))), ()
        told = _judged(found, verdict, options.tolerance.name, with_hint=not is_undone)
        if not is_undone:
            return told, ()
        numbers = verdict.provenance[NEW].get("undone", ())
        numbers = self.zoo.shown(numbers, self.request.checks, options.tolerance.name == EXACT)
        return replace(told, undone=f"{' and '.join(numbers)} of {self.zoo.deviations} undone" if numbers else ""), numbers


def _shows_no_more(before: Result | None) -> bool:
    """Tell whether a comparison ended with an error, or nothing differed in it and it proves too little all the same."""
    if before is None:
        return False
    return not before.tolerance or (before.verdict == result.INCOMPARABLE and before.identical == before.records)


def _scaled(prepared: Prepared, images: int) -> Prepared:
    """Return the same with scale factors that are powers of two."""
    given = {
        phase: {**tensors, "scale_factors": torch.tensor(_POWERS[:images], dtype=torch.float64)}
        for phase, tensors in prepared.given.items()
    }
    return replace(prepared, given=given)


def _judged(found: Result, verdict: Verdict, tolerance: str, with_hint: bool = True) -> Result:
    counts = tuple(image.counts["legacy"] for image in verdict.detections)
    found = replace(
        found, verdict=verdict.outcome, tolerance=tolerance, records=len(verdict.comparisons), detections=counts,
        identical=sum(comparison.identical for comparison in verdict.comparisons),
    )  # fmt: skip
    if verdict.outcome != result.MATCH:
        place, told = verdict.divergence, verdict.reasons
        if place is not None and verdict.outcome == result.MISMATCH:
            # of a hint its first sentence: what it advises is done here
            told = (place.message, sentence(place.hint.partition(". ")[0]) if place.hint and with_hint else "")
        return replace(found, why=one_line(" ".join(filter(None, told))))
    if sum(counts) < _FEWEST:
        why = "nothing was detected, so that what comes behind the head was not compared"
        return replace(found, verdict=result.INCOMPARABLE, why=why)
    return found


def _is_told(remark: Remark) -> bool:
    return "variables of the file" not in remark.why


def main(arguments: list[str]) -> None:
    """Read a request and write its result, both files of JSON."""
    asked, answer = map(Path, arguments)
    signal.signal(signal.SIGTERM, _stop)  # what unwinds ends the sides and removes folders
    request = Request.from_plain(json.loads(asked.read_text("utf-8")))
    with tempfile.TemporaryDirectory(prefix="ddq-parity-") as folder:
        found = attempt(request, Path(folder))
    write_whole(answer, json.dumps(found.as_dict(), indent=1) + "\n")


def _stop(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main(sys.argv[1:])
