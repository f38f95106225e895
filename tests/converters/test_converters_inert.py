"""What a pickle holds beside tensors: read out where it is plain, remembered where it is not, never run."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub

from converters.errors import CheckpointError
from converters.formats.plain import plain
from converters.formats.stand_ins import Dtype, Foreign, NumpyArray
from converters.formats.stored import StoredTensor
from converters.reading import checkpoint

FORMS = [(True, 2), (True, 3), (True, 4), (True, 5), (False, 2), (False, 4)]


@pytest.fixture(params=FORMS, ids=lambda form: f"{'zip' if form[0] else 'old'}-protocol{form[1]}")
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return a function that saves a thing beside a state dict and reads the file."""
    new, protocol = request.param

    def save_and_read(thing: Any) -> checkpoint.Checkpoint:
        content = {"state_dict": {"x": torch.ones(2)}, "meta": {"thing": thing}, "thing": thing}
        path = tmp_path / "a.pth"
        torch.save(content, path, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
        return checkpoint.read(path)

    return save_and_read


@pytest.mark.parametrize(
    "thing",
    [
        None,
        True,
        -(2**70),
        0.1,
        float("inf"),
        1 - 2j,
        "text \N{SNOWMAN} \N{GRINNING FACE}",
        b"\x00\xffbytes",
        (),
        (1, (2, 3)),
        [1, [2, []]],
        {"a": {"b": 1}, 3: "c", (1, "d"): None, None: 0, 2.5: 1},
        {1, 2},
        frozenset({1, 2}),
        OrderedDict(b=1, a=2),
        Counter("aab"),
    ],
    ids=repr,
)
def test_plain_things_are_read(read: Any, thing: Any) -> None:
    found = read(thing)
    assert found.content["thing"] == thing and found.foreign == ()


def test_containers_that_become_plain_ones(read: Any) -> None:
    found = read([bytearray(b"ab"), torch.Size([2, 3]), defaultdict(list, {"a": [1]})])
    assert found.content["thing"] == [b"ab", (2, 3), {"a": [1]}]


def test_the_same_thing_stays_the_same(read: Any) -> None:
    shared = [1]
    found = read([shared, shared]).content["thing"]
    assert found[0] is found[1]


def test_a_dtype_is_known_by_name(read: Any) -> None:
    found = read(torch.bfloat16).content["thing"]
    assert isinstance(found, Dtype) and found.name == "bfloat16"


@pytest.mark.parametrize(
    "kind, value",
    [(kind, 3) for kind in ("float64", "float32", "float16", "int64", "int32", "int8", "uint16", "uint8")]
    + [("bool_", True), ("complex64", 1 + 2j)],
)
def test_numbers_of_numpy_are_read(read: Any, kind: str, value: complex) -> None:
    found = read(getattr(np, kind)(value))
    assert found.content["thing"] == value and type(found.content["thing"]) in (int, float, bool, complex)
    assert found.foreign == ()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(12, dtype=np.int16).reshape(2, 3, 2).transpose(2, 0, 1),
        np.zeros((0, 3), np.float32),
        np.array(2.5),
        np.array([True, False]),
        np.arange(10)[::2],
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_of_numpy_are_read(tmp_path: Path, array: np.ndarray) -> None:
    content = {"state_dict": {"x": torch.ones(1)}, "a": array}
    for new, protocol in FORMS:
        if protocol == 5:
            continue  # there numpy describes arrays in another way; torch writes protocol 2
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new, pickle_protocol=protocol)
        found = checkpoint.read(tmp_path / "a.pth").content["a"]
        assert isinstance(found, NumpyArray) and isinstance(found.values, StoredTensor)
        assert found.values.shape == array.shape and found.values.dtype == str(array.dtype)
        assert np.array_equal(found.values.to_torch().numpy(), array)
        assert plain({"palette": found}).value == {"palette": array.tolist()}


@pytest.mark.parametrize(
    "array",
    [np.array([None, "a"]), np.array(["text"]), np.array(["2020-01-01"], "M8[D]"), np.arange(3, dtype=">i4")],
    ids=lambda array: str(array.dtype),
)
def test_other_arrays_stay_inert(read: Any, array: np.ndarray) -> None:
    found = read([array]).content["thing"][0]
    assert isinstance(found, Foreign) and getattr(found, "values", None) is None


def test_history_of_mmengine(read: Any) -> None:
    """A training's message hub: its numbers are there, its functions are names."""
    buffer = HistoryBuffer()
    for value in (3.0, 2.0, 1.5):
        buffer.update(value, 2)
    found = read({"loss": buffer})
    inert = found.content["thing"]["loss"]
    assert inert.name == "mmengine.logging.history_buffer.HistoryBuffer"
    assert inert.state["max_length"] == 1000000
    if isinstance(inert.state["_log_history"], NumpyArray):  # not in protocol 5
        assert inert.state["_log_history"].values.tolist() == [3.0, 2.0, 1.5]
        assert inert.state["_count_history"].values.tolist() == [2, 2, 2]
    assert "mmengine.logging.history_buffer.HistoryBuffer" in found.foreign
    assert "thing" in found.meta and found.meta["thing"] == {}


def test_message_hub_of_mmengine(read: Any) -> None:
    hub = MessageHub("reader")
    hub.update_scalar("train/loss", 0.5)
    hub.update_info("epoch", 7)
    found = read(hub.state_dict()).content["thing"]
    assert plain(found["runtime_info"]).value == {"epoch": 7}
    assert isinstance(found["log_scalars"]["train/loss"], Foreign)


def test_config_dicts_become_plain_in_meta(read: Any) -> None:
    found = read(ConfigDict(a=1, b=dict(c=[1, dict(d=2)]), e=ConfigDict()))
    assert found.content["thing"].name == "mmengine.config.config.ConfigDict"
    assert found.meta["thing"] == {"a": 1, "b": {"c": [1, {"d": 2}]}, "e": {}}


class Bag(list):
    """A list of another class."""


class Thing:
    """An object with a state."""

    def __init__(self) -> None:
        self.size = 3


class Made:
    """An object that is made by a call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Made, (1, "a"), {"state": True}


def test_what_foreign_objects_remember(read: Any) -> None:
    bag, thing, made, named = read([Bag([1, 2]), Thing(), Made(), Thing]).content["thing"]
    module = Thing.__module__
    assert (bag.name, list(bag.items)) == (f"{module}.Bag", [1, 2])
    assert (thing.name, thing.args, thing.state) == (f"{module}.Thing", (), {"size": 3})
    assert (made.name, made.args, made.state) == (f"{module}.Made", (1, "a"), {"state": True})
    assert (named.name, named.args) == (f"{module}.Thing", None)
    assert repr(thing) == f"Foreign({module}.Thing)"


def test_what_is_plain() -> None:
    shared: list[Any] = [1]
    value = {"a": shared, "b": shared, "c": (1, None, "x"), 1: 2, "d": {3}, "e": Foreign("m.f"), "f": b"x", "g": 1j}
    assert plain(value).value == {"a": [1], "b": [1], "c": (1, None, "x")}
    assert plain("half a \ud800").value == "half a \\ud800"
    assert plain(Foreign("m.f", (1,))).value is None
    deep: Any = {}
    for _ in range(100):
        deep = {"in": deep}
    kept, depth = plain(deep).value, 0
    while kept:
        kept, depth = kept["in"], depth + 1
    assert depth == 63
    with pytest.raises(CheckpointError, match="unfold to more than 500000"):
        plain(["x" * 1000] * 1000)


@pytest.mark.parametrize(
    "name, tensor", [("attributes", torch.ones(3)), ("parameter", torch.nn.Parameter(torch.ones(3)))]
)
def test_attributes_of_tensors_are_left_out(read: Any, name: str, tensor: torch.Tensor) -> None:
    tensor.note = "hung on by somebody"
    found = read(tensor)
    assert found.content["thing"].tolist() == [1.0, 1.0, 1.0] and found.foreign == ()
