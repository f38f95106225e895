"""The port with an error in how it is built or initialised: the backbone starts from weights."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as _right


def build(options, device):
    model = _right(options, device)
    model.backbone.init_cfg = dict(type="Pretrained", checkpoint="open-mmlab://resnet50_caffe")
    return model
