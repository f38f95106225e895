"""Both sides on a GPU, where there is one: tiny width against mmdet 3.3.0, full width against the official repo."""

import json
import os

import pytest
import torch

from tests.models import GOLDEN

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
REPO = os.environ.get("DDQ_LEGACY_REPO", "")
DERIVED = ("--device", "cuda", "--tolerance", "derived", "--json")


def verdict_of(result, exit_code=0):
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("variant", ["tiny_4scale", "tiny_5scale", "tiny_swinl"])
def test_tiny_width_against_mmdet(parity, variant):
    verdict = verdict_of(parity("run", "--family", "mmdet_ddq", "--variant", variant, *DERIVED))
    assert verdict["verdict"] == "MATCH" and verdict["provenance"]["new"]["device"] == "cuda"


def test_golden_recorded_on_a_cpu(parity):
    assert verdict_of(parity("check", GOLDEN, "--device", "cuda", "--json"))["verdict"] == "MATCH"


def test_planted_error_is_named(parity, planted):
    result = parity("run", "--family", "mmdet_ddq", "--variant", "tiny_4scale", *DERIVED,
                    "--new-adapter", planted("eps_layer_norm"))  # fmt: skip
    assert verdict_of(result, exit_code=1)["first_divergence"]["where"] == "decoder.norm"


@pytest.mark.skipif(not REPO, reason="DDQ_LEGACY_REPO is not set (jshilong/DDQ, branch ddq_detr)")
@pytest.mark.parametrize("variant", ["r50_4scale", "r50_5scale", "swinl_4scale"])
def test_full_width_against_the_official_repo(parity, variant):
    arguments = ("--family", "ddq_detr", "--variant", variant, "--legacy-repo", REPO, "--size", "800x1333")
    assert verdict_of(parity("run", *arguments, *DERIVED))["verdict"] == "MATCH"
