"""Mistakes of a migration are seen and named against recorded numbers of MMDetection 2.28.2: a few of the catalogue.

``DDQ_MMDET2_REPO=FOLDER python -m tests.mistakes`` makes all of them, beside the code of 2.x.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest

from parity.golden import golden
from parity.runs import capture as golden_runs
from parity.sides.settings import Sources
from parity.sides.sides import prepare

from ..warm.execute import in_forks
from .bench import ADAPTER, MACHINE, NAMED, Finding
from .catalogue import ALL, MISTAKES
from .mistake import IMAGES, PASS, STEPS, VARIABLE

GOLDENS = Path(__file__).parents[1] / "golden" / "mmdet2"
#: Of the backbone, of targets and losses, of decisions, of an operator.
CHOICE = ("norm_eps", "positive_threshold", "focal_alpha", "nms_threshold", "roi_not_aligned")


def test_there_are_enough_mistakes_of_every_setting():
    assert len(MISTAKES) == len(ALL), "two mistakes have one name"
    counts = Counter(mistake.setting for mistake in ALL)
    assert len(ALL) >= 60 and counts[PASS] >= 40 and counts[STEPS] >= 10 and counts[IMAGES] >= 6
    assert all((mistake.change is None) != (mistake.adapt is None) for mistake in ALL)


@pytest.mark.parametrize("name", CHOICE)
def test_mistake_is_seen_and_named(tmp_path, name):
    mistake = MISTAKES[name]
    recorded = golden.load(GOLDENS / f"{mistake.detector.removeprefix('tiny_')}.npz")
    sources = Sources(new_adapter=ADAPTER)
    prepared = prepare(recorded.task, sources, MACHINE)
    recorded.check_given(prepared)
    with in_forks(), mock.patch.dict(os.environ, {VARIABLE: name}):
        verdict = golden_runs.check(recorded, sources, MACHINE, prepared, tmp_path, lambda step: None)
    first = verdict.divergence
    assert Finding(verdict.outcome, first.where, first.message).judged(mistake) == NAMED, first
