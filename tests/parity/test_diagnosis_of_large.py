"""What is too large to be looked at, or cannot be read, is not explained; the verdict stands without it."""

import pytest
import torch

from parity.diagnosis import attention, linear, scene
from parity.diagnosis.kinds import DiagnosisKind as K
from parity.diagnosis.sketches import restoring
from parity.traces.trace import Trace, TraceError
from parity.verdict import diagnosing_sketches
from parity.verdict.outcome import MISMATCH

from . import test_diagnosis_of_attention as of_attention
from .synthetic import Rec, judged
from .test_diagnosis import LAYERS, X, explained, layer_of
from .test_diagnosis_of_golden import LABELS, said


def kinds_of(result):
    return [kind for kind, _ in result if not kind.is_place]


def of_layer(folder, number):
    name, module, x, other, *_ = LAYERS[number]
    before, legacy = layer_of(module, x, name)
    with torch.no_grad():
        return kinds_of(explained(folder, legacy, other(x), name, before))


def of_heads(folder):
    one, two = of_attention.attention_of(4), of_attention.attention_of(4)
    with torch.no_grad():
        two.in_proj_weight[:16] *= 2
        sides = one(**of_attention.INPUTS)[0], two(**of_attention.INPUTS)[0]
    return kinds_of(explained(folder, *sides, "attn", of_attention.recorded(one, of_attention.INPUTS), slot="0"))


def of_digest(folder):
    return kinds_of(said(folder, LABELS, LABELS + 1, has_sketch=False))


TURNED, TRANSPOSED = (
    next(number for number, layer in enumerate(LAYERS) if text in layer[-1])
    for text in ("kernel turned round", "weight transposed")
)
POOLED = next(number for number, layer in enumerate(LAYERS) if layer[0] == "maxpool")


@pytest.mark.parametrize(("place", "name", "most", "explain", "kind"), [
    (linear, "_MOST_PRODUCTS", 1000, lambda folder: of_layer(folder, TRANSPOSED), K.WEIGHT),
    (linear, "_MOST_PRODUCTS", 1000, lambda folder: of_layer(folder, TURNED), K.WEIGHT),
    (attention, "_MOST_PRODUCTS", 1000, of_heads, K.ATTENTION),
    # the result may be looked at, what the layer was given not
    (scene, "MOST_ELEMENTS", 200, lambda folder: of_layer(folder, POOLED), K.GEOMETRY),
    (scene, "MOST_ELEMENTS", 95, lambda folder: kinds_of(explained(folder, X, -X)), K.SIGN),
    (restoring, "_MOST_ELEMENTS", 11, of_digest, K.OFFSET),
    (diagnosing_sketches, "MOST_ELEMENTS", 95, lambda folder: kinds_of(said(folder, X, X.flip(1))), K.PERMUTATION),
], ids=["linear", "convolution", "attention", "input", "record", "digest", "sketch"])  # fmt: skip
def test_beyond_a_limit_nothing_is_said(tmp_path, monkeypatch, place, name, most, explain, kind):
    assert explain(tmp_path / "small") == [kind]
    monkeypatch.setattr(place, name, most)
    assert explain(tmp_path / "large") == []


def test_a_tensor_that_cannot_be_read_is_not_explained(tmp_path, monkeypatch):
    """That it cannot be read is told where it is judged; the digests alone say that it differs."""
    def refuse(trace, record):
        raise TraceError("no tensor")

    monkeypatch.setattr(Trace, "tensor", refuse)
    sides = [[Rec("module_out", "part", values)] for values in (X, -X)]
    verdict = judged(tmp_path, *sides)
    assert verdict.outcome == MISMATCH and verdict.explanation.diagnoses == ()
    assert said(tmp_path / "golden", X, X.flip(1)) == []
