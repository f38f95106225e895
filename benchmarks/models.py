"""DDQ-DETR side by side: ``python -m benchmarks.models [--json FILE]``.

Measures the floor (matrix products and convolutions alone, see :mod:`benchmarks.products`), this package with legacy
and with fast numerics, and MMDetection 3.3.0's DDQDETR, in turns on the same weights and images: inference, and a step of
forward, losses and backward. Each side is a process of its own, one of which computes at a time. Prints a table of
medians, ratios and peak memory; ``--curves`` adds the cost against image size, batch and queries, with exponents;
``--waits`` adds how often the host would wait for a GPU. MMDetection runs with the operators that are installed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .names import FAST, FLOOR, INFERENCE, MMDET, OBJECTS, OURS, SIDES, TRAINING

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Job:
    """What a side is to run once.

    Attributes:
        what: ``inference`` or ``training step``.
        size: (h, w) of the images.
        batch: how many there are.
    """

    what: str
    size: tuple[int, int]
    batch: int


@dataclass(frozen=True)
class Run:
    """What came of it.

    Attributes:
        seconds: of the wall clock.
        cpu_seconds: of the processor, by all threads; less disturbed by other programs.
        peak_gb: largest resident size of the process while it ran, or memory of the GPU.
    """

    seconds: float
    cpu_seconds: float
    peak_gb: float


class Side:
    """A process that holds a detector and runs jobs one by one."""

    def __init__(self, name: str, given: argparse.Namespace, queries: int | None = None) -> None:
        command = [sys.executable, "-m", "benchmarks.models", "--serve", name, "--variant", given.variant]
        command += ["--device", given.device, "--threads", str(given.threads)]
        command += ["--queries", str(queries)] if queries else []
        environment = dict(os.environ, OMP_NUM_THREADS=str(given.threads))
        self._messages = tempfile.TemporaryFile("w+")
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages, text=True)
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    def run(self, job: Job) -> Run:
        """Run a job.

        Raises:
            RuntimeError: if the process has ended.
        """
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._messages.seek(0)
            last = self._messages.read().strip().splitlines()[-1:]
            raise RuntimeError(f"{' '.join(self._process.args)} ended with {code}: {' '.join(last)}")
        return Run(**json.loads(line))

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def serve(name: str, given: argparse.Namespace) -> None:
    """Hold a detector and run the jobs that come on stdin, a line of JSON each; answer in kind."""
    import contextlib

    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # mmengine's messages
        import torch

        from benchmarks.sides import Runner

        torch.set_num_threads(given.threads)
        runner = Runner(name, given.variant, given.device, given.queries)
        for line in sys.stdin:
            job = json.loads(line)
            result = runner.run(job["what"], tuple(job["size"]), job["batch"])
            print(json.dumps(result), file=answers, flush=True)


def measure(sides: list[str], jobs: list[Job], given: argparse.Namespace) -> dict[tuple[Job, str], list[Run]]:
    """Run every job on every side in turns, after one round that does not count."""
    running = {name: Side(name, given) for name in sides}
    runs: dict[tuple[Job, str], list[Run]] = {(job, name): [] for job in jobs for name in sides}
    try:
        for job in jobs:
            for number in range(given.rounds + 1):
                for name, side in running.items():
                    run = side.run(job)
                    if number:
                        runs[job, name].append(run)
                    print(f"{job.what} {name} {run}", file=sys.stderr, flush=True)
    finally:
        for side in running.values():
            side.close()
    return runs


def summary(runs: list[Run]) -> dict[str, Any]:
    """Return medians and all values of a side's runs of a job."""
    return dict(
        median_s=statistics.median(run.seconds for run in runs),
        median_cpu_s=statistics.median(run.cpu_seconds for run in runs),
        peak_gb=max(run.peak_gb for run in runs),
        all_s=[run.seconds for run in runs],
    )


def table(results: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table; ratios are of the medians of the wall clock."""
    lines = ["| what | side | median | processor | of MMDetection | of the floor | peak memory |", "|---" * 7 + "|"]
    for result in results:
        same = [other for other in results if other["job"] == result["job"]]
        ratios = []
        for base in (MMDET, FLOOR):
            medians = [other["median_s"] for other in same if other["side"] == base]
            ratios.append(f"{result['median_s'] / medians[0]:.2f}" if medians else "")
        job = result["job"]
        what = f"{job['what']}, {job['batch']} x {job['size'][0]}x{job['size'][1]}"
        cells = [what, SIDES[result["side"]], f"{result['median_s']:.2f} s", f"{result['median_cpu_s']:.2f} s", *ratios]
        lines.append("| " + " | ".join([*cells, f"{result['peak_gb']:.2f} GB"]) + " |")
    return lines


def exponent(points: list[tuple[float, float]]) -> float:
    """Return the slope of a straight line through points (x, y) on logarithmic scales, by least squares."""
    xs, ys = ([math.log(point[i]) for point in points] for i in (0, 1))
    x, y = statistics.mean(xs), statistics.mean(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys)) / sum((a - x) ** 2 for a in xs)


def curves(sides: list[str], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure cost against image size, batch and queries."""
    results = []
    for name in (side for side in sides if side != FLOOR):
        side = Side(name, given)
        for what, (height, width) in ((INFERENCE, given.size), (TRAINING, given.training_size)):
            sizes = [(round(height * share / 32) * 32, round(width * share / 32) * 32) for share in (0.5, 0.7, 1.0)]
            jobs = {size[0] * size[1]: Job(what, size, 1) for size in sizes}
            results.append(_curve(name, what, "pixels", {x: side.run for x in jobs}, jobs))
            batches = {batch: Job(what, sizes[0], batch) for batch in (1, 2, 4)}
            results.append(_curve(name, what, "images", {x: side.run for x in batches}, batches))
        side.close()
        few = {count: Side(name, given, count) for count in (300, 600, 900)}
        for what, size in ((INFERENCE, given.training_size), (TRAINING, given.training_size)):
            jobs = {count: Job(what, size, 1) for count in few}
            results.append(_curve(name, what, "queries", {x: one.run for x, one in few.items()}, jobs))
        for one in few.values():
            one.close()
    return results


def _curve(name: str, what: str, axis: str, run: dict[int, Any], jobs: dict[int, Job]) -> dict[str, Any]:
    points = []
    for x, job in jobs.items():
        run[x](job)
        result = run[x](job)
        points.append(dict(x=x, **asdict(result)))
    costs = {key: exponent([(point["x"], point[key]) for point in points]) for key in ("seconds", "peak_gb")}
    powers = dict(exponent_s=costs["seconds"], exponent_gb=costs["peak_gb"])
    return dict(side=name, what=what, axis=axis, **powers, points=points)


def curve_table(found: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of exponents."""
    lines = ["| what | side | against | time grows with the power | memory |", "|---" * 5 + "|"]
    for curve in found:
        cells = [curve["what"], SIDES[curve["side"]], curve["axis"]]
        lines.append("| " + " | ".join([*cells, f"{curve['exponent_s']:.2f}", f"{curve['exponent_gb']:.2f}"]) + " |")
    return lines


def waits(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Count how often the host would wait for a GPU, with tools.cuda_standin, for 1, 2 and 4 images."""
    from legacy_adapters.targets import ddq_detr

    fast = ["--new-adapter", str(ddq_detr.LAYOUTS.parent / "fast.py")]
    found = []
    for name, arguments in ((OURS, ["ddq_port"]), (FAST, ["ddq_port", *fast]), (MMDET, ["mmdet_ddq"])):
        command = [sys.executable, "-m", "tools.cuda_standin", *arguments, "--variant", given.variant, "--no-gradients"]
        command += ["--images", "1", "2", "4", "--size", "96x128", "--objects", str(OBJECTS)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        lines = [json.loads(line) for line in ran.stdout.splitlines()]
        found += [dict(side=name, images=x["images"], stage=x["stage"], waits=x["waits"]) for x in lines]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="r50_4scale")
    parser.add_argument("--size", default="800x1216", help="HxW of the image of inference")
    parser.add_argument("--training-size", default="480x640", help="HxW of both images of the training step")
    parser.add_argument("--rounds", type=int, default=5, help="that count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="of torch")
    parser.add_argument("--sides", default=",".join(SIDES), help="in this order in each round")
    parser.add_argument("--curves", action="store_true", help="cost against image size, batch and queries, too")
    parser.add_argument("--waits", action="store_true", help="how often the host waits, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file, too")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--queries", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given)
        return
    given.size, given.training_size = (tuple(map(int, text.split("x"))) for text in (given.size, given.training_size))
    sides = given.sides.split(",")
    jobs = [Job(INFERENCE, given.size, 1), Job(TRAINING, given.training_size, 2)]
    runs = measure(sides, jobs, given)
    results = [dict(job=asdict(job), side=name, **summary(found)) for (job, name), found in runs.items()]
    told: dict[str, Any] = dict(variant=given.variant, threads=given.threads, device=given.device, results=results)
    lines = [f"{given.variant}, {given.threads} threads, {given.device}, median of {given.rounds}", "", *table(results)]
    if given.curves:
        told["curves"] = curves(sides, given)
        lines += ["", *curve_table(told["curves"])]
    if given.waits:
        told["waits"] = waits(given)
        counts = told["waits"]
        lines += ["", *(f"{x['stage']}, {x['images']} images, {SIDES[x['side']]}: {x['waits']}" for x in counts)]
    print("\n".join(lines))
    if given.json:
        given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
