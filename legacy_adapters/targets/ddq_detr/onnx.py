"""Adapter of an exported DDQ-DETR: ONNX Runtime detects, as a side of ``ddq-parity eval``.

The model is exported from the weights that the side is given. One with a ResNet takes images of any size; of any other
one file is made for each size.
"""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (registers the detectors; supplies mmcv._ext before mmdet asks)

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ddq_port.export.detector import OneImage
from ddq_port.export.session import Exported
from ddq_port.export.writing import Form, write
from legacy_adapters import mmdet3
from legacy_adapters.targets.ddq_detr.fast import FastDDQDETR


class ExportedDDQDETR(FastDDQDETR):
    """Detect objects in image files by ONNX Runtime."""

    def image_detector(self, model: torch.nn.Module, options: Mapping[str, Any]) -> mmdet3.Detector:
        """Take the test pipeline of the config; the model itself only normalises what is recorded as its input."""
        return OnnxDetector(model, self.whole_config(options), options.get("scale"))

    def provenance(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Tell which code ran."""
        import onnxruntime

        return dict(super().provenance(options), code_base=f"ddq_port, ONNX Runtime {onnxruntime.__version__}")


class OnnxDetector(mmdet3.Detector):
    """Detect objects in an image file with files that are exported when they are first needed."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._folder = tempfile.TemporaryDirectory(prefix="ddq-export-")
        self._files: dict[tuple[int, int] | None, Exported] = {}
        self._any_size = type(self.model.backbone).__name__.endswith("ResNet")

    def __call__(self, path: str, image_id: int) -> dict[str, Any]:
        """Return what :mod:`legacy_adapters.tasks.detecting` writes of an image."""
        data = self.pipeline(dict(img_path=path, img_id=image_id))
        image = data["inputs"][None].float()  # [1, 3, h, w]
        found = self._file(tuple(image.shape[2:]))(image)
        batch = self.model.data_preprocessor(dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]]), False)
        told = batch["data_samples"][0].metainfo
        names = ("ori_shape", "img_shape", "pad_shape", "batch_input_shape", "scale_factor")
        meta = {name: [float(x) for x in told[name]] for name in names if name in told}
        scale = found.boxes.new_tensor(told["scale_factor"]).repeat(2)  # [4] of x, y, x, y
        results = dict(bboxes=found.boxes / scale, scores=found.scores, labels=found.labels)
        return dict(input=batch["inputs"], meta=meta, **results)

    def _file(self, size: tuple[int, int]) -> Exported:
        key = None if self._any_size else size
        if key not in self._files:
            file = Path(self._folder.name, f"{len(self._files)}.onnx")
            write(OneImage(self.model), file, Form(key))
            self._files[key] = Exported(file)
        return self._files[key]


ADAPTER = ExportedDDQDETR()
