"""The port with an error in how it is built or initialised: branches for dense queries are drawn anew."""

import copy

from ddq_port.models.ddq_detr.head import DDQDETRHead
from parity.adapters.ddq_port import *  # noqa: F403

_right = DDQDETRHead._init_layers


def _init_layers(self):
    _right(self)
    kept = self.cls_branches, self.reg_branches
    _right(self)
    self.aux_cls_branches = copy.deepcopy(self.cls_branches)
    self.cls_branches, self.reg_branches = kept


DDQDETRHead._init_layers = _init_layers
