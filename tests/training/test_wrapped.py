"""Weights that stand elsewhere than mmengine looks: taken, or refused with a command that mends the file."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from ddq_port.training.loading import weights, wrapped
from ddq_port.training.loading.weights import Fit, WeightsError

from .test_weights import SWIN, filled, initialised, resnet


def begin(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def mended(refused, folder):
    """Run the Python command that a refusal names, and return the file that it writes."""
    line = re.search(r"`(python -c .+)`\.$", str(refused.value))[1]
    subprocess.run(line.replace("python", sys.executable, 1), shell=True, check=True, cwd=folder)
    return folder / "NEW.pth"


@pytest.mark.parametrize("prefix", ["_orig_mod.", "model.", "module._orig_mod.backbone.", "model.backbone.", "a.b.c."])
@pytest.mark.parametrize("under", [None, "state_dict"])
def test_a_backbone_behind_any_prefix_is_taken(tmp_path, prefix, under):
    state = filled(resnet())
    given = begin(prefix, state) | {"head.weight": torch.zeros(2)}
    torch.save(given if under is None else {under: given}, tmp_path / "w.pth")
    found = initialised(resnet(), weights.backbone_init(resnet(), tmp_path / "w.pth"))
    assert all(torch.equal(found[key], state[key]) for key in state if "num_batches" not in key)


@pytest.mark.parametrize(
    "wrap, told",
    [
        (lambda s: {"model": s}, "under `model`, where it is not looked for"),
        (lambda s: {"ckpt": {"net": begin("module.", s)}}, "under `ckpt.net` with `module.` before every name"),
        (lambda s: {"model": begin("backbone.", s), "epoch": 1}, "under `model` with `backbone.` before every name"),
    ],
)
def test_a_backbone_under_another_key_is_refused_and_the_command_mends_it(tmp_path, wrap, told):
    state = filled(resnet())
    torch.save(wrap(state), tmp_path / "w.pth")
    with pytest.raises(WeightsError) as refused:
        weights.backbone_init(resnet(), tmp_path / "w.pth")
    assert told in str(refused.value) and "\n" not in str(refused.value)
    found = initialised(resnet(), weights.backbone_init(resnet(), mended(refused, tmp_path)))
    assert all(torch.equal(found[key], state[key]) for key in state if "num_batches" not in key)


def test_a_swin_behind_a_prefix_that_mmdet_does_not_take_away(tmp_path):
    state = filled(SWIN)
    torch.save(begin("model.backbone.", state), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="with `model.backbone.` before every name") as refused:
        weights.backbone_init(SWIN, tmp_path / "w.pth")
    mended(refused, tmp_path)


def test_a_state_dict_that_is_none_is_no_crash(tmp_path):
    torch.save({"state_dict": None, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="gives 0 of the "):
        weights.backbone_init(resnet(), tmp_path / "w.pth")


@pytest.mark.parametrize(
    "wrap, text",
    [
        (
            lambda s: {"net": s},
            "It holds no weights where mmengine looks.*but under `net`; `ddq-convert convert w.pth ",
        ),
        (lambda s: {"a": {"b": s}}, "but under `a.b`; `ddq-convert convert w.pth NEW.pth` writes them there"),
        (
            lambda s: {"state_dict": begin("_orig_mod.", s)},
            "Its keys begin with `_orig_mod.`, which `ddq-convert convert w.pth NEW.pth` takes away",
        ),
        (
            lambda s: {"state_dict": {key: value for key, value in s.items() if "num_batches" not in key}},
            "Only counters of BatchNorm are missing; `ddq-convert convert w.pth NEW.pth` adds them",
        ),
    ],
)
def test_the_refusal_of_a_detector_names_the_wrapping(wrap, text):
    own = {f"backbone.{index}": (2,) for index in range(6)} | {"backbone.bn.num_batches_tracked": ()}
    content = wrap({key: torch.ones(shape) for key, shape in own.items()})
    fit = Fit.of(own, weights.shapes(weights.state_of(content)))
    assert re.search(text, weights._advice(fit, "w.pth", wrapped.place(content, own)))


@pytest.mark.parametrize(
    "content, path, prefix",
    [
        ({"x": {"k.a": 1}, "state_dict": {"m.k.a": 1, "m.k.b": 1}}, ("state_dict",), "m."),
        ({"net": {"k.a": 1, "k.b": 1}, "state_dict": {"k.a": 1}}, ("net",), ""),
        ({"other": {"k.a": 1, "k.b": 1}, "state_dict": {"k.a": 1, "k.b": 1}}, ("state_dict",), ""),
        ({"ak.a": 1, "ak.b": 1}, None, None),
    ],
)
def test_place(content, path, prefix):
    def tensors(value):
        return {k: tensors(v) for k, v in value.items()} if isinstance(value, dict) else torch.ones(1)

    found = wrapped.place(tensors(content), ["k.a", "k.b"])
    assert found == (None if path is None else wrapped.Place(path, prefix))
