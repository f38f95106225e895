"""Faults in the files of the package: errors in its operators, functions of torch that it changes at its import.

``apply`` takes the folder of a copy of ``ddq_port``; both sides run in processes from scratch that find this copy.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .fault import DETECTOR, PACKAGE, Fault

Apply = Callable[[Path], None]
_NMS, _EXTENSION = "ops/nms.py", "ops/mmcv_ext.py"
_DISTINCT = "tap `distinct`"


def _replacing(file: str, old: str, new: str) -> Apply:
    """Replace a text that stands once in a file."""

    def apply(package: Path) -> None:
        path = package / file
        text = path.read_text()
        if text.count(old) != 1:
            raise LookupError(f"{file} holds {old!r} {text.count(old)} times; expected once, to plant a fault there.")
        path.write_text(text.replace(old, new))

    return apply


def _patching(file: str, code: str) -> Apply:
    """Add code that runs when the package is imported."""

    def apply(package: Path) -> None:
        path = package / file
        path.write_text(path.read_text() + "\n\nimport torch\nimport torch.nn.functional as F\n" + code)

    return apply


def _fault(name: str, kind: str, where: str, apply: Apply, says: str = "") -> Fault:
    return Fault(name, kind, where, apply, place=PACKAGE, says=says, setting="batch")


_LAYER_NORM = """
_layer_norm = F.layer_norm
F.layer_norm = lambda x, shape, weight=None, bias=None, eps=1e-5: _layer_norm(x, shape, weight, bias, eps * 100)
"""
_RELU = """
_relu = F.relu
F.relu = lambda x, inplace=False: F.leaky_relu(x, 1e-3)
"""
_GRID_SAMPLE = """
_grid_sample = F.grid_sample
F.grid_sample = lambda *args, **kwargs: _grid_sample(*args, **{**kwargs, "align_corners": True})
"""
_SIGMOID = """
_sigmoid = torch.Tensor.sigmoid
torch.Tensor.sigmoid = lambda x: _sigmoid(x) * 0.999
"""

FAULTS = (
    _fault("nms_union_is_a_sum", "error in the operator", DETECTOR, _replacing(_NMS, ".sub_(inter)", ""), _DISTINCT),
    _fault("nms_ascending", "error in the operator", DETECTOR,
           _replacing(_NMS, "return scores.detach().sort(0, descending=True)[1]",
                      "return scores.detach().sort(0, descending=False)[1]"), _DISTINCT),
    _fault("nms_area_of_whole_pixels", "error in the operator", DETECTOR,
           _replacing(_NMS, "(self._x2 - self._x1 + offset)", "(self._x2 - self._x1 + 1)"), _DISTINCT),
    _fault("nms_forgets_earlier_blocks", "error in the operator", DETECTOR,
           _replacing(_NMS, "for start in range(0, self.count, self.tile[1]):",
                      "for start in range(self.count, self.count, self.tile[1]):"), _DISTINCT),
    _fault("import_changes_layer_norm", "function changed at import", "encoder.layers.0.norms.0",
           _patching(_EXTENSION, _LAYER_NORM)),
    _fault("import_changes_relu", "function changed at import", "backbone.relu", _patching(_EXTENSION, _RELU)),
    _fault("import_changes_grid_sample", "function changed at import", "encoder.layers.0.self_attn",
           _patching(_EXTENSION, _GRID_SAMPLE)),
    _fault("import_changes_sigmoid", "function changed at import", DETECTOR, _patching(_EXTENSION, _SIGMOID),
           _DISTINCT),
)  # fmt: skip
