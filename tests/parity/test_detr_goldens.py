"""DETR and Deformable DETR of MMDetection 3.x against what 2.28.2 computed, recorded in golden files.

Recorded with ``tools/record_mmdet2_goldens.sh``. Three images, dropout on: the layout of 3.x rounds otherwise.
"""

import json

import pytest

from parity.golden import golden

from .test_mmdet2_goldens import FILES

CASES = ["deformable", "deformable_refine", "deformable_two_stage", "detr"]


@pytest.mark.parametrize("case", CASES)
def test_transformer_matches_under_the_dropped_elements_of_2_x(parity, case):
    recorded = golden.load(FILES[case])
    versions = {module: told["version"] for module, told in recorded.provenance["modules"].items()}
    assert versions == {"mmdet": "2.28.2", "mmcv": "1.7.2"}
    drawn = {key.split("/")[0] for key in recorded.decisions if key.split("/")[1] == "dropout"}
    assert drawn == {"train"}
    result = parity("check", FILES[case], "--threads", "1", "--json")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["verdict"] == "MATCH" and verdict["accepted"] == verdict["records"] > 1500
    coverage = verdict["coverage"]
    assert coverage["paired_leaf_calls"] == coverage["legacy_leaf_calls"] > 200
    assert coverage["unaccounted"] == [] and coverage["gradients_on_one_side"] == []
    assert not any(coverage["losses_only_on"].values())
    images = verdict["detections"]
    assert len(images) == 3 and all(image["matched"] == image["legacy"] == image["new"] == 20 for image in images)
