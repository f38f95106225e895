"""Rounding is measured by itself where there are images, if a family says where padding is; nothing is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from converters.errors import MappingError
from converters.rules.mapping import Keep, Mapping
from legacy_adapters.family import Padding
from parity.comparing.compare import Tolerance
from parity.comparing.evidence import Norms, TraceEvidence, load_spread, save_spread, spreads
from parity.comparing.padding import Images
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH, judge

from .synthetic import SAME_NAMES, Rec, write_trace

PADDING = Padding("encoder.*", mask="encoder", slot="mask", reason="no token takes a value from padding")
#: Two images, of which the second has one token of padding; [2, 3].
MASK = torch.tensor([[False, False, False], [False, False, True]])
PLACE, PADDED = (1, 1), (1, 2)


def side(folder, tokens: torch.Tensor, **provenance):
    """Write a trace whose encoder gives ``tokens`` [2, 3, 4]."""
    records = [
        Rec("module_in", "encoder", MASK, slot="mask"), Rec("module_out", "encoder.layer", tokens),
        Rec("module_out", "head", torch.tensor([1.0, 2.0], dtype=tokens.dtype)),
        Rec("loss", "total", torch.tensor(2.5, dtype=tokens.dtype)),
    ]  # fmt: skip
    return write_trace(folder, *records, checks=["loss"], **provenance)


def verdict_of(folder, paddings, change, change64=None):
    """Judge a new side that differs by ``change`` from a legacy side whose padding is nothing but rounding."""
    reference = torch.linspace(1.0, 2.0, 24, dtype=torch.float64).reshape(2, 3, 4)
    legacy = reference.float()
    legacy[PADDED] += 0.2
    new, again = legacy.clone(), reference.clone()
    change(new)
    (change64 or change)(again)
    traces = [side(folder / name, tokens) for name, tokens in (("l", legacy), ("n", new))]
    wide = [side(folder / name, tokens, dtype="float64") for name, tokens in (("r", reference), ("a", again))]
    spread = spreads([traces[0]], wide[0], places_of=Images(wide[0], paddings).places)
    save_spread(spread, folder / "spread.json")
    assert load_spread(folder / "spread.json") == spread
    evidence = TraceEvidence(traces[0], wide[0], spread, traces[1], wide[1], paddings)
    return judge(*traces, SAME_NAMES, (), Tolerance("derived"), evidence)


def off(place, by: float):
    def change(tokens):
        tokens[place] += by

    return change


def nothing(tokens):
    pass


@pytest.mark.parametrize(
    ("paddings", "change", "change64", "outcome"),
    [
        ((), off(PADDED, 0.1), nothing, INCOMPARABLE),
        ((PADDING,), off(PADDED, 0.1), nothing, MATCH),
        ((PADDING,), off(PLACE, 1e-7), nothing, MATCH),
        # what padding's rounding would explain is none where there is an image
        ((PADDING,), off(PLACE, 1e-2), nothing, MISMATCH),
        ((PADDING,), off(PLACE, 1e-7), off(PLACE, 1e-9), MISMATCH),
        # padding is compared as well
        ((PADDING,), off(PADDED, 3.0), nothing, MISMATCH),
        ((PADDING,), off(PADDED, 0.1), off(PADDED, 1e-2), MISMATCH),
        ((replace(PADDING, name="head"),), off(PADDED, 0.1), nothing, INCOMPARABLE),
        ((replace(PADDING, slot="other"),), off(PADDED, 0.1), nothing, INCOMPARABLE),
    ],
)
def test_rounding_of_padding_hides_nothing_where_there_are_images(tmp_path, paddings, change, change64, outcome):
    verdict = verdict_of(tmp_path, paddings, change, change64)
    assert verdict.outcome == outcome, verdict.reasons
    assert not verdict.coverage.excluded_records


def test_places_are_those_of_one_mask_of_the_phase_that_is_laid_out_alike(tmp_path):
    records = [
        Rec("module_in", "encoder", MASK, slot="mask"),
        Rec("module_in", "encoder", MASK, slot="mask", phase="predict"),
        Rec("module_in", "encoder", ~MASK, slot="mask", phase="predict", call=1),
        Rec("module_out", "encoder.layer", torch.zeros(2, 3, 4)), Rec("module_out", "encoder.turned", torch.zeros(3, 2, 4)),
        Rec("module_out", "encoder.ids", torch.zeros(2, 3, dtype=torch.int64)),
        Rec("module_out", "encoder.layer", torch.zeros(2, 3, 4), phase="predict"),
        Rec("out_grad", "encoder.layer", torch.zeros(2, 3)),
        Rec("tap", "encoder.layer", torch.zeros(2, 3, 4)),
    ]  # fmt: skip
    trace = write_trace(tmp_path / "t", *records)
    images = Images(trace, (PADDING,))
    told = {(r.phase, r.kind, r.name) for r in trace.records if images.places(r) is not None}
    assert told == {("train", "module_out", "encoder.layer"), ("train", "out_grad", "encoder.layer")}
    assert torch.equal(images.places(next(r for r in trace.records if r.kind == "out_grad")), ~MASK)


def test_places_of_a_feature_map_are_those_of_its_mask_in_every_channel(tmp_path):
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[1, :, 3] = True
    padding = Padding("encoding", mask="encoding", slot="mask", reason="nothing reads it")
    trace = write_trace(
        tmp_path / "t",
        Rec("module_in", "encoding", mask, slot="mask"), Rec("module_out", "encoding", torch.zeros(2, 5, 3, 4)),
        Rec("module_out", "encoding", torch.zeros(2, 5, 4, 3), call=1),
    )  # fmt: skip
    places = [Images(trace, (padding,)).places(record) for record in trace.records if record.kind == "module_out"]
    assert places[1] is None
    assert torch.equal(places[0], ~mask[:, None].expand(2, 5, 3, 4))


def test_the_larger_spread_of_several_runs_is_that_of_images_too():
    joined = Norms(1.0, 1.0) | Norms(2.0, 0.5, Norms(0.1, 0.2)) | Norms(0.5, 3.0, Norms(0.2, 0.1))
    assert joined == Norms(2.0, 3.0, Norms(0.2, 0.2))


@pytest.mark.parametrize("padding", [replace(PADDING, reason=" "), "encoder"])
def test_padding_without_a_reason_is_refused(padding):
    with pytest.raises(MappingError, match="Padding 0"):
        Mapping("toy", (Keep("**"),), paddings=(padding,))
