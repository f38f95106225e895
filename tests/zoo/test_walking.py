"""A walk through a zoo tries what was not tried, each config in a process that cannot hold it up, and tells all."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from parity.zoo import result, table, walking
from parity.zoo.request import Request
from parity.zoo.result import Result

REQUEST = Request("mmdet2", "repo", "a/one.py", "One OneHead", True, ("forward",), 0, 1, 60.0)


@pytest.fixture
def walk(tmp_path, monkeypatch):
    """Return a function that walks, and gives the results and the names of what was tried."""
    monkeypatch.setattr(walking, "_MODULE", "tests.zoo.child")
    monkeypatch.setenv("ZOO_CALLS", str(tmp_path / "calls"))

    def run(*requests: Request, limit: float = 30.0) -> tuple[tuple[Result, ...], list[str]]:
        (tmp_path / "calls").write_text("")
        found = walking.walk(requests, tmp_path, limit, lambda *told: None)
        return found, (tmp_path / "calls").read_text().split()

    return run


def test_what_was_tried_is_not_tried_again(walk):
    two = replace(REQUEST, name="a/two.py")
    first, tried = walk(REQUEST)
    assert [one.verdict for one in first] == [result.MATCH] and tried == ["a/one.py"]
    again, tried = walk(REQUEST, two)
    assert again[0] == first[0] and tried == ["a/two.py"]


def test_another_question_is_asked_anew(walk):
    walk(REQUEST)
    assert walk(replace(REQUEST, checks=("forward", "loss")))[1] == ["a/one.py"]


def test_a_broken_result_is_no_result(walk, tmp_path):
    walk(REQUEST)
    (tmp_path / "results" / "a__one.json").write_text("{")
    assert walk(REQUEST)[1] == ["a/one.py"]


def test_what_takes_too_long_or_fails_is_told_and_tried_again(walk):
    requests = replace(REQUEST, name="slow.py"), replace(REQUEST, name="broken.py")
    found, tried = walk(*requests, limit=0.7)
    assert [one.verdict for one in found] == [result.TIMEOUT, result.ERROR]
    assert "--limit" in found[0].why and "a bug of its own" in found[1].why
    assert walk(*requests, limit=0.7)[1] == tried


def test_what_does_not_end_when_asked_to_is_killed(walk, monkeypatch, tmp_path):
    monkeypatch.setattr(walking, "_PATIENCE", 0.2)
    (found,), _ = walk(replace(REQUEST, name="slow_and_stubborn.py"), limit=1.5)
    assert found.verdict == result.TIMEOUT
    number = int((tmp_path / "logs" / "slow_and_stubborn.log").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


@pytest.mark.parametrize("change", [dict(more=1), dict(name=None)], ids=["unknown", "missing"])
def test_a_result_has_the_fields_of_this_version(change):
    data = {name: value for name, value in {**MATCHING.as_dict(), **change}.items() if value is not None}
    with pytest.raises(TypeError):
        Result.from_dict(data)
    assert Result.from_dict(MATCHING.as_dict()) == MATCHING


def test_of_what_was_not_compared_there_are_no_figures():
    told = table.lines(Result("a/one.py", "One", result.UNSUPPORTED, "it is given proposals"))
    assert [line.split() for line in told] == [["UNSUPPORTED", "a/one.py"], ["it", "is", "given", "proposals"]]


def test_what_cannot_be_tried_starts_nothing(walk):
    (found,), tried = walk(replace(REQUEST, lacking="it is given proposals"))
    assert (found.verdict, found.why, tried) == (result.UNSUPPORTED, "it is given proposals", [])


MATCHING = Result("a/one.py", "One", result.MATCH, tolerance="exact", records=9, identical=9, detections=(5,))
DEVIATING = MATCHING.but(verdict=result.DEVIATION, undone="D31 undone", why="differs in NMS")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([result.MATCH, result.UNSUPPORTED], result.MATCH),
        ([result.DEVIATION], result.MATCH),
        ([result.MATCH, result.MISMATCH, result.ERROR], result.MISMATCH),
        ([result.MATCH, result.TIMEOUT], result.INCOMPARABLE),
        ([result.UNSUPPORTED], result.INCOMPARABLE),
        ([result.INCOMPARABLE], result.INCOMPARABLE),
    ],
)
def test_the_closing_line_never_says_more_than_was_seen(verdicts, expected):
    results = [MATCHING.but(verdict=one, architecture=str(number)) for number, one in enumerate(verdicts)]
    assert table.verdict(results) == expected
    assert table.closing_line(results).startswith(f"{expected} ")


def test_each_architecture_counts_once():
    results = [MATCHING, MATCHING.but(name="a/two.py"), MATCHING.but(architecture="Two", verdict=result.UNSUPPORTED)]
    assert table.closing_line(results) == "MATCH 1 of 2 architectures; of 3 configs 2 match, 1 not supported"


def test_lines_fit_a_terminal_and_tell_what_was_undone():
    told = table.lines(DEVIATING.but(why="a long reason " * 20))
    assert max(map(len, told)) <= 80
    assert "D31 undone" in " ".join(told)
    assert "not supported" not in table.markdown([DEVIATING]) and "D31 undone; differs in NMS" in table.markdown([DEVIATING])
