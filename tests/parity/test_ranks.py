"""Two ranks against mmdet 3.3.0's own DDQDETR at tiny width: clean, and with errors that one process cannot show."""

import pytest
import torch

from legacy_adapters.inputs import Batch
from parity.report.report import closing_line, reduction_lines
from parity.report.report_json import as_dict
from parity.report.training import training_lines
from parity.sides.settings import Task
from parity.sides.sides import inputs_of
from parity.verdict.verdict import INCOMPARABLE, MISMATCH
from tests.models import NEW_ADAPTER, port

from .conftest import RANK_ERRORS, assert_every_rank_matches, ranks_judge
from .synthetic import Rec, judged

TASK = Task(port("mmdet_ddq", "tiny_4scale"), ((64, 64), (64, 80)), None, 0, ("train",), 5, ranks=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return ranks_judge(tmp_path_factory.mktemp("ranks"), "mmdet_ddq")


def test_two_ranks_match(trained):
    verdict = trained(NEW_ADAPTER)
    assert_every_rank_matches(verdict)
    lines = training_lines(verdict)[-2:]
    assert lines[0] == (
        "  2 ranks joined by gloo, legacy and new in MMDistributedDataParallel (broadcast_buffers False, "
        "find_unused_parameters False)"
    )
    assert lines[1].startswith("  objects of rank 0 and 1, step by step: ") and " and 0, 0 and 0, 0 and " in lines[1]


@pytest.mark.parametrize(("error", "where", "says"), RANK_ERRORS)
def test_error_that_one_process_cannot_show_is_named_with_step_and_rank(trained, error, where, says, planted):
    verdict = trained(planted(error))
    assert verdict.outcome == MISMATCH
    assert verdict.divergence.where == where and says in verdict.divergence.message
    assert closing_line(verdict).endswith(f"First at {where} in {verdict.divergence.comparison.pair.new.phase}.")


def test_in_one_process_such_an_error_does_not_show(tiny, planted):
    result = tiny(
        "--check", "train", "--steps", "1", "--new-adapter", planted("own_matching_factor"), "-q", sizes="64x64"
    )
    assert result.exit_code == 0, result.output


def test_batches_differ_between_ranks_and_steps():
    phases = [f"step {step} on rank {rank}" for step in range(1, 6) for rank in (0, 1)]
    batches = [Batch.from_tensors(dict(inputs_of(TASK, phase)), "cpu", torch.float32) for phase in phases]
    totals = [sum(map(len, batch.gt_labels)) for batch in batches]
    assert len({batch.image_sizes for batch in batches}) == len(phases)
    assert [total == 0 for total in totals] == [False, False, False, True, True, True, True, False, False, False]
    # a mean of two ranks that is no whole number, and neither rank's own
    assert all((zero + one) % 2 for zero, one in zip(totals[::2], totals[1::2]) if zero and one)


def side(*ranks):
    """Return records of a step of two ranks, in the order in which one follows from the other."""
    weights = [Rec("param", "a.weight", phase=f"weights on rank {rank}") for rank in (0, 1)]
    losses = [Rec("loss", "loss_cls", value, phase=f"step 1 on rank {rank}") for rank, value in enumerate(ranks)]
    rest = [
        Rec(kind, "a.weight", value, phase=f"step 1 on rank {rank}")
        for rank in (0, 1)
        for kind, value in (("setting", 0.1), ("grad", sum(ranks) / 2), ("state", sum(ranks)))
    ]
    return [*weights, *losses, *rest]


TRAINED = dict(checks=["train"], steps=1, clip_order="twin", epoch_length="endless", ranks=2)
BOTH = dict(on_legacy=TRAINED, on_new=TRAINED)


def test_loss_of_one_rank_is_named_before_the_gradients_that_follow_from_it(tmp_path):
    counts = [{"reductions": {"step 1 on rank 1": {"bbox_head": count}}} for count in (14, 8)]
    one, two = (dict(TRAINED, **count) for count in counts)
    verdict = judged(tmp_path, side(1.0, 2.0), side(1.0, 4.0), on_legacy=one, on_new=two)
    assert verdict.outcome == MISMATCH
    assert verdict.divergence.message.startswith("In step 1 on rank 1 the loss term `loss_cls` differs")
    assert closing_line(verdict).endswith("First at loss_cls in step 1 on rank 1.")
    found = [(step["step"], step["rank"], step["accepted"]) for step in as_dict(verdict)["steps"]]
    assert found == [(1, 0, 2), (1, 1, 1)]
    told = "sums over ranks in the forward pass: legacy 14 in bbox_head; new 8 in bbox_head"
    assert reduction_lines(verdict) == [told]


def test_a_rank_of_which_nothing_was_compared_is_told(tmp_path):
    alone = [rec for rec in side(1.0, 2.0) if rec.phase != "step 1 on rank 1"]
    verdict = judged(tmp_path, alone, alone, **BOTH)
    assert verdict.outcome == INCOMPARABLE and "no loss of step 1 on rank 1 was compared" in verdict.reasons[0]


def test_ranks_and_one_process_are_not_comparable(tmp_path):
    verdict = judged(tmp_path, side(1.0, 2.0), side(1.0, 2.0), on_legacy=TRAINED, on_new=dict(TRAINED, ranks=None))
    assert verdict.outcome == INCOMPARABLE
    assert "ranks is 2 on the legacy side and None on the new one" in verdict.reasons[0]


def test_adapter_that_cannot_wrap_is_told(tiny, tmp_path):
    (tmp_path / "old.py").write_text("from parity.adapters.ddq_port import *\ndel distributed\n")
    result = tiny("--ranks", "2", "--new-adapter", tmp_path / "old.py", "-q", sizes="64x64")
    assert result.exit_code == 2
    assert "has no function distributed(model, options), which --ranks needs" in result.stderr.splitlines()[-1]
