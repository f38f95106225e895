"""Record what mmcv's compiled NMS keeps, as golden files for ``tests/ops``.

Run it with an interpreter whose mmcv has its compiled operators::

    python tools/record_nms_golden.py --out tests/golden/nms

Every case becomes one ``.npz`` with the inputs (``boxes`` [N, 4] float32 xyxy, ``scores`` [N] float32,
``iou_threshold``, ``offset``), the rank order of the recording machine (``order``, which fixes the place of tied
scores), the indices kept by ``mmcv.ops.nms`` (``keep_nms``) and by ``mmcv.ops.batched_nms`` with one class
(``keep_batched``; its NMS uses offset 0), and the versions of mmcv and torch. Same machine, same bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SEED = 20240607


@dataclass(frozen=True)
class Case:
    """Inputs of one golden: boxes [N, 4] float32 xyxy, scores [N] float32, IoU threshold, offset (0 or 1)."""

    name: str
    boxes: np.ndarray
    scores: np.ndarray
    iou_threshold: float
    offset: int = 0


def main() -> None:
    """Parse the command line, record every case, report the total size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "tests" / "golden" / "nms")
    arguments = parser.parse_args()
    require_compiled_mmcv()
    arguments.out.mkdir(parents=True, exist_ok=True)
    paths = [record(case, arguments.out) for case in cases()]
    total = sum(path.stat().st_size for path in paths)
    sys.stdout.write(f"{len(paths)} cases, {total / 1e6:.2f} MB in {arguments.out}\n")


def require_compiled_mmcv() -> None:
    """Exit with one line unless ``mmcv._ext`` is the compiled extension."""
    try:
        import mmcv._ext as extension
    except ImportError as error:
        raise SystemExit(f"record_nms_golden: needs compiled mmcv, found none ({error}); install `mmcv`.") from None
    if getattr(extension, "__ddq_port_standin__", False) is True:
        raise SystemExit("record_nms_golden: needs compiled mmcv, found a stand-in for mmcv._ext; install `mmcv`.")


def record(case: Case, folder: Path) -> Path:
    """Run both compiled operators on ``case``, write ``<name>.npz`` through a temporary file, return its path."""
    import mmcv
    import torch
    from mmcv.ops import batched_nms, nms

    boxes, scores = torch.from_numpy(case.boxes), torch.from_numpy(case.scores)
    keep_nms = nms(boxes, scores, case.iou_threshold, offset=case.offset)[1]
    config = {"type": "nms", "iou_threshold": case.iou_threshold}
    # mmcv's batched_nms takes the maximum of the boxes, which an empty tensor lacks
    keep_batched = batched_nms(boxes, scores, torch.ones(len(scores)), config)[1] if len(scores) else keep_nms
    path = folder / f"{case.name}.npz"
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            boxes=case.boxes,
            scores=case.scores,
            iou_threshold=np.float64(case.iou_threshold),
            offset=np.int64(case.offset),
            order=scores.sort(0, descending=True)[1].numpy().astype(np.int32),
            keep_nms=keep_nms.numpy().astype(np.int32),
            keep_batched=keep_batched.numpy().astype(np.int32),
            mmcv_version=np.array(mmcv.__version__),
            torch_version=np.array(torch.__version__),
            cpu_capability=np.array(torch.backends.cpu.get_cpu_capability()),
        )
    os.replace(temporary, path)
    return path


def cases() -> list[Case]:
    """Return all cases; every draw comes from one seeded PCG64 generator."""
    draw = np.random.Generator(np.random.PCG64(SEED))
    return [*edge_cases(draw), *small_cases(draw), *large_cases(draw)]


def edge_cases(draw: np.random.Generator) -> list[Case]:
    """Return empty, single, identical, exactly-at-threshold, inverted and infinite boxes."""
    one = np.array([[0.5, 0.5, 1.5, 1.5]], np.float32)  # cxcywh (1, 1, 1, 1): an invalid proposal after the sigmoid
    infinite = clustered(draw, 200, 10)
    infinite[::7] = np.inf
    infinite[3::11, 2:] = np.inf
    return [
        Case("empty", np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.7),
        Case("one", one, np.array([0.25], np.float32), 0.7),
        Case("identical", one.repeat(300, 0), distinct(draw, 300), 0.8),
        Case("identical_ties", one.repeat(300, 0), np.full(300, 0.5, np.float32), 0.8),
        Case("at_threshold_50", nested(draw, 400), distinct(draw, 400), 0.5),
        Case("at_threshold_70", nested(draw, 400), distinct(draw, 400), 0.7),
        Case("at_threshold_80", nested(draw, 400), distinct(draw, 400), 0.8),
        Case("rounding_70", near_threshold(draw, 0.7), distinct(draw, 2048), 0.7),
        Case("inverted", draw.integers(0, 40, (400, 4)).astype(np.float32), distinct(draw, 400), 0.5),
        Case("infinite", infinite, distinct(draw, 200), 0.7),
        Case("degenerate", degenerate(draw, 1200), quantised(draw, 1200, 64), 0.8),
    ]


def small_cases(draw: np.random.Generator) -> list[Case]:
    """Return up to 3,000 boxes with full float32 mantissas, below mmcv's split threshold."""
    return [
        Case("spread_50", spread(draw, 1500), distinct(draw, 1500), 0.5),
        Case("clustered_70", clustered(draw, 2500, 40), distinct(draw, 2500), 0.7),
        Case("clustered_80_ties", clustered(draw, 2500, 40), quantised(draw, 2500, 50), 0.8),
        Case("clustered_offset1", np.rint(clustered(draw, 1500, 30)), distinct(draw, 1500), 0.5, offset=1),
        Case("normalised_80", normalised(draw, 3000, 150), distinct(draw, 3000), 0.8),
        Case("normalised_50_ties", normalised(draw, 3000, 150), quantised(draw, 3000, 80), 0.5),
    ]


def large_cases(draw: np.random.Generator) -> list[Case]:
    """Return both sides of mmcv's split threshold of 10,000 and the token count of an 800 x 1333 image."""
    grid = np.float32(2**-3)  # whole eighths of a pixel compress well
    fine = np.float32(2**-14)
    return [
        Case("n9999_80", snapped(clustered(draw, 9999, 300), grid), distinct(draw, 9999), 0.8),
        Case("n9999_80_ties", snapped(clustered(draw, 9999, 300), grid), quantised(draw, 9999, 4096), 0.8),
        Case("n10000_80", snapped(clustered(draw, 10000, 300), grid), distinct(draw, 10000), 0.8),
        Case("n10000_80_ties", snapped(clustered(draw, 10000, 300), grid), quantised(draw, 10000, 4096), 0.8),
        Case("n22223_80", snapped(normalised(draw, 22223, 250), fine), distinct(draw, 22223), 0.8),
        Case("n22223_70_ties", snapped(clustered(draw, 22223, 250), grid), quantised(draw, 22223, 16384), 0.7),
    ]


def spread(draw: np.random.Generator, count: int) -> np.ndarray:
    """Return boxes of 5 to 65 pixels, uniform over 400 x 400 pixels."""
    return xyxy(draw.random((count, 2)) * 400, draw.random((count, 2)) * 60 + 5)


def clustered(draw: np.random.Generator, count: int, groups: int) -> np.ndarray:
    """Return boxes jittered around ``groups`` objects in 1333 x 800 pixels."""
    member = draw.integers(0, groups, count)
    size = (draw.random((groups, 2)) * 200 + 10)[member]
    centre = (draw.random((groups, 2)) * (1333, 800))[member]
    return xyxy(centre + draw.normal(size=(count, 2)) * 0.05 * size, size * draw.uniform(0.8, 1.2, (count, 2)))


def normalised(draw: np.random.Generator, count: int, groups: int) -> np.ndarray:
    """Return boxes in units of the image; as decoded proposals do, some reach outside [0, 1]."""
    return clustered(draw, count, groups) / np.array([1333, 800, 1333, 800], np.float32)


def nested(draw: np.random.Generator, count: int) -> np.ndarray:
    """Return integer boxes of height 10 sharing a corner, so that overlaps hit round ratios such as 7/10 exactly."""
    origin = draw.integers(0, 20, (count, 1)) * 100
    return np.hstack([origin, origin, origin + draw.integers(1, 21, (count, 1)), origin + 10]).astype(np.float32)


def near_threshold(draw: np.random.Generator, ratio: float) -> np.ndarray:
    """Return 1,024 pairs of nested boxes whose overlap is ``ratio`` up to rounding: the order of operations decides."""
    size = draw.uniform(20, 60, (1024, 2))
    corner = np.stack(np.divmod(np.arange(1024), 32), axis=1) * 64
    outer = np.hstack([corner, corner + size])
    inner = np.hstack([corner, corner + size * (1, ratio)])
    return np.vstack([outer, inner]).astype(np.float32)


def degenerate(draw: np.random.Generator, count: int) -> np.ndarray:
    """Return normalised boxes of which a third are invalid proposals (all alike) and some have no area."""
    boxes = normalised(draw, count, 60)
    boxes[::3] = (0.5, 0.5, 1.5, 1.5)
    boxes[1::10, 2:] = boxes[1::10, :2]
    return boxes


def xyxy(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return corners [N, 4] float32 of boxes given by centre and size, both [N, 2]."""
    return np.hstack([centre - size / 2, centre + size / 2]).astype(np.float32)


def snapped(boxes: np.ndarray, step: np.float32) -> np.ndarray:
    """Return boxes rounded to whole steps; ``step`` is a power of two, so the result is exact in float32."""
    return (np.rint(boxes / step) * step).astype(np.float32)


def distinct(draw: np.random.Generator, count: int) -> np.ndarray:
    """Return scores in (0, 1) without ties, so that the order is the same on every machine."""
    return ((draw.permutation(count) + 1) / 32768).astype(np.float32)


def quantised(draw: np.random.Generator, count: int, levels: int) -> np.ndarray:
    """Return scores in [0, 1) on ``levels`` values (a power of two or not), with many ties."""
    return (draw.integers(0, levels, count) / levels).astype(np.float32)


if __name__ == "__main__":
    main()
