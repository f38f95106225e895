"""How two lists of class names differ, in words, and what a checkpoint calls its classes."""

import json

import pytest

from ddq_port.data.classes import NamesError, difference, listed, of_file, of_meta, resembling


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (["a", "b"], ("a", "b"), None),
        (["a", "b", "c"], ["a", "c", "b"], "another order, class 1 is `b` in the first and `c` in the second"),
        (["Cup", "fork"], ["cup", "fork"], "`Cup` and `cup` differ only in upper and lower case"),
        (["cup", "fork "], ["cup", "fork"], "`fork ` and `fork` differ only in white space"),
        (["traffic_light"], ["Traffic light"], "differ only in case, white space or punctuation"),
        (["a", "b"], ["a", "b", "c"], "the first lacks `c`"),
        (["a", "b", "c"], ["c"], "the second lacks `a`, `b`"),
        (["a", "b"], ["a", "d"], "class 1 is `b` in the first and `d` in the second"),
    ],
)
def test_difference(first, second, says):
    found = difference(first, second)
    assert found is None if says is None else says in found


def test_long_lists_are_cut():
    assert listed(list("abcdefg")) == "a, b, c, d, e, f, g"
    assert listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"


def test_resembling():
    assert resembling("Cup", ["fork", "cup"]) == "`cup`, which differs only in upper and lower case"
    assert resembling("cup", ["fork", "cups"]) is None


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        (None, None),
        ({}, None),
        ({"dataset_meta": {"classes": ("a", "b"), "palette": [1]}}, ("a", "b")),
        ({"dataset_meta": {"CLASSES": ["a"]}}, ("a",)),
        ({"CLASSES": ("a", "b")}, ("a", "b")),
        ({"dataset_meta": [{"classes": ["a"]}, {"classes": ["b"]}]}, None),
        ({"dataset_meta": {"classes": "ab"}}, None),
        ({"CLASSES": None, "dataset_meta": None}, None),
    ],
)
def test_names_in_a_checkpoint(meta, names):
    assert of_meta(meta) == names


def test_a_file_that_changes_is_read_again(tmp_path):
    file = tmp_path / "ann.json"
    for names in (["a"], ["a", "b", "cc"]):
        file.write_text(json.dumps(dict(categories=[dict(id=at, name=name) for at, name in enumerate(names)])))
        assert of_file(file) == tuple(names)
    file.write_text("[" * 100_000)
    with pytest.raises(NamesError, match="RecursionError"):
        of_file(file)
    with pytest.raises(NamesError, match="there is no such file"):
        of_file(tmp_path / "none.json")
