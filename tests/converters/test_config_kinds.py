"""What differs between two configs, and what is said of it: as plain data that JSON can hold, and as lines."""

from __future__ import annotations

import json
import math

import pytest

from converters.cli import render_configs
from converters.configs.differing import gaps
from converters.configs.kinds import ABSENT, Comparison, Context, Difference, Remark, Setting, plain


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: (2, [3])}, {"1": [2, [3]]}), (math.inf, "inf"), (-math.inf, "-inf"), (math.nan, "nan"), (None, None), (True, True),
        (1.5, 1.5), ("a", "a"), (1 + 2j, "(1+2j)"),
    ],
)  # fmt: skip
def test_values_become_what_json_can_hold(value, expected):
    found = plain(value)
    assert found == expected and json.loads(json.dumps(found)) == expected


def test_a_difference_tells_each_side_that_has_a_value():
    one = Difference("model.a", "model.b", Setting(math.inf), Setting(ABSENT), "more of it", "model", ("model.c",), written=(1, 2))
    told = dict(key="model.a", also=["model.c"], old_key="model.b", group="model", effect="more of it", written=[1, 2])
    assert one.as_dict() == {**told, "old": dict(value="inf", is_default=False)}
    other = Difference("a", "b", Setting(1, True), Setting(2), "", "model")
    assert other.as_dict()["old"] == dict(value=1, is_default=True) and "written" not in other.as_dict()


def test_what_is_absent_says_so_and_a_remark_is_plain():
    assert repr(ABSENT) == "absent"
    assert Remark("a", (1,), "why").as_dict() == dict(key="a", value=[1], why="why")
    assert Remark("a", ABSENT, "why").as_dict() == dict(key="a", why="why")


NOTHING = Context(defaults=lambda path, kind: {}, implied=lambda path: {})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([dict(type="A"), dict(type="B")], [dict(type="A")], [("1", dict(type="B"), ABSENT)]),
        (
            [dict(type="A")],
            [dict(type="C"), dict(type="A"), dict(type="D")],
            [("0", ABSENT, dict(type="C")), ("2", ABSENT, dict(type="D"))],
        ),
        (
            [dict(type="A", x=1), dict(type="B")],
            [dict(type="C", x=1), dict(type="D"), dict(type="E")],
            [
                ("0", dict(type="A", x=1), ABSENT),
                ("1", dict(type="B"), ABSENT),
                ("0", ABSENT, dict(type="C", x=1)),
                ("1", ABSENT, dict(type="D")),
                ("2", ABSENT, dict(type="E")),
            ],
        ),
        (
            [dict(type="A"), dict(type="B", x=1)],
            [dict(type="B", x=2), dict(type="A")],
            [("", ["A", "B"], ["B", "A"]), ("0.x", 1, 2)],
        ),
        (True, 1, [("", True, 1)]),
        (1, 1.0, []),
        (0, False, [("", 0, False)]),
        ("1", 1, [("", "1", 1)]),
        ([1, dict(a=True)], [1, dict(a=True)], []),
        ([1, dict(a=True)], [1, dict(a=1)], [("", [1, dict(a=True)], [1, dict(a=1)])]),
        ([1, dict(a=1)], [1, dict(a=1, b=None)], [("", [1, dict(a=1)], [1, dict(a=1, b=None)])]),
        ((1, 2), [1, 2], []),
    ],
)
def test_lists_are_compared_part_by_part_and_truth_is_no_number(old, new, expected):
    found = list(gaps(old, new, NOTHING))
    assert [(gap.path, gap.old.value, gap.new.value) for gap in found] == expected


def lines_of(*differences, remarks=()):
    return render_configs.comparison_lines(Comparison(differences, remarks, 5))


def of(old, new, **more):
    return Difference(
        **{**dict(key="a.b", old_key="a.b", old=Setting(old), new=Setting(new), effect="", group="model"), **more}
    )


LONG = [f"class {number}" for number in range(10)]


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (of(1, 2), ["  a.b", "    old: 1", "    new: 2", "    What it does to results is not known."]),
        (
            of(1, ABSENT, old_key="", effect="It ends early."),
            ["  a.b", "    old: 1  [no such key in the old config]", "    new: absent", "    It ends early."],
        ),
        (of(501, 500, old_key="c", written=500), ["    old: 501  [c = 500]"]),
        (of(dict(type="A", x=[1, "b"]), (), old_key="c"), ["    old: dict(type='A', x=[1, 'b'])  [c]", "    new: []"]),
        (
            of(LONG, [*LONG[:3], "other", *LONG[4:]]),
            ["    old: 10 items, of which 3: 'class 3'", "    new: 10 items, of which 3: 'other'"],
        ),
        (of(LONG[:9], LONG), ["    old: 9 items", "    new: 10 items, of which 9: 'class 9'"]),
        (
            of(LONG, [*reversed(LONG)]),
            ["    new: 10 items, of which 0: 'class 9', 1: 'class 8', 2: 'class 7', 3: 'class", "      6' and 6 more"],
        ),
        (of(LONG, 3), ["    new: 3"]),
    ],
)
def test_both_values_of_a_setting_are_shown_and_of_long_lists_what_differs(difference, expected):
    lines = lines_of(difference)
    assert lines[0] == "Model" and lines[-1] == "DIFFERENT: 1 setting differs in meaning (1 of model); 5 compared"
    assert [line for line in lines if line in expected] == expected


def test_a_comparison_is_plain_data():
    found = Comparison((of(1, 2),), (Remark("c", 3, "why"),), 5)
    told = render_configs.as_dict(found)
    assert told == dict(
        same=False,
        compared=5,
        differences=[found.differences[0].as_dict()],
        remarks=[dict(key="c", value=3, why="why")],
    )
    assert render_configs.as_dict(Comparison((), (), 5))["same"] is True
