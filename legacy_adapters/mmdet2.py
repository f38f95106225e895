"""What adapters of MMDetection 2.x code bases have in common; imports mmdet and mmcv 1.x of the running process."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy
import torch

from . import shims, standin
from .bases.detection import DetectionAdapter
from .inputs import UNSCALED, Batch
from .origin import PlainError


class MMDet2Adapter(DetectionAdapter):
    """Build and run a detector of a code base in the form of MMDetection 2.x.

    ``options`` has ``config``, the path of a config or its name among those of the code base, and ``repo``, a folder
    that holds the code base, unless it is installed.
    """

    methods = ("extract_feat",)

    def config(self, options: Mapping[str, Any]) -> str:
        """Return the path of the config."""
        return config_path(options["config"], options.get("repo"))

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build the detector of the config."""
        prepare(options.get("repo"), device)
        from mmdet.models import build_detector

        config = load_config(self.config(options))
        config.model.pop("pretrained", None)
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
        terms = model.forward_train(batch.images, metas(batch), gt_bboxes=batch.gt_bboxes, gt_labels=batch.gt_labels)
        return terms, model._parse_losses(terms)[0]

    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Tell which code ran."""
        import mmcv
        import mmdet

        return dict(
            code_base="mmdet " + mmdet.__version__,
            modules={m.__name__: dict(file=str(m.__file__), version=str(m.__version__)) for m in (mmdet, mmcv)},
        )


def prepare(repo: Optional[str], device: str) -> None:
    """Make the code base importable in this interpreter: its folder, what it misses, the operators.

    Raises:
        PlainError: if its mmcv is not of 1.x.
    """
    if repo is not None and repo not in sys.path:
        sys.path.insert(0, repo)
    shims.install(device)
    standin.install()
    import mmcv

    if not mmcv.__version__.startswith("1."):
        raise PlainError(
            "MMDetection 2.x needs mmcv 1.x, found mmcv {} at {}; install mmcv 1.x beside it.".format(
                mmcv.__version__, os.path.dirname(mmcv.__file__)
            )
        )
    import mmdet.models  # noqa: F401  (registers its modules)


def config_path(config: str, repo: Optional[str]) -> str:
    """Return the path of a config: a file, or a name among those of the code base.

    Raises:
        PlainError: if there is none.
    """
    import mmdet

    package = os.path.dirname(os.path.abspath(mmdet.__file__))
    folders = ["", os.path.join(package, ".mim", "configs"), os.path.join(os.path.dirname(package), "configs")]
    for folder in folders:
        path = os.path.join(folder, config)
        if os.path.isfile(path):
            return path
    raise PlainError("There is no config {}; looked for it in {}.".format(config, ", ".join(folders[1:])))


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
            flip=False,
            flip_direction=None,
            filename="image{}".format(number),
            ori_filename="image{}".format(number),
        )
        for number, (size, padded, scale) in enumerate(described)
    ]


def detections(results: Sequence[Any]) -> List[Dict[str, torch.Tensor]]:
    """Flatten what ``simple_test`` gives: for each image a list of [n, 5] arrays, one for each class."""
    return [_flat(result) for result in results]


def _flat(result: Sequence[numpy.ndarray]) -> Dict[str, torch.Tensor]:
    rows = [torch.as_tensor(numpy.asarray(of_class)) for of_class in result]
    whole = torch.cat(rows)
    labels = torch.cat([torch.full((len(of_class),), label, dtype=torch.long) for label, of_class in enumerate(rows)])
    return dict(bboxes=whole[:, :4], scores=whole[:, 4], labels=labels)
