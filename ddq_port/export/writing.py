"""Write a detector of one image as ONNX or as a program of ``torch.export``."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddq_port import __version__

from .detector import ExportError, OneImage
from .nms import onnx_forms

ONNX, PROGRAM = ".onnx", ".pt2"
OPSET = 20
#: Heights and widths that a file of any size takes, in pixels.
LEAST, MOST = 65, 4096
#: Size of the image that is followed through the model; of a file of any size only an example.
_EXAMPLE = (224, 288)
INPUT, OUTPUTS = "image", ("boxes", "scores", "labels")


@dataclass(frozen=True)
class Form:
    """What a file takes.

    Attributes:
        size: (h, w) of its images in pixels; None for any size.
        classes: names by label; empty if they are not known.
    """

    size: tuple[int, int] | None
    classes: Sequence[str] = ()

    def properties(self) -> dict[str, str]:
        """Return what stands in the file beside the graph."""
        return dict(
            ddq_port=__version__,
            size="any" if self.size is None else "{}x{}".format(*self.size),
            classes=json.dumps(list(self.classes)),
            input="image [1, 3, h, w] float32 in [0, 255], BGR, not normalised",
            outputs="boxes [n, 4] xyxy in pixels of the image, scores [n] best first (-1: none), labels [n]",
        )


def write(detector: OneImage, file: Path, form: Form) -> None:
    """Write the file, whole or not at all.

    Args:
        detector: on the CPU.
        file: its suffix says what it is, ``.onnx`` or ``.pt2``.
        form: of the images.

    Raises:
        ExportError: for another suffix, or if torch cannot follow the model.
    """
    if file.suffix not in (ONNX, PROGRAM):
        raise ExportError(f"{file} has the suffix {file.suffix or 'none'}; expected {ONNX} or {PROGRAM}.")
    example = torch.rand(1, 3, *(form.size or _EXAMPLE)) * 255
    shapes = None
    if form.size is None:
        height, width = (torch.export.Dim(name, min=LEAST, max=MOST) for name in ("height", "width"))
        shapes = dict(image={2: height, 3: width})
    descriptor, name = tempfile.mkstemp(suffix=file.suffix, prefix=f".{file.stem}.", dir=file.absolute().parent)
    os.close(descriptor)
    made = Path(name)
    try:
        with torch.no_grad(), _quiet():
            program = _program(detector, example, shapes)
            if file.suffix == PROGRAM:
                torch.export.save(program, made, extra_files=form.properties())
            else:
                _write_onnx(program, made, form)
        made.chmod(0o666 & ~_umask())
        made.replace(file)
    finally:
        made.unlink(missing_ok=True)


def _program(detector: OneImage, example: torch.Tensor, shapes: Any) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(
            detector, (example,), dynamic_shapes=shapes, strict=False,
            # a size that torch cannot prove to divide another is looked at when the program runs
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
    except Exception as error:  # of torch's tracer, whatever the model's code leads it to
        hint = "" if shapes is None else "; pass --size HxW for a file of one size"
        told = " ".join(str(error).split())[:300]
        raise ExportError(f"torch.export cannot follow the model ({type(error).__name__}: {told}){hint}.") from error


def _write_onnx(program: torch.export.ExportedProgram, file: Path, form: Form) -> None:
    made = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, custom_translation_table=onnx_forms(), verbose=False,
        input_names=[INPUT], output_names=list(OUTPUTS),
    )  # fmt: skip
    made.model.metadata_props.update(form.properties())
    made.save(str(file), external_data=False)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _quiet() -> Any:
    """Keep the exporter's progress and warnings off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)
