"""What a family knows of its two code bases is told beside a difference or an error that it fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from converters.errors import MappingError
from converters.rules.mapping import Keep, Mapping
from legacy_adapters import registry
from legacy_adapters.family import Hint
from legacy_adapters.launch import SideError
from parity.report.report_json import as_dict
from parity.verdict.verdict import MISMATCH, ended

from .synthetic import Rec, judged

FEWER = Hint("boxes of no area", name="nms", kind="basis", fewer=True)
FAILS = Hint("known", error="*no attribute 'loss_cls'*")


def known(*hints: Hint) -> Mapping:
    return Mapping("toy", (Keep("**"),), hints=hints)


def basis(boxes: int) -> list[Rec]:
    return [Rec("basis", "nms", torch.ones(boxes, 4), slot="boxes"), Rec("module_out", "a"), Rec("loss", "total")]


@pytest.mark.parametrize(
    ("hints", "boxes", "told"),
    [
        ((FEWER,), 2, "boxes of no area"),
        ((FEWER,), 4, ""),
        ((replace(FEWER, fewer=False),), 4, "boxes of no area"),
        ((FAILS, replace(FEWER, name="match"), replace(FEWER, kind="tap")), 2, ""),
    ],
)
def test_difference_is_told_with_what_is_known_of_it(tmp_path, hints, boxes, told):
    verdict = judged(tmp_path, basis(3), basis(boxes), mapping=known(*hints))
    assert (verdict.outcome, verdict.divergence.hint) == (MISMATCH, told)
    assert as_dict(verdict)["first_divergence"]["hint"] == told


@pytest.mark.parametrize(("error", "told"), [("'H' has no attribute 'loss_cls'", "'loss_cls'. known"), ("other", "other")])
def test_error_is_told_with_what_is_known_of_it(tmp_path, error, told):
    stopped = dict(error=error, place="`head`", traceback="")
    verdict = judged(tmp_path, basis(3), basis(3)[:1], mapping=known(FEWER, FAILS), on_new=dict(stopped=stopped))
    with pytest.raises(SideError) as raised:
        ended(verdict)
    assert str(raised.value).endswith(told)


@pytest.mark.parametrize("hint", ["nms", Hint("text"), Hint(" ", name="nms")])
def test_hint_that_cannot_be_told_is_refused(hint):
    with pytest.raises(MappingError, match="Hint 0"):
        known(hint)


def test_config_of_the_wrong_version_is_refused_before_anything_runs(parity, tmp_path):
    old = registry.get("mmdet2").folder / "configs" / "legacy" / "tiny_retinanet.py"
    result = parity(
        "run", "--family", "mmdet2", "--legacy-config", old, "--new-config", old, "--legacy-repo", tmp_path / "none"
    )
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "of the new side is one of MMDetection 2.x, for it has `" in result.stderr
