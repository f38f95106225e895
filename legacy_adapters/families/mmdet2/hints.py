"""What is known of differences and errors that MMDetection 3.x itself brings; imports no torch."""

from __future__ import annotations

from legacy_adapters.family import Hint, Variant

from .model_configs import of_new

_UNDO = "--new-adapter legacy_adapters/families/mmdet2/as_2x.py"
_AREA = (
    "Dense heads of 3.x drop boxes without area before the NMS where test_cfg.min_bbox_size is not negative, those of 2.x "
    f"do not (D28 of docs/deviations.md). Set model.test_cfg.min_bbox_size to -1 in the new config, or pass {_UNDO}."
)
_NO_AREA = (
    Hint(_AREA, name="nms", kind="basis", fewer=True),
    Hint(_AREA, name="*_bbox_post_process", kind="method_in", slot="*min_bbox_size"),
)
_MASKS = Hint(
    "With masks 3.x calls the NMS before boxes have the size of the original image, 2.x after that (D31 of "
    f"docs/deviations.md). Pass {_UNDO} to see whether anything else differs.",
    name="nms", kind="basis", slot="boxes",
)  # fmt: skip
_PAIRS = Hint(
    "YOLOv3 of 3.x gives the NMS the test_cfg.nms_pre best pairs of a box and a class, 2.x all above the threshold (D35 of "
    f"docs/deviations.md). Pass {_UNDO} to see whether anything else differs.",
    name="nms", kind="basis", slot="boxes",
)  # fmt: skip
_PROPOSALS = Hint(
    "RPN of 3.x calls the NMS behind the rescaling of its proposals, 2.x before it (D60 of docs/deviations.md). "
    f"Pass {_UNDO} to see whether anything else differs.",
    name="nms", kind="basis", slot="boxes",
)  # fmt: skip
_STAGES = Hint(
    "HTC of 3.x makes masks of its last stage only, 2.x of the average of all stages (D36 of docs/deviations.md). "
    f"Pass {_UNDO} to see whether anything else differs.",
    name="result", kind="tap", slot="masks",
)  # fmt: skip
_QUERIES = Hint(
    "QueryInst of 2.x takes the masks of all images of a batch from the queries chosen in the last one, 3.x from each image's "
    f"own (D61 of docs/deviations.md). Pass {_UNDO}, or compare one image with --size HxW, to see whether anything else differs.",
    name="result", kind="tap", slot="masks",
)  # fmt: skip
_MASK_SCORES = Hint(
    "Mask Scoring R-CNN of 3.x gives boxes the score of their mask, 2.x keeps both (D62 of docs/deviations.md). "
    f"Pass {_UNDO} to see whether anything else differs.",
    name="result", kind="tap", slot="scores",
)  # fmt: skip
_SSD = Hint(
    "That is an error of mmdet 3.3.0 itself: its base class of dense heads asks for loss_cls, which SSDHead does not have "
    f"(models/dense_heads/base_dense_head.py:376). Pass {_UNDO}, or give your head a loss_cls of None.",
    error="*SSD*Head*no attribute 'loss_cls'*",
)  # fmt: skip
_OF_TYPES = dict(
    YOLOV3=_PAIRS, HybridTaskCascade=_STAGES, RPN=_PROPOSALS, QueryInst=_QUERIES, MaskScoringRCNN=_MASK_SCORES
)


def hints(variant: Variant) -> tuple[Hint, ...]:
    """Return what is known of a model by its config of 3.x."""
    model = of_new(variant)
    of_masks = (_MASKS,) if "mask_head" in (model.get("roi_head") or {}) else ()
    of_type = _OF_TYPES.get(str(model.get("type")))
    return (*filter(None, [of_type]), *_NO_AREA, *of_masks, _SSD)
