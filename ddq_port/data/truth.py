"""Ask mmdet itself: its data set reads the annotation file, and its metric evaluates the truth as if it were detected.

Of a perfect detector the metric must say AP 1.0. Whatever it does not find is a property of the file or of the
evaluation, and a training would never find it either.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddq_port.data.findings import Truth

#: pycocotools goes through all pairs of an image and a class; of more, evenly spread images are evaluated.
MOST_PAIRS = 500_000
_ZERO, _LIMIT, _NO_AREA, _UNKNOWN = (
    "annotation id 0",
    "more than {limit} objects of a class in an image",
    "boxes without area",
    "unknown",
)


@dataclass(frozen=True)
class Reading:
    """What mmdet's ``CocoDataset`` makes of an annotation file.

    Attributes:
        images: how many there are.
        kept: how many are left by ``filter_cfg``.
        objects: how many there are to train on, of each class by its label; of the images that are left.
        all_objects: the same of all images.
        small: ids of images whose smaller side is below ``min_size``.
        emptied: ids of images that ``filter_empty_gt`` leaves out.
    """

    images: int
    kept: int
    objects: Counter[int]
    all_objects: Counter[int]
    small: tuple[Any, ...]
    emptied: tuple[Any, ...]


def read(ann_file: Path, classes: Sequence[str], filter_cfg: Mapping[str, Any]) -> Reading:
    """Read an annotation file with mmdet's ``CocoDataset``.

    Args:
        ann_file: its path.
        classes: names in the order of labels.
        filter_cfg: which images a training leaves out.

    Raises:
        Exception: whatever mmdet raises.
    """
    with _silence():
        from mmdet.datasets import CocoDataset

        dataset = CocoDataset(
            ann_file=str(ann_file.absolute()),
            metainfo=dict(classes=tuple(classes)),
            data_prefix=dict(img=""),
            filter_cfg=dict(filter_cfg),
            pipeline=[],
            lazy_init=True,
        )
        dataset.data_list = dataset.load_data_list()
        kept = dataset.filter_data()
    kept_ids = {image["img_id"] for image in kept}
    left_out = [image for image in dataset.data_list if image["img_id"] not in kept_ids]
    small = [
        image["img_id"] for image in left_out if min(image["width"], image["height"]) < filter_cfg.get("min_size", 0)
    ]
    return Reading(
        images=len(dataset.data_list),
        kept=len(kept),
        objects=_objects(kept),
        all_objects=_objects(dataset.data_list),
        small=tuple(small),
        emptied=tuple(image["img_id"] for image in left_out if image["img_id"] not in set(small)),
    )


def _objects(images: Sequence[Mapping[str, Any]]) -> Counter[int]:
    instances = (instance for image in images for instance in image["instances"])
    return Counter(instance["bbox_label"] for instance in instances if not instance["ignore_flag"])


def evaluate(ann_file: Path, classes: Sequence[str]) -> Truth | None:
    """Evaluate the objects of an annotation file as detections of score 1 with mmdet's ``CocoMetric``.

    Args:
        ann_file: its path.
        classes: names in the order of labels.

    Returns:
        None if the images that are evaluated have no object.

    Raises:
        Exception: whatever mmdet and pycocotools raise.
    """
    with _silence(), tempfile.TemporaryDirectory() as folder:
        from mmdet.evaluation import CocoMetric

        metric = CocoMetric(ann_file=str(ann_file.absolute()), outfile_prefix=str(Path(folder, "truth")))
        metric.dataset_meta = dict(classes=tuple(classes))
        coco = metric._coco_api  # what the metric evaluates on; reading the file once more would take as long again
        cat_ids = coco.get_cat_ids(cat_names=list(classes))
        image_ids = coco.get_img_ids()
        image_ids = image_ids[:: max(1, -(-len(image_ids) * len(cat_ids) // MOST_PAIRS))]
        metric.img_ids = image_ids
        objects = 0
        for image in coco.load_imgs(image_ids):
            sample = _detected(image, coco.imgToAnns[image["id"]], cat_ids)
            objects += len(sample["pred_instances"]["scores"])
            metric.process({}, [sample])
        if not objects:
            return None
        scores = metric.compute_metrics(metric.results)
        detections = json.loads(Path(folder, "truth.bbox.json").read_bytes())
        lost = _lost(coco, coco.loadRes(detections), cat_ids, image_ids, metric.proposal_nums[0])
    return Truth(scores["bbox_mAP"], len(image_ids), objects, lost)


def _detected(image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], cat_ids: Sequence[Any]) -> dict:
    """Return the objects of an image as a detector gives them."""
    import torch

    objects = [entry for entry in annotations if not entry.get("iscrowd") and entry["category_id"] in cat_ids]
    boxes = torch.tensor([entry["bbox"] for entry in objects], dtype=torch.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]  # xywh -> xyxy
    labels = torch.tensor([cat_ids.index(entry["category_id"]) for entry in objects], dtype=torch.long)
    instances = dict(bboxes=boxes, labels=labels, scores=torch.ones(len(objects)))
    return dict(img_id=image["id"], ori_shape=(image["height"], image["width"]), pred_instances=instances)


def _lost(truth: Any, detected: Any, cat_ids: Sequence[Any], image_ids: Sequence[Any], limit: int) -> dict[str, int]:
    """Count the objects that pycocotools does not find, by cause.

    ``bbox_mAP`` is of all sizes and of the first `limit` detections of a class in an image.
    """
    from mmdet.datasets.api_wrappers import COCOeval

    evaluation = COCOeval(truth, detected, "bbox")
    evaluation.params.imgIds, evaluation.params.catIds = list(image_ids), list(cat_ids)
    evaluation.params.maxDets, evaluation.params.iouThrs = [limit], evaluation.params.iouThrs[-1:]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
    evaluation.evaluate()
    lost: Counter[str] = Counter()
    for result in evaluation.evalImgs:
        if result is None:
            continue
        full = sum(1 for ignore in result["gtIgnore"] if not ignore) > limit
        for key, match, ignore in zip(result["gtIds"], result["gtMatches"][0], result["gtIgnore"]):
            if not ignore and (match == 0 or float(key) == 0):
                lost[_cause(truth.anns[key], full, limit)] += 1
    return dict(lost)


def _cause(annotation: Mapping[str, Any], full: bool, limit: int) -> str:
    if float(annotation["id"]) == 0:
        return _ZERO
    if min(annotation["bbox"][2:]) <= 0:
        return _NO_AREA
    return _LIMIT.format(limit=limit) if full else _UNKNOWN


def unexplained(truth: Truth) -> int:
    """Return how many objects the evaluation lost for a reason that is not known."""
    return truth.lost.get(_UNKNOWN, 0)


def beyond_limit(truth: Truth) -> dict[str, int]:
    """Return how many objects the evaluation lost because it looks at a limited number only."""
    return {cause: number for cause, number in truth.lost.items() if cause not in (_ZERO, _NO_AREA, _UNKNOWN)}


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what mmengine and pycocotools print to themselves."""
    from mmengine.logging import MMLogger

    import ddq_port  # noqa: F401  the stand-in for mmcv's operators, which mmdet imports

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
