"""The stand-ins of both sides compute what mmcv's compiled operators were recorded to compute, bit for bit."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddq_port.ops import mmcv_ext
from legacy_adapters import standin

FOLDER = Path(__file__).parents[1] / "golden" / "operators"
CASES = {
    (path.stem, name.split("/")[0]): path
    for path in sorted(FOLDER.glob("*.npz"))
    for name in np.load(path).files
    if name.endswith("/operator")
}


@pytest.fixture(scope="module", params=["new", "legacy"])
def extension(request: pytest.FixtureRequest) -> ModuleType:
    """The module that stands in for ``mmcv._ext`` on one side."""
    if request.param == "new":
        return mmcv_ext
    module = ModuleType(standin.EXTENSION_NAME)
    standin.StandinLoader().exec_module(module)
    return module


def entries(case: tuple[str, str]) -> dict[str, Any]:
    """Return what a golden file holds of a case."""
    with np.load(CASES[case]) as data:
        start = f"{case[1]}/"
        return {name[len(start) :]: data[name] for name in data.files if name.startswith(start)}


def parts(held: dict[str, Any], kind: str) -> dict[str, Any]:
    return {name[len(kind) + 1 :]: value for name, value in held.items() if name.startswith(f"{kind}.")}


def same_bits(found: Tensor, expected: np.ndarray) -> bool:
    return found.numpy().tobytes() == expected.tobytes() and tuple(found.shape) == expected.shape


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_equals_the_compiled_operator(extension: ModuleType, case: tuple[str, str]) -> None:
    held = entries(case)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in parts(held, "given").items()}
    numbers = {name: value.item() for name, value in parts(held, "number").items()}
    returned = getattr(extension, str(held["operator"]))(**tensors, **numbers)
    if "returned" in held:
        groups = isinstance(returned, list)
        flat = [place for group in returned for place in (*group, -1)] if groups else returned.tolist()
        assert flat == held["returned"].tolist()
    for name, expected in parts(held, "written").items():
        if case[1].startswith("gaussian"):  # C's exponential has another last bit for a few numbers of a thousand
            assert torch.allclose(tensors[name], torch.from_numpy(expected), rtol=0, atol=2.0**-22, equal_nan=True)
            assert float((tensors[name].numpy() == expected).mean()) > 0.99
        else:
            assert same_bits(tensors[name], expected), name


def test_every_family_was_recorded() -> None:
    operators = {str(entries(case)["operator"]) for case in CASES}
    assert operators == {
        "deform_conv_backward_input", "deform_conv_forward", "modulated_deform_conv_backward",
        "modulated_deform_conv_forward", "nms_match", "roi_align_backward", "roi_align_forward", "softnms",
    }  # fmt: skip
    assert len(CASES) > 50


def test_operators_of_both_sides_take_the_same_arguments() -> None:
    for path, names in standin.SHARED.items():
        shared = importlib.import_module(f"ddq_port.ops.{Path(path).stem}")
        assert all(getattr(shared, name) is getattr(mmcv_ext, name) for name in names)
    for name in ("nms", "nms_match", "softnms"):
        reference = getattr(standin.nms if name == "nms" else standin.softnms, name)
        own = getattr(mmcv_ext, name)
        assert own is not reference
        assert [*inspect.signature(own).parameters] == [*inspect.signature(reference).parameters]
