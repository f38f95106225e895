"""An exported DDQ-DETR under ONNX Runtime beside the model: ``python -m benchmarks.exported [--file FILE]``.

Exports a detector with the seeded weights of family ``ddq_detr_fast``, which do not blow up rounding, then runs both in
turns on the same image. Prints medians of the wall clock and of the processor, and how the detections agree.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from converters.rules.ports import port
from ddq_port.export.detector import OneImage
from ddq_port.export.session import Exported, Found, agreement
from ddq_port.export.writing import Form, write
from legacy_adapters import worker
from parity.comparing.pairing import NEW
from parity.sides.prepare import seeded_batch
from parity.sides.sides import both_layouts

from .names import FAST
from .sides import Runner


def main() -> None:
    """Export, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="r50_4scale")
    parser.add_argument("--size", default="800x1216", help="HxW of the image")
    parser.add_argument("--any-size", action="store_true", help="export for images of any size, not for this one")
    parser.add_argument("--rounds", type=int, default=5, help="that count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--file", type=Path, help="where to leave the .onnx or .pt2 file; one that exists is taken")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = tuple(map(int, given.size.split("x")))
    model = Runner(FAST, given.variant, "cpu", None).model
    worker._load_weights(model, dict(both_layouts(port("ddq_detr_fast", given.variant), 0, None)[NEW]))
    detector = OneImage(model)
    with tempfile.TemporaryDirectory() as folder:
        file = given.file or Path(folder, "detector.onnx")
        if not file.exists():
            start = time.perf_counter()
            write(detector, file, Form(None if given.any_size else size))
            print(f"exported in {time.perf_counter() - start:.0f} s, {file.stat().st_size / 1e6:.0f} MB")
        exported = Exported(file, given.threads)
        # about zero mean and unit variance -> [0, 255]
        image = (seeded_batch((size,), 0, 1).images * 50 + 110).clamp(0, 255)
        sides = {"model, fast numerics": lambda: _eager(detector, image), file.suffix: lambda: exported(image)}
        for line in compared(sides, given.rounds):
            print(line)


def _eager(detector: OneImage, image: torch.Tensor) -> Found:
    with torch.no_grad():
        return Found.of(*detector(image))


def compared(sides: dict[str, Callable[[], Found]], rounds: int) -> list[str]:
    """Run sides in turns, after a round that does not count; return lines of what they took and found."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    found: dict[str, Any] = {}
    for number in range(rounds + 1):
        for name, run in sides.items():
            start, cpu = time.perf_counter(), time.process_time()
            found[name] = run()
            if number:
                seconds[name].append((time.perf_counter() - start, time.process_time() - cpu))
    lines = []
    for name, runs in seconds.items():
        wall, cpu = (statistics.median(values) for values in zip(*runs))
        lines.append(f"{name}: {wall:.2f} s, {cpu:.2f} s of the processor, median of {rounds}")
    return [*lines, f"detections: {agreement(*found.values())}"]


if __name__ == "__main__":
    main()
