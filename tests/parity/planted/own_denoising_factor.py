"""The port with an error: the denoising loss is divided by the number of objects of this rank alone."""

from parity.adapters.ddq_port import *  # noqa: F403  # isort: skip  (supplies mmcv._ext before mmdet asks)

from mmdet.models.dense_heads import dino_head

dino_head.reduce_mean = lambda factor: factor
