"""Runs against the real official code; set DDQ_LEGACY_MAIN_REPO to a checkout of jshilong/DDQ, branch main."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from ..ddq_main.bench import ADAPTER as FAULTY
from ..ddq_main.catalogue import FAULTS
from ..ddq_main.fault import VARIABLE
from ..models import weights_of
from .image_set import write_image_set

REPO = os.environ.get("DDQ_LEGACY_MAIN_REPO", "")
pytestmark = pytest.mark.skipif(not REPO, reason="DDQ_LEGACY_MAIN_REPO is not set (jshilong/DDQ, branch main)")
#: Family -> its layers of class logits, the module in whose place predictions are made up, and the fault that exchanges
#: two labels. What differs of made-up predictions is told at that module: "or what follows".
EXCHANGED = {
    "ddq_fcn": (r"bbox_head\.conv_cls", "bbox_head.conv_cls", "labels_exchanged"),
    "ddq_rcnn": (r"roi_head\.bbox_head\.\d\.fc_cls", "roi_head.bbox_head.1", "labels_exchanged_of_stages"),
}
FAMILIES = tuple(EXCHANGED)


@pytest.fixture
def official(parity: Callable) -> Callable:
    """Return a function that runs a small model of a family of the official repo against the port."""

    def call(family: str, *arguments: object, exit_code: int = 0, variant: str = "tiny") -> dict:
        result = parity("run", "--family", family, "--variant", variant, "--legacy-repo", REPO, *arguments, "--json")
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)

    return call


@pytest.mark.parametrize("family", FAMILIES)
def test_every_record_of_three_images_has_the_same_bits(official: Callable, family: str) -> None:
    verdict = official(family, "--check", "forward,loss,grad,init")
    assert verdict["verdict"] == "MATCH" and verdict["identical"] == verdict["records"] > 5000
    coverage = verdict["coverage"]
    assert coverage["paired_leaf_calls"] == coverage["legacy_leaf_calls"] > 900
    assert coverage["unaccounted"] == [] and coverage["gradients_on_one_side"] == []
    assert coverage["excluded_records"] == 18


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "arguments",
    [
        ("--size", "64x96"),
        ("--size", "64x96,80x64", "--objects", "0,3"),
        ("--size", "64x96", "--objects", "1"),
        ("--size", "96x96", "--objects", "40"),
        ("--size", "48x320", "--objects", "2"),
    ],
    ids=["one_image", "image_without_objects", "one_object", "many_objects", "wide"],
)
def test_edges(official: Callable, family: str, arguments: tuple[str, ...]) -> None:
    verdict = official(family, "--check", "forward,loss,grad", *arguments)
    assert verdict["identical"] == verdict["records"] > 1000


@pytest.mark.parametrize("family", FAMILIES)
def test_training_steps_differ_in_the_rounding_of_learning_rates_alone(official: Callable, family: str) -> None:
    steps = ("--check", "train", "--steps", "3", "--size", "64x96,80x64")
    assert official(family, *steps, "--tolerance", "fixed", "--rtol", "0", "--atol", "0")["verdict"] == "MATCH"
    exact = official(family, *steps, exit_code=1)
    assert exact["first_divergence"]["where"] == "the schedule"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resumed_training_with_rates_that_do_not_round_has_the_same_bits(official: Callable, family: str) -> None:
    steps = ("--check", "train", "--steps", "3", "--resume-at", "1", "--size", "64x96,80x64")
    verdict = official(family, *steps, variant="tiny_shapes")
    assert verdict["identical"] == verdict["records"] > 2000


@pytest.mark.parametrize("family", FAMILIES)
def test_exchanged_labels_of_classes_that_are_never_detected_are_seen(
    official: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    layers, predictor, fault = EXCHANGED[family]
    weights = weights_of("tiny", 0, family, "legacy")
    biases = [name for name in weights if re.fullmatch(layers + "[.]bias", name)]
    for name in biases:
        weights[name][1:] = -30.0
    save_file(weights, tmp_path / "weights.safetensors")
    arguments = ("--check", "forward", "--checkpoint", tmp_path / "weights.safetensors")
    right = official(family, *arguments)
    assert biases and right["verdict"] == "MATCH"
    assert right["labels"]["detected"] == {"legacy": [0], "new": [0]}
    assert right["labels"]["given"] == {"legacy": [0, 1, 2], "new": [0, 1, 2]}
    monkeypatch.setenv(VARIABLE, fault)
    wrong = official(family, *arguments, "--new-adapter", FAULTY, exit_code=1)
    assert wrong["labels"]["detected"] == {"legacy": [0], "new": [0]}
    assert wrong["first_divergence"]["where"] in (*FAULTS[fault].where, predictor)


@pytest.mark.parametrize("family", FAMILIES)
def test_detections_of_image_files_are_the_same(parity: Callable, tmp_path: Path, family: str) -> None:
    annotations, images = write_image_set(tmp_path)
    arguments = ("--family", family, "--variant", "tiny", "--legacy-repo", REPO, "--scale", "96x160", "--json")
    result = parity("eval", "--ann", annotations, "--images", images, *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["verdict"] == "MATCH"
