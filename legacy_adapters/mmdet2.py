"""What adapters of MMDetection 2.x code bases have in common; imports mmdet and mmcv 1.x of the running process."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy
import torch

from . import shims, standin
from .bases.configs import check_form, refused_types
from .bases.detection import DetectionAdapter
from .bases.operators import mmcv_ops
from .inputs import UNSCALED, Batch, masks_of
from .origin import UnusableInputError
from .training.hooked import HookTraining, training


class MMDet2Adapter(DetectionAdapter):
    """Build and run a detector of a code base in the form of MMDetection 2.x.

    ``options`` has ``config``, the path of a config or its name among those of the code base, and ``repo``, a folder
    that holds the code base, unless it is installed.
    """

    #: Those of one name on both sides are compared; the others, of heads, tell whose code is running.
    methods = (
        "get_anchors", "forward_train", "simple_test", "simple_test_rpn", "simple_test_bboxes", "get_bboxes",
        "_bbox_post_process",
    )  # fmt: skip

    def config(self, options: Mapping[str, Any]) -> str:
        """Return the path of the config."""
        return config_path(options["config"], options.get("repo"))

    def whole_config(self, options: Mapping[str, Any]) -> Any:
        """Return the config, with what the variant changes in it."""
        return load_config(self.config(options))

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build the detector of the config."""
        prepare(options.get("repo"), device)
        from mmdet.models import build_detector

        path = self.config(options)
        config = load_config(path)
        check_form(config, path, "2.x")
        config.model.pop("pretrained", None)
        with refused_types(path):
            return build_detector(config.model, train_cfg=config.get("train_cfg"), test_cfg=config.get("test_cfg"))

    def predict(self, model: Any, batch: Batch) -> List[Dict[str, torch.Tensor]]:
        """Run inference; return bboxes [n, 4] xyxy in pixels, scores [n] and labels [n] of each image, class by class."""
        return detections(model.simple_test(batch.images, metas(batch), rescale=True))

    def variants(self, model: Any) -> Dict[str, Callable[[Batch], List[Any]]]:
        """Return inference with boxes of the resized images."""

        def unscaled(batch: Batch) -> List[Dict[str, torch.Tensor]]:
            return detections(model.simple_test(batch.images, metas(batch), rescale=False))

        return {UNSCALED: unscaled}

    def losses(self, model: Any, batch: Batch) -> Tuple[Dict[str, Any], torch.Tensor]:
        """Return the loss terms as the model names them and their sum."""
        objects = dict(gt_bboxes=batch.gt_bboxes, gt_labels=batch.gt_labels)
        takes = inspect.signature(type(model).forward_train).parameters
        if "gt_masks" in takes:
            objects["gt_masks"] = bitmaps(batch)
        if "gt_labels" not in takes and not any(one.kind is one.VAR_KEYWORD for one in takes.values()):
            del objects["gt_labels"]  # proposals have no classes
        terms = model.forward_train(batch.images, metas(batch), **objects)
        return terms, model._parse_losses(terms)[0]

    def training(self, model: torch.nn.Module, options: Mapping[str, Any], epoch_length: Optional[int]) -> HookTraining:
        """Make optimizer, clipping and schedule of the config, with the mmcv of the running process."""
        return training(model, self.whole_config(options), epoch_length)

    def image_detector(self, model: torch.nn.Module, options: Mapping[str, Any]) -> "Detector":
        """Take the test pipeline of the config; ``options["scale"]`` takes the place of its image scale."""
        return Detector(model, self.whole_config(options), options.get("scale"))

    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Tell which code ran, and what was put in place for it."""
        import mmcv
        import mmdet

        return dict(
            code_base="mmdet " + mmdet.__version__,
            mmcv_ops=mmcv_ops(),
            shims=list(shims.IN_PLACE),
            modules={m.__name__: dict(file=str(m.__file__), version=str(m.__version__)) for m in (mmdet, mmcv)},
        )


def prepare(repo: Optional[str], device: str) -> None:
    """Make the code base importable in this interpreter: its folder, what it misses, the operators.

    Raises:
        UnusableInputError: if there is no mmdet of 2.x, or no mmcv of 1.x, or they do not fit together.
    """
    if repo is not None and repo not in sys.path:
        sys.path.insert(0, repo)
    shims.install(device)
    standin.install()
    _check_mmdet()
    mmcv = _imported("mmcv", repo)
    if not mmcv.__version__.startswith("1."):
        raise UnusableInputError(
            "MMDetection 2.x needs mmcv 1.x, found mmcv {} at {}; install mmcv 1.x beside it.".format(
                mmcv.__version__, os.path.dirname(mmcv.__file__)
            )
        )
    with shims.accepted_mmcv():
        mmdet = _imported("mmdet", repo)
    _check_version(mmdet.__version__, os.path.dirname(mmdet.__file__))
    import mmdet.models  # noqa: F401  (registers its modules)


def _check_mmdet() -> None:
    """Refuse an mmdet of another version by what its folder says, before anything of it is imported."""
    spec = importlib.util.find_spec("mmdet")
    folder = os.path.dirname(spec.origin) if spec is not None and spec.origin is not None else ""
    file = os.path.join(folder, "version.py")
    if os.path.isfile(file):
        with open(file, encoding="utf-8") as lines:
            told = re.search(r"^__version__ = ['\"]([^'\"]+)", lines.read(), re.MULTILINE)
        if told is not None:
            _check_version(told.group(1), folder)


def _check_version(version: str, folder: str) -> None:
    if not version.startswith("2."):
        raise UnusableInputError(
            "The legacy side is a code base of MMDetection 2.x, found mmdet {} at {}; name a folder with mmdet 2.x.".format(
                version, folder
            )
        )


def _imported(name: str, repo: Optional[str]) -> Any:
    """Import a package of the code base.

    Raises:
        UnusableInputError: if it is not there, or refuses another one.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        place = sys.executable if repo is None else "{} or in {}".format(repo, sys.executable)
        raise UnusableInputError(
            "There is no {} in {}; MMDetection 2.x needs mmdet 2.x and mmcv 1.x in one of them.".format(name, place)
        ) from error
    except AssertionError as error:
        raise UnusableInputError("{} cannot be imported: {}".format(name, " ".join(str(error).split()))) from error


def config_path(config: str, repo: Optional[str]) -> str:
    """Return the path of a config: a file, or a name among those of the code base.

    Raises:
        UnusableInputError: if there is none.
    """
    import mmdet

    package = os.path.dirname(os.path.abspath(mmdet.__file__))
    folders = ["", os.path.join(package, ".mim", "configs"), os.path.join(os.path.dirname(package), "configs")]
    for folder in folders:
        path = os.path.join(folder, config)
        if os.path.isfile(path):
            return path
    raise UnusableInputError("There is no config {}; looked for it in {}.".format(config, ", ".join(folders[1:])))


def load_config(path: str) -> Any:
    """Read a config with the mmcv of the running process."""
    from mmcv import Config

    return Config.fromfile(path)


def metas(batch: Batch) -> List[Dict[str, Any]]:
    """Return what 2.x tells of each image of a batch: sizes of 3 numbers and scale factors of 4."""
    whole = tuple(batch.images.shape[-2:])
    described = zip(batch.image_sizes, batch.pad_shapes, batch.scale_factors)
    return [
        dict(
            img_shape=(*size, 3),
            ori_shape=(round(size[0] / scale[1]), round(size[1] / scale[0]), 3),
            pad_shape=(*padded, 3),
            batch_input_shape=whole,
            scale_factor=numpy.array([*scale, *scale], dtype=numpy.float32),
            border=(0, size[0], 0, size[1]),
            flip=False,
            flip_direction=None,
            filename="image{}".format(number),
            ori_filename="image{}".format(number),
        )
        for number, (size, padded, scale) in enumerate(described)
    ]


def bitmaps(batch: Batch) -> List[Any]:
    """Return the masks of a batch's objects as the code base has them."""
    from mmdet.core import BitmapMasks

    sizes = zip(masks_of(batch), batch.image_sizes)
    return [BitmapMasks(masks.cpu().numpy(), *size) for masks, size in sizes]


def detections(results: Sequence[Any]) -> List[Dict[str, torch.Tensor]]:
    """Flatten what ``simple_test`` gives.

    For each image that is a list of [n, 5] arrays, one for each class; with masks a pair of it and of a list that has for
    each class a list of [h, w] arrays; of a model that segments in several ways a dict of these. Where masks have scores
    of their own, these stand beside the masks, in a list of [n] arrays. Proposals, which have no classes, are one [n, 5]
    array.
    """
    return [_flat(result) for result in results]


def _flat(result: Any) -> Dict[str, torch.Tensor]:
    result = result["ins_results"] if isinstance(result, dict) else result
    boxes, masks = result if isinstance(result, tuple) else (result, None)
    boxes = [boxes] if isinstance(boxes, numpy.ndarray) else boxes
    rows = [torch.as_tensor(numpy.asarray(of_class)) for of_class in boxes]
    whole = torch.cat(rows)
    labels = torch.cat([torch.full((len(of_class),), label, dtype=torch.long) for label, of_class in enumerate(rows)])
    flat = dict(bboxes=whole[:, :4], scores=whole[:, 4], labels=labels)
    if isinstance(masks, tuple):
        masks, scores = masks
        flat["mask_scores"] = torch.cat([torch.as_tensor(numpy.asarray(one)).to(whole.dtype) for one in scores])
    if masks is not None:
        flat["masks"] = _stacked([torch.as_tensor(numpy.asarray(mask)) for of_class in masks for mask in of_class])
    return flat


def _stacked(masks: List[torch.Tensor]) -> torch.Tensor:
    return torch.stack(masks) if masks else torch.zeros(0, 0, 0, dtype=torch.bool)


class Detector:
    """Detect objects in image files as ``inference_detector`` of the running process's mmdet does, one image at a time.

    Args:
        model: in evaluation mode.
        config: with ``data.test``, whose pipeline is taken as it is, but for what loads annotations.
        scale: (w, h) that takes the place of every image scale; None for the config's own.

    Raises:
        UnusableInputError: if the config has no test pipeline.
        ValueError: if ``scale`` is given and nothing resizes.
    """

    def __init__(self, model: Any, config: Any, scale: Optional[Sequence[int]] = None) -> None:
        from mmdet.datasets.pipelines import Compose

        pipeline = ((config.get("data") or {}).get("test") or {}).get("pipeline")
        if pipeline is None:
            raise UnusableInputError("The legacy config has no `data.test.pipeline`, which reads the images of `eval`.")
        steps = _without_annotations(pipeline)
        if scale is not None and not _rescaled(steps, tuple(scale)):
            raise ValueError("the test pipeline has no Resize to give another scale")
        self.model, self.pipeline = model, Compose(steps)

    def __call__(self, path: str, image_id: int) -> Dict[str, Any]:
        """Return what :mod:`legacy_adapters.tasks.detecting` writes of an image; the input is that of the first variant."""
        data = self.pipeline(dict(img_info=dict(filename=path, id=image_id), img_prefix=None))
        # with MultiScaleFlipAug each is a list of variants, without it one; formatting steps may wrap them
        images, told = (
            [_unwrapped(one) for one in (held if isinstance(held, list) else [held])]
            for held in (data["img"], data["img_metas"])
        )
        device = next(self.model.parameters()).device
        batches = [image.unsqueeze(0).to(device) for image in images]
        result = self.model(return_loss=False, rescale=True, img=batches, img_metas=[[meta] for meta in told])
        sizes = {name: told[0][name][:2] for name in ("ori_shape", "img_shape", "pad_shape", "scale_factor")}
        sizes["batch_input_shape"] = batches[0].shape[-2:]
        meta = {name: [float(number) for number in numbers] for name, numbers in sizes.items()}
        return dict(input=batches[0], meta=meta, **detections(result)[0])


def _unwrapped(held: Any) -> Any:
    """Take a value out of mmcv's DataContainer."""
    return held.data if type(held).__name__ == "DataContainer" else held


def _without_annotations(pipeline: Any) -> List[Dict[str, Any]]:
    return [dict(step) for step in pipeline if "Annotations" not in step["type"]]


def _rescaled(steps: Sequence[Dict[str, Any]], scale: Tuple[int, ...]) -> bool:
    """Give all steps that say an image scale another one, those within others too; tell whether there are any."""
    has_scale = False
    for step in steps:
        if step.get("img_scale") is not None:
            step["img_scale"] = scale
            has_scale = True
        has_scale |= _rescaled(step.get("transforms") or (), scale)
    return has_scale
