"""Co-DETR against what the official code computed, recorded in golden files; needs no legacy code.

Recorded with ``tools/record_co_detr_goldens.sh`` from a checkout of Sense-X/Co-DETR.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from legacy_adapters import registry
from parity.golden import golden

#: Of each small model the taps of its decisions and draws.
CASES = {"tiny_co_dino": {"detections", "nms", "soft_nms", "match", "levels", "assigned", "labels", "noise"}}


def _file(variant: str) -> Path:
    return Path(registry.get("co_detr").folder, "goldens", f"{variant}.npz")


@pytest.mark.parametrize("variant", CASES)
def test_detector_matches_and_all_of_it_is_exercised(parity, variant):
    recorded = golden.load(_file(variant))
    versions = {name: module["version"] for name, module in recorded.provenance["modules"].items()}
    assert versions == {"mmdet": "2.25.3", "mmcv": "1.7.2", "projects": ""}
    assert recorded.provenance["commit"] == "2665352"
    decided = {key.split("/")[1] for key in recorded.decisions if not key.startswith("basis/")}
    assert decided == {*CASES[variant], "result"}
    result = parity("check", _file(variant), "--threads", "1", "--json")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["verdict"] == "MATCH" and verdict["accepted"] == verdict["records"] > 4000
    coverage = verdict["coverage"]
    assert coverage["paired_leaf_calls"] == coverage["legacy_leaf_calls"] > 900
    assert coverage["unaccounted"] == [] and coverage["gradients_on_one_side"] == []
    assert verdict["labels"]["given"] == {"legacy": [0, 1, 2], "new": [0, 1, 2]}
