"""Imported by a config: a transform that makes one image NaN, in training or evaluation."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MakeNaN(BaseTransform):
    """Make one value of an image NaN, or the first box of it.

    Args:
        image: end of its path.
        boxes: the box instead of the image.
    """

    def __init__(self, image: str, boxes: bool = False) -> None:
        self.image, self.boxes = image, boxes

    def transform(self, results: dict) -> dict:
        if results["img_path"].endswith(self.image):
            if self.boxes:
                results["gt_bboxes"].tensor[0, 2] = np.nan
            else:
                results["img"] = results["img"].astype(np.float32)
                results["img"][3, 4, 1] = np.nan
        return results
