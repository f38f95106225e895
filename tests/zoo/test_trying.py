"""What becomes of a config of a zoo follows from the verdicts of its comparisons; neither side is run here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from converters.configs.zoo import Case, NarrowError
from converters.errors import ConversionError
from converters.rules.ports import Port
from legacy_adapters.launch import RefusedError, SideError
from parity.comparing.compare import DERIVED, EXACT
from parity.zoo import result, trying
from parity.zoo.request import Request
from tests.models import port

UNDOING = Path("undoing.py")
REQUEST = Request("mmdet2", "repo", "a/one.py", "One", True, ("forward",), 0, 1, 60.0)
SIZES = (((32, 48), (48, 32)), ((64, 96), (96, 64)))


@dataclass(frozen=True)
class Zoo:
    """A zoo of one config."""

    narrow_fails: Exception | None = None
    wide_fails: Exception | None = None
    of_rounding: tuple[str, ...] = ("D9",)
    sizes: tuple = SIZES
    undoing: Path = UNDOING
    deviations: str = "docs/deviations.md"

    def case(self, repo: Path, name: str, folder: Path, narrow: bool) -> Case:
        failing = self.narrow_fails if narrow else self.wide_fails
        if failing is not None:
            raise failing
        remarks = [SimpleNamespace(why=why) for why in ("nothing is known of it", "two variables of the file")]
        return Case(Path("old.py"), Path("new.py"), SimpleNamespace(remarks=remarks), 0.25 if narrow else 1.0)

    def shown(self, numbers, checks, is_exact):
        return tuple(numbers)


def verdict(outcome: str, undone: tuple[str, ...] = (), detections: int = 3, identical: int = 9) -> SimpleNamespace:
    """Return what a run says, as far as it is looked at."""
    place = SimpleNamespace(message="`head` differs.", hint="Known. Undo it.")
    comparisons = [SimpleNamespace(identical=number < identical) for number in range(9)]
    return SimpleNamespace(
        outcome=outcome, detections=[SimpleNamespace(counts={"legacy": detections})], comparisons=comparisons,
        divergence=place if outcome == result.MISMATCH else None, reasons=("Too little.",),
        provenance={"new": {"undone": undone}},
    )  # fmt: skip


@dataclass
class Runs:
    """Stands in for running both sides: gives verdicts by tolerance and whether deviations are undone."""

    of: dict[tuple[str, bool], object] = field(default_factory=dict)
    asked: list[tuple[str, bool, tuple[str, ...]]] = field(default_factory=list)
    given: list[dict] = field(default_factory=list)

    def run(self, options, given, folder, tell):
        key = options.tolerance.name, options.sources.new_adapter is not None
        self.asked.append((*key, options.task.checks))
        self.given.append(given.given)
        found = self.of.get(key, verdict(result.MISMATCH))
        if isinstance(found, Exception):
            raise found
        return found


@dataclass(frozen=True)
class Given:
    port: Port
    given: dict


@pytest.fixture
def attempt(monkeypatch, tmp_path):
    """Return a function that tries the config with given verdicts, and what was asked of both sides."""

    def run(runs: Runs, zoo: Zoo = Zoo(), request: Request = REQUEST) -> result.Result:
        monkeypatch.setattr(trying.registry, "called", lambda family, what: zoo)
        of = port("mmdet2", "tiny_retinanet")
        monkeypatch.setattr(trying, "port", lambda family, variant: of)
        monkeypatch.setattr(trying, "prepare", lambda *given: Given(of, {"predict": {"scale_factors": torch.ones(2, 2)}}))
        monkeypatch.setattr(trying, "run_parity", runs.run)
        return trying.attempt(request, tmp_path)

    return run


def test_the_same_bits_end_it_with_scale_factors_of_powers_of_two(attempt):
    runs = Runs({(EXACT, False): verdict(result.MATCH)})
    found = attempt(runs)
    assert (found.verdict, found.tolerance, found.width, found.sizes) == (result.MATCH, EXACT, 0.25, SIZES[0])
    assert (found.records, found.identical, found.detections, found.remarks) == (9, 9, (3,), 1)
    assert runs.asked == [(EXACT, False, ("forward",))]
    assert runs.given[0]["predict"]["scale_factors"].tolist() == [[2.0, 0.5], [0.25, 4.0]]


def test_what_matches_with_deviations_undone_is_a_deviation_and_says_which(attempt):
    found = attempt(Runs({(EXACT, True): verdict(result.MATCH, undone=("D31",))}))
    assert (found.verdict, found.why) == (result.DEVIATION, "`head` differs. Known.")
    assert found.undone == "D31 of docs/deviations.md undone"


def test_a_deviation_of_rounding_is_one_only_where_rounding_is_no_reason(attempt):
    runs = Runs({(EXACT, True): verdict(result.MATCH, undone=("D9",)), (DERIVED, False): verdict(result.MATCH)})
    found = attempt(runs)
    assert (found.verdict, found.tolerance) == (result.MATCH, DERIVED)
    assert runs.asked[-1][:2] == (DERIVED, False)
    found = attempt(Runs({(EXACT, True): verdict(result.MATCH, undone=("D9",))}))
    assert (found.verdict, found.undone) == (result.DEVIATION, "D9 of docs/deviations.md undone")


def test_a_mismatch_says_what_differs_with_and_without_deviations(attempt):
    found = attempt(Runs())
    assert found.verdict == result.MISMATCH
    assert found.why == "`head` differs. Known. With known deviations undone: `head` differs."


def test_exact_only_asks_for_nothing_else(attempt):
    runs = Runs()
    assert attempt(runs, request=replace(REQUEST, exact_only=True)).verdict == result.MISMATCH
    assert {tolerance for tolerance, *_ in runs.asked} == {EXACT}


def test_what_proves_too_little_is_tried_with_all_checks(attempt):
    little = verdict(result.INCOMPARABLE)
    runs = Runs({(EXACT, False): little, (EXACT, True): little})
    found = attempt(runs)
    assert {checks for *_, checks in runs.asked} == {("forward",), ("forward", "loss", "grad")}
    assert (found.verdict, found.why) == (result.INCOMPARABLE, "Too little.")


def test_a_match_without_detections_proves_nothing(attempt):
    found = attempt(Runs({(EXACT, False): verdict(result.MATCH, detections=1), (EXACT, True): verdict(result.MATCH, detections=1)}))
    assert (found.verdict, found.why[:21]) == (result.INCOMPARABLE, "nothing was detected,")


def test_a_model_that_cannot_be_narrow_is_tried_as_it_is(attempt):
    runs = Runs({(EXACT, False): verdict(result.MATCH)})
    found = attempt(runs, Zoo(narrow_fails=NarrowError("no setting")))
    assert (found.verdict, found.width) == (result.MATCH, 1.0)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SideError("legacy", "crashed.", "ValueError: too small"), "The legacy side crashed."),
        (NarrowError("no setting"), "cannot be made narrow: no setting"),
    ],
)
def test_what_fails_in_every_form_is_unsupported(attempt, error, says):
    found = attempt(Runs(), Zoo(narrow_fails=error, wide_fails=error))
    assert (found.verdict, found.why) == (result.UNSUPPORTED, says)


@pytest.mark.parametrize("error", [ConversionError("no rule"), RefusedError("no mmcv")])
def test_what_is_refused_as_it_is_is_not_tried_on(attempt, error):
    found = attempt(Runs(), Zoo(wide_fails=error), replace(REQUEST, narrow=False))
    assert (found.verdict, found.why) == (result.UNSUPPORTED, str(error))


def test_a_crash_of_the_new_side_is_told_and_one_of_the_legacy_side_tries_larger_images(attempt):
    crash = SideError("new", "crashed.", "TypeError: x")
    found = attempt(Runs({(EXACT, False): crash, (EXACT, True): crash}))
    assert (found.verdict, found.why) == (result.UNSUPPORTED, "The new side crashed.")
    other = SideError("legacy", "crashed.", "")
    runs = Runs({(EXACT, False): other, (EXACT, True): other})
    assert attempt(runs).verdict == result.UNSUPPORTED
    assert len(runs.asked) == 4  # two sizes narrow, two as it is


def test_as_a_program_it_reads_a_request_and_writes_a_result(monkeypatch, tmp_path):
    expected = result.Result("a/one.py", "One", result.MATCH)
    monkeypatch.setattr(trying, "attempt", lambda request, folder: expected if request == REQUEST else None)
    monkeypatch.setattr(trying.signal, "signal", lambda *given: None)
    asked, answer = tmp_path / "asked.json", tmp_path / "answer.json"
    asked.write_text(json.dumps(REQUEST.as_plain()))
    trying.main([str(asked), str(answer)])
    assert result.Result.from_dict(json.loads(answer.read_text())) == expected
    with pytest.raises(SystemExit, match="143"):
        trying._stop(15, None)
