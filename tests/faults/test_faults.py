"""Planted faults are detected and named: one of each kind in weights and traces, a fixed choice of model and training.

``python -m tests.faults`` measures all of them, and the clean runs.
"""

from collections import Counter

import pytest

from .bench import NAMED, TOLERANCES
from .catalogue import FAULTS, MODULES
from .fault import MODEL, TRACE, TRAINING, WEIGHTS
from .suite import measure_all, pool

#: Of every part of the model and of the training, of every way in which a decision, a draw or a record can be missing,
#: of every setting.
CHOICE = (
    "average_forgotten", "backbone_as_fast_as_the_rest", "batches_counted", "betas", "decay_in_the_gradient",
    "distinct_as_int32", "dropped_queries_not_masked", "eps_layer_norm", "frozen_stage_trains",
    "gradients_of_one_module_kept", "head_not_clipped", "heads_rolled_in_cross_attention", "labels_from_one",
    "level_starts_shifted", "norm_called_once_more", "offsets_normalised_by_height_first", "one_draw_more",
    "one_element", "position_of_first_layer", "quality_beta", "queries_padded_with_last", "schedule_stuck",
    "sigmoid_twice_on_dense", "term_renamed", "three_positives", "window_not_shifted",
)  # fmt: skip
_FIRST = {fault.kind: fault.name for fault in reversed(FAULTS.values()) if fault.place in (WEIGHTS, TRACE)}
CHOSEN = [fault for fault in FAULTS.values() if fault.name in (*CHOICE, *_FIRST.values())]


def test_there_are_enough_faults_of_enough_kinds():
    assert len(FAULTS) == sum(len(module.FAULTS) for module in MODULES), "two faults have one name"
    kinds = Counter(fault.kind for fault in FAULTS.values())
    assert len(FAULTS) >= 100 and len(kinds) >= 30 and max(kinds.values()) <= 4
    assert {fault.place for fault in FAULTS.values()} == {MODEL, WEIGHTS, TRACE, TRAINING}
    assert set(CHOICE) <= FAULTS.keys() and all(FAULTS[name].place in (MODEL, TRAINING) for name in CHOICE)


@pytest.fixture(scope="module")
def measured():
    """Measure all that are chosen, two at a time."""
    with pool(workers=2) as started:
        return measure_all(started, CHOSEN, progress=lambda step: None)


@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("fault", CHOSEN, ids=lambda fault: fault.name)
def test_fault_is_detected_and_named(measured, fault, tolerance):
    finding = measured[fault.name].findings[tolerance]
    assert finding.judged(fault) == NAMED, finding


def test_some_faults_keep_mean_and_deviation(measured):
    # what is permuted, transposed or the like; the whole suite has more
    shifts = [measurement.shift for measurement in measured.values()]
    assert sum(shift is not None and shift <= 1e-4 for shift in shifts) >= 8
