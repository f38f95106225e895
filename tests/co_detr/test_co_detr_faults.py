"""The catalogue of faults of Co-DETR; ``DDQ_LEGACY_CODETR_REPO=CODETR python -m tests.co_detr`` plants all of them."""

from __future__ import annotations

from .catalogue import ALL, FAULTS


def test_there_are_enough_faults_and_those_of_the_public_project_are_among_them():
    assert len(FAULTS) == len(ALL) >= 30, "too few, or two have one name"
    assert {"padding_is_no_image", "candidates_of_nms_cut_first", "zero_scores_kept"} <= {*FAULTS}
