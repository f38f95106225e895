"""What is exported detects what the model detects, in any size of image."""

import pytest
import torch

from ddq_port.export import nms as operator
from ddq_port.export.detector import ExportError, OneImage
from ddq_port.export.session import Found, agreement
from ddq_port.models.ddq_detr.fast.distinct import suppress

from .conftest import image


@pytest.mark.parametrize("size", [(96, 128), (75, 66)])
def test_it_is_the_model(detector, size):
    given = image(*size)
    with torch.no_grad():
        found = Found.of(*detector(given))
        batch = dict(inputs=[given[0]], data_samples=[_sample(size)])
        prepared = detector.model.data_preprocessor(batch, False)
        (sample,) = detector.model.predict(prepared["inputs"], prepared["data_samples"], rescale=False)
    own = Found(sample.pred_instances.bboxes, sample.pred_instances.scores, sample.pred_instances.labels)
    same = agreement(own, found)
    assert same.is_same and same.paired == len(own.scores) == 50
    assert same.score < 1e-5 and same.pixels < 1e-2


def _sample(size):
    from mmdet.structures import DetDataSample

    return DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))


def test_the_operator_is_greedy_suppression():
    torch.manual_seed(0)
    corner = torch.rand(1, 40, 2)
    boxes = torch.cat([corner, corner + 0.3], -1)
    some = torch.rand(1, 40) > 0.3
    kept, own = (
        f(boxes, some, 0.3, None, boxes.amax((1, 2))).mask for f in (operator.suppress, suppress)
    )
    assert torch.equal(kept, own) and 0 < int(kept.sum()) < int(some.sum())
    few = torch.ops.ddq_port.nms(boxes[0], torch.arange(40.0), 0.3, 60)
    assert few[0] == 39 and (few[-20:] == -1).all() and 0 not in few  # rank 0 takes no part


def test_pairs_are_told_from_others():
    one = Found(torch.tensor([[0.0, 0, 9, 9], [0, 0, 5, 5]]), torch.tensor([0.9, 0.2]), torch.tensor([1, 2]))
    assert agreement(one, one).is_same
    other_label = Found(one.boxes, one.scores, torch.tensor([0, 2]))
    assert not agreement(one, other_label).is_same and agreement(one, other_label).paired == 1
    at_the_cut = Found(one.boxes, one.scores, torch.tensor([1, 0]))
    assert agreement(one, at_the_cut).is_same and agreement(one, at_the_cut).at_cut == 1
    assert not agreement(one, Found(one.boxes[:1], one.scores[:1], one.labels[:1])).is_same


def test_a_model_with_legacy_numerics_or_padding_is_refused(detector):
    with pytest.raises(ExportError, match="expected a ddq_port.DDQDETR with numerics='fast'"):
        OneImage(torch.nn.Linear(1, 1))
    preprocessor = detector.model.data_preprocessor
    preprocessor.pad_size_divisor = 32
    try:
        with pytest.raises(ExportError, match="pad_size_divisor is 32; expected 1"):
            OneImage(detector.model)
    finally:
        preprocessor.pad_size_divisor = 1
