"""What is said of configs is plain data that JSON can hold."""

from __future__ import annotations

import json
import math

import pytest

from converters.configs.kinds import ABSENT, Difference, Remark, Setting, plain


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
