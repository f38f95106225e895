"""Faults of both ports are seen and named against recorded numbers of the official code: a few of the catalogue.

``DDQ_LEGACY_MAIN_REPO=DDQ python -m tests.ddq_main`` plants all of them, beside the official code.
"""

from __future__ import annotations

import os
from collections import Counter
from unittest import mock

import pytest

from legacy_adapters import registry
from parity.golden import golden
from parity.runs import capture as golden_runs
from parity.sides.settings import Sources
from parity.sides.sides import prepare

from ..warm.execute import in_forks
from .bench import ADAPTER, MACHINE, NAMED, Finding
from .catalogue import ALL, FAULTS
from .fault import FCN, RCNN, VARIABLE


def test_there_are_enough_faults_of_both_families():
    assert len(FAULTS) == len(ALL), "two faults have one name"
    counts = Counter(fault.family for fault in ALL)
    assert counts[FCN] >= 30 and counts[RCNN] >= 20


@pytest.mark.parametrize("name", ["levels_exchanged", "focal_alpha"])
def test_fault_is_seen_and_named(tmp_path, name):
    recorded = golden.load(registry.get(FAULTS[name].family).demo)
    sources = Sources(new_adapter=ADAPTER)
    prepared = prepare(recorded.task, sources, MACHINE)
    recorded.check_given(prepared)
    with in_forks(), mock.patch.dict(os.environ, {VARIABLE: name}):
        verdict = golden_runs.check(recorded, sources, MACHINE, prepared, tmp_path, lambda step: None)
    first = verdict.divergence
    assert Finding(verdict.outcome, first.where, first.message).judged(FAULTS[name]) == NAMED, first
