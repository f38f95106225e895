"""Record what mmcv's compiled operators compute on the CPU, as golden files for ``tests/ops/test_operator_goldens.py``.

Run it with an interpreter whose mmcv has its compiled operators::

    python tools/record_operators_golden.py --out tests/golden/operators

Each ``.npz`` holds the calls of one family of operators. Under ``CASE/`` stand ``operator``, the tensors that it is
given (``given.NAME``), its numbers (``number.NAME``), the tensors that it wrote into (``written.NAME``, after the call)
and what it returned (``returned``), all by the names of mmcv's bindings. The kernels of convolutions pick single
numbers, so that no matrix product rounds: what is recorded is the same on every machine.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SEED = 20261127


@dataclass(frozen=True)
class Case:
    """A call of an operator.

    Attributes:
        name: of the case.
        operator: its name in ``mmcv._ext``.
        tensors: it is given, by the names of its arguments; float arrays in the precision of the case.
        numbers: it is given.
        written: names of those tensors into which it writes.
    """

    name: str
    operator: str
    tensors: dict[str, np.ndarray]
    numbers: dict[str, float]
    written: tuple[str, ...] = field(default=())


#: Calls an operator on a case; returns what it wrote by name, and what it returned or None.
Call = Callable[[Case], tuple[dict[str, np.ndarray], Any]]


def main() -> None:
    """Parse the command line, record every case, report the total size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "tests" / "golden" / "operators")
    arguments = parser.parse_args()
    extension = compiled_extension()
    arguments.out.mkdir(parents=True, exist_ok=True)

    def call(case: Case) -> tuple[dict[str, np.ndarray], Any]:
        return called(getattr(extension, case.operator), case)

    draw = np.random.Generator(np.random.PCG64(SEED))
    families = {"roi_align": roi_align_cases, "deform_conv": deform_conv_cases, "softnms": softnms_cases}
    paths = [record(arguments.out / f"{name}.npz", cases(draw, call), call) for name, cases in families.items()]
    total = sum(path.stat().st_size for path in paths)
    sys.stdout.write(f"{len(paths)} files, {total / 1e6:.2f} MB in {arguments.out}\n")


def compiled_extension() -> Any:
    """Return ``mmcv._ext``; exit with one line unless it is the compiled extension."""
    import torch  # noqa: F401  whose libraries the extension needs

    needed = "record_operators_golden: needs compiled mmcv, found {}; install `mmcv`."
    try:
        extension = importlib.import_module("mmcv._ext")
    except ImportError as error:
        raise SystemExit(needed.format(f"none ({error})")) from None
    if getattr(extension, "__ddq_port_standin__", False) is True:
        raise SystemExit(needed.format("a stand-in for mmcv._ext"))
    return extension


def called(operator: Callable[..., Any], case: Case) -> tuple[dict[str, np.ndarray], Any]:
    """Call an operator on copies of a case's tensors."""
    import torch

    tensors = {name: torch.from_numpy(value.copy()) for name, value in case.tensors.items()}
    returned = operator(**tensors, **case.numbers)
    return {name: tensors[name].numpy() for name in case.written}, returned


def record(path: Path, cases: Iterator[Case], call: Call) -> Path:
    """Run all cases of a family and write ``path`` through a temporary file."""
    import mmcv
    import torch

    entries: dict[str, Any] = {"mmcv_version": mmcv.__version__, "torch_version": torch.__version__}
    for case in cases:
        written, returned = call(case)
        entries[f"{case.name}/operator"] = case.operator
        entries.update({f"{case.name}/given.{name}": value for name, value in case.tensors.items()})
        entries.update({f"{case.name}/number.{name}": value for name, value in case.numbers.items()})
        entries.update({f"{case.name}/written.{name}": value for name, value in written.items()})
        if returned is not None:
            entries[f"{case.name}/returned"] = plain(returned)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.savez_compressed(stream, **entries)
    os.replace(temporary, path)
    return path


def plain(returned: Any) -> np.ndarray:
    """Return indices as they are, and groups of indices one after the other, a -1 behind each."""
    if isinstance(returned, list):
        return np.array([index for group in returned for index in (*group, -1)], np.int64)
    return returned.numpy()


def roi_align_cases(draw: np.random.Generator, call: Call) -> Iterator[Case]:
    """Give RoIs inside, across the border, flat and off the map, forward and backward, in all modes."""
    for dtype, mode, ratio, aligned in itertools.product(("float32", "float64"), (0, 1), (0, 2), (True, False)):
        features = fractions(draw, (2, 3, 9, 11), dtype)
        corners = draw.integers(-80, 340, (14, 2)) / 8
        rois = np.concatenate([draw.integers(0, 2, (14, 1)), corners, corners + draw.integers(0, 300, (14, 2)) / 8], 1)
        rois[3, 3:] = rois[3, 1:3]
        rois[4, 4] = rois[4, 2]
        rois = rois.astype(dtype)
        shape = (14, 3, 3, 2)
        buffers = {name: np.zeros(shape if mode == 0 else 0, dtype) for name in ("argmax_y", "argmax_x")}
        numbers = dict(
            aligned_height=3, aligned_width=2, spatial_scale=0.25, sampling_ratio=ratio, pool_mode=mode, aligned=aligned
        )
        name = f"{dtype}-{('max', 'avg')[mode]}-{ratio}-{'aligned' if aligned else 'not'}"
        given = dict(input=features, rois=rois, output=np.zeros(shape, dtype), **buffers)
        forward = Case(f"{name}-forward", "roi_align_forward", given, numbers, ("output", "argmax_y", "argmax_x"))
        yield forward
        places = {key: value for key, value in call(forward)[0].items() if key != "output"}
        given = dict(grad_output=fractions(draw, shape, dtype), rois=rois, **places, grad_input=np.zeros_like(features))
        yield Case(f"{name}-backward", "roi_align_backward", given, numbers, ("grad_input",))


def deform_conv_cases(draw: np.random.Generator, call: Call) -> Iterator[Case]:
    """Give offsets within and far off the image, whole ones among them, with strides, dilations and groups."""
    settings = [(1, 1, 1, 1), (2, 1, 1, 2), (1, 2, 2, 2)]  # stride, padding, dilation, groups of offsets
    for dtype, (stride, padding, dilation, groups) in itertools.product(("float32", "float64"), settings):
        images = fractions(draw, (2, 4, 6, 5), dtype)
        size = [(length + 2 * padding - (2 * dilation + 1)) // stride + 1 for length in (6, 5)]
        offset = (draw.normal(0, 2, (2, groups * 18, *size))).astype(dtype)
        offset[:, ::3] = np.rint(offset[:, ::3])
        mask = draw.random((2, groups * 9, *size)).astype(dtype)
        weight = np.eye(36).reshape(36, 4, 3, 3).astype(dtype)  # every output is one number that is read
        gradient = fractions(draw, (2, 36, *size), dtype)
        none, output = np.zeros(0, dtype), np.zeros((2, 36, *size), dtype)
        no_images, no_offset = np.zeros_like(images), np.zeros_like(offset)
        given = dict(input=images, weight=weight, offset=offset, columns=none)
        name = f"{dtype}-{stride}-{padding}-{dilation}-{groups}"
        of_axis = dict(d=stride, pad=padding, dilation=dilation)
        numbers = {f"{key}{axis}": value for key, value in of_axis.items() for axis in "WH"}
        numbers.update(kW=3, kH=3, group=1, deformable_group=groups, im2col_step=2)
        tensors = dict(**given, output=output, ones=none)
        yield Case(f"{name}-forward", "deform_conv_forward", tensors, numbers, ("output",))
        made = dict(gradInput=no_images, gradOffset=no_offset)
        tensors = dict(**given, **made, gradOutput=gradient)
        yield Case(f"{name}-backward", "deform_conv_backward_input", tensors, numbers, tuple(made))
        of_axis = dict(kernel=3, stride=stride, pad=padding, dilation=dilation)
        numbers = {f"{key}_{axis}": value for key, value in of_axis.items() for axis in "hw"}
        numbers.update(group=1, deformable_group=groups, with_bias=True)
        given.update(bias=fractions(draw, (36,), dtype), mask=mask, ones=none)
        tensors = dict(**given, output=output)
        yield Case(f"{name}-modulated-forward", "modulated_deform_conv_forward", tensors, numbers, ("output",))
        made = dict(grad_input=no_images, grad_offset=no_offset, grad_mask=np.zeros_like(mask))
        sums = dict(grad_weight=np.zeros_like(weight), grad_bias=np.zeros(36, dtype))
        tensors = dict(**given, **made, **sums, grad_output=gradient)
        yield Case(f"{name}-modulated-backward", "modulated_deform_conv_backward", tensors, numbers, tuple(made))


def softnms_cases(draw: np.random.Generator, call: Call) -> Iterator[Case]:
    """Give clustered boxes with and without equal scores, some of them alike, flat and inverted, to every method."""
    for number, (method, offset, least) in enumerate(itertools.product((0, 1, 2), (0, 1), (0.001, 0.2))):
        centres, sizes = draw.integers(0, 800, (150, 2)) / 4, draw.integers(20, 300, (150, 2)) / 4
        boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1).astype(np.float32)
        boxes[5], boxes[7, 2:], boxes[9, 2] = boxes[6], boxes[7, :2], boxes[9, 0] - 5
        scores = draw.random(150).astype(np.float32)
        scores = np.rint(scores * 16) / np.float32(16) if number % 2 else scores
        tensors = dict(boxes=boxes, scores=scores, dets=np.zeros((150, 5), np.float32))
        numbers = dict(iou_threshold=0.3, sigma=0.5, min_score=least, method=method, offset=offset)
        name = ("naive", "linear", "gaussian")[method]
        yield Case(f"{name}-{offset}-{least}", "softnms", tensors, numbers, ("dets",))
        if method == 0:
            dets = np.concatenate([boxes, scores[:, None]], 1)
            yield Case(f"match-{offset}-{least}", "nms_match", {"dets": dets}, {"iou_threshold": 0.4})


def fractions(draw: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Draw multiples of 1/64, which compress well and of which sums of a few are exact."""
    return (draw.integers(-200, 200, shape) / 64).astype(dtype)


if __name__ == "__main__":
    main()
