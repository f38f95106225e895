"""What a sketch shows of signs, sums, activations and rounding, and where it shows too little."""

import torch
import torch.nn.functional as F

from parity.diagnosis.kinds import DiagnosisKind as K
from parity.golden.sketch import positions_of_samples, sketch

from .synthetic import NAN, Rec, write_trace
from .test_diagnosis import EXACT, drawn, of_a_sketch
from .test_diagnosis_more import LOGITS

CAVEAT = ", as far as samples show"


def records_of(folder, *tensors):
    """Return a record and its sketch for each tensor, as of other records of the legacy side."""
    records = [Rec("module_out", f"other.{number}", tensor) for number, tensor in enumerate(tensors)]
    trace = write_trace(folder, *records)
    return [(record, sketch(tensor.double()).numpy()) for record, tensor in zip(trace.records, tensors)]


def test_the_other_sign_of_numbers_that_come_with_both_signs_may_be_another_order(tmp_path):
    order = torch.randperm(192, generator=torch.Generator().manual_seed(0))
    values = torch.cat([EXACT.flatten(), -EXACT.flatten()])[order]
    text = "the legacy side's numbers with the other sign, or in another order: of these numbers both are the same"
    assert of_a_sketch(tmp_path, values, -values) == [(K.SIGN, text)]


def test_of_another_shape_or_of_no_finite_numbers_what_another_record_holds_is_still_told(tmp_path):
    others = records_of(tmp_path / "others", drawn(20, seed=1).double(), drawn(8).double())
    whole = drawn(40, seed=2).double()
    told = [(K.OTHER_RECORD, "the legacy side's output of `other.0` (call 0)")]
    assert of_a_sketch(tmp_path / "shape", whole, drawn(20, seed=1).double(), others=others) == told
    hole = drawn(20, seed=3).double().index_fill(0, torch.tensor([2]), NAN)
    assert of_a_sketch(tmp_path / "nan", hole, drawn(20, seed=1).double(), others=others) == told
    assert of_a_sketch(tmp_path / "none", hole, 2 * drawn(20, seed=3).double()) == []


def test_rounding_is_told_by_samples_and_not_of_a_tensor_that_is_kept_whole(tmp_path):
    assert of_a_sketch(tmp_path / "whole", EXACT.flatten()[:24], EXACT.flatten()[:24].half()) == []
    text = f"the new side's numbers are the legacy side's rounded to fp16 or TF32{CAVEAT}"
    several = EXACT.flatten()[:25]
    assert of_a_sketch(tmp_path / "samples", several, several.half()) == [(K.PRECISION, text)]


def test_rounding_before_a_sigmoid_is_told(tmp_path):
    logits = LOGITS.double()
    text = f"the new side's numbers are the sigmoid of what the legacy side has before it rounded to bf16{CAVEAT}"
    assert of_a_sketch(tmp_path, logits.sigmoid(), logits.bfloat16().double().sigmoid()) == [(K.PRECISION, text)]


def test_numbers_too_small_for_half_precision_are_told_as_rounded(tmp_path):
    """All samples are zero on the new side, which is a multiple of anything: no grid is named beside the rounding."""
    new = torch.arange(200).double() / 8
    new[positions_of_samples(200)] = 0
    legacy = torch.where(new == 0, 1e-9 * (1 + drawn(200).double().abs()), new)
    text = f"the new side's numbers are the legacy side's rounded to fp16{CAVEAT}"
    assert of_a_sketch(tmp_path, legacy, new) == [(K.PRECISION, text)]


def test_a_term_that_one_side_lacks_is_told(tmp_path):
    x, body = drawn(2, 6, 8, seed=3).double(), drawn(2, 6, 8, seed=4).double()
    before = [Rec("module_in", "part", x, slot="x"), Rec("module_out", "part.ffn", body, scope="part")]
    for legacy, new, text in (
        (body + x, body, "the new side's plus its input `x` is the legacy side's: a term is missing, or is subtracted"),
        (body, body + x, "the legacy side's plus its input `x` is the new side's: a term too many, or one that the "
         "legacy side subtracts"),
    ):  # fmt: skip
        assert of_a_sketch(tmp_path / text[:12], legacy, new, before=before) == [(K.RESIDUAL, text)]


def test_another_activation_of_a_part_is_told(tmp_path):
    body = drawn(2, 6, 8, seed=4).double()
    before = [Rec("module_out", "part.ffn", body, scope="part")]
    said = of_a_sketch(tmp_path, body.relu(), F.gelu(body), before=before)
    assert said == [(K.ACTIVATION, "GELU in place of ReLU on the output of `part.ffn`")]
