# DDQ R-CNN at a small width: every part of the r50 model, a ResNet-50 of 4 channels.
_base_ = ["ddq_rcnn.py"]

_classes, _width = 3, 64
# a list of a base can be changed only here, where mmengine puts the base in the place of its name
for _head in _base_.model.roi_head.bbox_head:
    _head.update(num_classes=_classes, in_channels=_width, feedforward_channels=128)
    _head.dynamic_conv_cfg.update(in_channels=_width, feat_channels=16, out_channels=_width)
del _head
model = dict(
    backbone=dict(base_channels=4, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=_width),
    rpn_head=dict(num_classes=_classes, in_channels=_width, feat_channels=_width, shuffle_channels=16),
    roi_head=dict(proposal_feature_channel=_width, bbox_roi_extractor=dict(out_channels=_width)),
    test_cfg=dict(rcnn=dict(max_per_img=50)),
)
