"""The port with an error: the denoising loss is divided by the number of objects of this rank alone."""

from mmdet.models.dense_heads import dino_head

from parity.adapters.ddq_port import *  # noqa: F403

dino_head.reduce_mean = lambda factor: factor
