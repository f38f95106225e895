"""DDQ FCN and DDQ R-CNN against what the official code computed, recorded in golden files; needs no legacy code.

Recorded with ``tools/record_ddq_main_goldens.sh`` from a checkout of jshilong/DDQ, branch main.
"""

from __future__ import annotations

import json

import pytest

from legacy_adapters import registry
from parity.golden import golden

#: Of each family: least number of records and of leaf calls, the taps of its decisions, labels of made-up predictions.
CASES = {
    "ddq_fcn": (1500, 550, {"detections", "nms", "match", "labels"}, [0, 1, 2]),
    "ddq_rcnn": (2000, 700, {"detections", "nms", "match", "levels", "labels"}, [0, 1, 2]),
}


@pytest.mark.parametrize("family", CASES)
def test_detector_matches_and_all_of_it_is_exercised(parity, family):
    records, calls, taps, labels = CASES[family]
    file = registry.get(family).demo
    recorded = golden.load(file)
    versions = {name: module["version"] for name, module in recorded.provenance["modules"].items()}
    assert versions == {"mmdet": "2.22.0", "mmcv": "1.4.7", "projects": ""}
    assert recorded.provenance["commit"] == "de9331e"
    decided = {key.split("/")[1] for key in recorded.decisions if not key.startswith("basis/")}
    assert decided == {*taps, "result"}
    result = parity("check", file, "--threads", "1", "--json")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["verdict"] == "MATCH" and verdict["accepted"] == verdict["records"] > records
    coverage = verdict["coverage"]
    assert coverage["paired_leaf_calls"] == coverage["legacy_leaf_calls"] > calls
    assert coverage["unaccounted"] == [] and coverage["gradients_on_one_side"] == []
    assert not any(coverage["losses_only_on"].values()) and recorded.coverage["without_gradient"] == []
    assert verdict["labels"]["detected"]["legacy"] == verdict["labels"]["detected"]["new"] == [0, 1, 2]
    assert verdict["labels"]["given"] == {"legacy": labels, "new": labels}
