"""MMDetection 3.x against what 2.28.2 computed, recorded in golden files; needs no code of 2.x."""

import json

import pytest

from legacy_adapters import registry
from parity.golden import golden

FILES = {path.stem: path for path in sorted((registry.get("mmdet2").folder / "goldens").glob("*.npz"))}
TRANSFORMERS = {"tiny_deformable", "tiny_deformable_refine", "tiny_deformable_two_stage", "tiny_detr"}


def test_transformers_have_their_files_and_all_are_small():
    assert FILES.keys() >= TRANSFORMERS
    assert sum(path.stat().st_size for path in FILES.values()) < 10e6


@pytest.mark.parametrize("name", sorted(FILES))
def test_recorded_from_mmdet_2(name):
    provenance = golden.load(FILES[name]).provenance
    versions = {module: told["version"] for module, told in provenance["modules"].items()}
    assert versions == {"mmdet": "2.28.2", "mmcv": "1.7.2"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_mmdet_3_matches(parity, name):
    result = parity("check", FILES[name], "--threads", "1", "--json")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    coverage = verdict["coverage"]
    assert verdict["verdict"] == "MATCH" and verdict["accepted"] == verdict["records"] > 1000
    assert coverage["paired_leaf_calls"] == coverage["legacy_leaf_calls"] > 100
    assert coverage["unaccounted"] == [] and coverage["gradients_on_one_side"] == []
    assert all(image["matched"] == image["legacy"] == image["new"] > 0 for image in verdict["detections"])


@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_dropped_elements_are_those_of_2_x(name):
    recorded = golden.load(FILES[name])
    dropped = [key for key in recorded.decisions if key.split("/")[1] == "dropout"]
    assert len(dropped) > 10 and all(key.startswith("train/") for key in dropped)
