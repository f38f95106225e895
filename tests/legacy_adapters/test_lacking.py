"""Operators that a stand-in lacks are found in a model's code before it is run, and refused when they are called."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from ddq_port.ops import mmcv_ext
from legacy_adapters import contract, lacking, standin
from legacy_adapters.launch import RefusedError, describe_side

#: A file of a code base that uses an extension, as mmcv's files of operators do.
CLIENT = """
import extension
import torch

class Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return extension.bend(x)

bend = Function.apply

def stretch(x):
    return extension.stretch(x)

def present(x):
    return extension.present(x)

class Bend(torch.nn.Module):
    def forward(self, x):
        return bend(x)
"""
#: A code base's own file.
OWN = """
import client
import torch
from client import Bend, present, stretch

class Plain(torch.nn.Module):
    def forward(self, x):
        return present(x) if isinstance(x, Bend) else x

class Direct(torch.nn.Module):
    def forward(self, x):
        return [stretch(one) for one in x]

class ByModule(torch.nn.Module):
    def forward(self, x):
        return client.stretch(x)

class Derived(Direct):
    pass

class Sampler:
    def sample(self, x):
        return stretch(x)

class Holder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = dict(samplers=[Sampler()])
"""


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A code base whose extension has ``present`` and lacks ``bend`` and ``stretch``."""
    extension = ModuleType("extension")
    extension.present = abs
    extension.__dict__[lacking.LACKING] = {name: f"`{name}` is not there; get it." for name in ("bend", "stretch")}
    monkeypatch.setitem(sys.modules, "extension", extension)
    for name, code in (("client", CLIENT), ("own", OWN)):
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(code, module.__dict__)
    return module


@pytest.mark.parametrize("name", ["Direct", "ByModule", "Derived", "Holder"])
def test_operator_that_code_calls_is_found(own: ModuleType, name: str) -> None:
    model = torch.nn.Sequential(torch.nn.ReLU(), getattr(own, name)())
    caller = "Sampler" if name == "Holder" else name
    assert lacking.first_lacking(model) == f"{caller} calls what is lacking: `stretch` is not there; get it."


def test_operator_of_an_autograd_function_is_found(own: ModuleType) -> None:
    assert lacking.first_lacking(own.Bend()) == "Bend calls what is lacking: `bend` is not there; get it."


def test_class_that_is_only_named_calls_nothing(own: ModuleType) -> None:
    assert lacking.first_lacking(torch.nn.Sequential(own.Plain(), torch.nn.Linear(2, 2))) is None


def legacy_extension() -> ModuleType:
    module = ModuleType(standin.EXTENSION_NAME)
    standin.StandinLoader().exec_module(module)
    return module


@pytest.mark.parametrize("extension", [mmcv_ext, legacy_extension()], ids=["new", "legacy"])
def test_lacking_operator_is_noted_and_its_call_is_a_refusal(extension: ModuleType) -> None:
    operator = extension.furthest_point_sampling_forward
    advice = extension.__dict__[lacking.LACKING]["furthest_point_sampling_forward"]
    assert "`furthest_point_sampling_forward`" in advice and "[mmcv]" in advice
    with pytest.raises(NotImplementedError) as caught:
        operator(1)
    refused = contract.refusal(caught.value)
    assert isinstance(refused, contract.AdapterError) and str(refused) == advice


def test_other_errors_are_no_refusals() -> None:
    error = NotImplementedError("of the model's own")
    assert contract.refusal(error) is error


def test_detectors_of_the_installed_code_base_lack_nothing() -> None:
    # those whose modules are operators themselves apart, which count by their instances
    import mmdet.models  # noqa: F401

    extension = sys.modules[standin.EXTENSION_NAME]
    if lacking.LACKING not in extension.__dict__:
        pytest.skip("mmcv is compiled here")
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("mmdet.models.")]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    classes = {one for one in classes if one.__module__.startswith("mmdet.")}
    assert len(classes) > 300
    assert [one for one in classes if lacking._Search([extension]).of_class(one)] == []


ADAPTER = """
import ddq_port
import torch
from legacy_adapters.bases.module import ModuleAdapter
from mmcv.ops import RoIAlignRotated

class Pooled(ModuleAdapter):
    def build(self, options, device):
        return torch.nn.Sequential(torch.nn.Linear(2, 2), RoIAlignRotated(2, 1.0))

ADAPTER = Pooled()
"""


def test_model_that_will_run_is_refused_and_one_that_is_converted_is_not(tmp_path) -> None:
    adapter = tmp_path / "pooled.py"
    adapter.write_text(ADAPTER)
    where = tmp_path, sys.executable, 120.0, False
    assert list(describe_side("new", adapter, {}, *where).layout) == ["0.weight", "0.bias"]
    with pytest.raises(RefusedError) as caught:
        describe_side("new", adapter, {}, *where, runs=True)
    said = str(caught.value)
    assert said.startswith(f"The model of {adapter} cannot be run, for its RoIAlignRotated calls what is lacking: ")
    assert "`roi_align_rotated_forward`" in said and "[mmcv]" in said and "\n" not in said
