"""What capturing and comparing a trace cost: ``python -m benchmarks.traces --folder EMPTY``.

Records inference of one image on both sides, compares the two traces, which are equal, and one of them with a twin of
the other in which every record differs, and sets that against a plain forward, a plain write and a plain ``cmp`` of the
same files. Prints a table in Markdown. Needs four times the size of a trace on disk, and as much free memory as two of
them have bytes, or it measures the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from converters.rules.ports import port
from legacy_adapters.job import Job
from legacy_adapters.recording.trace_writer import sealed
from parity.comparing.pairing import LEGACY, NEW
from parity.sides.settings import Machine, Sources, Task
from parity.sides.sides import Sides, prepare
from parity.traces.trace import Trace

ROOT = Path(__file__).parents[1]
FAMILY, CAPTURED = "mmdet_ddq", "captured"
#: What the figures must be: speed of comparing by that of cmp, cost of capturing in plain forwards, bytes of memory.
EQUAL_SPEED, DIFFERING_SPEED, CAPTURE_COST, PEAK = 2.0, 0.4, 1.25, 1.5e9


@dataclass(frozen=True)
class Process:
    """A command that was run: seconds it took, its largest resident memory in bytes."""

    seconds: float
    peak: int


def main() -> None:
    arguments = _arguments()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True)
    try:
        rows = measure(folder, arguments.variant, arguments.size, arguments.rounds)
    finally:
        shutil.rmtree(folder)
    print(_machine(arguments))
    print("\n| what | median | all rounds | ratio | must be |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for everything; must not exist, is removed again")
    parser.add_argument("--variant", default="r50_4scale")
    parser.add_argument("--size", default="800x1333", help="of the image, HxW")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def measure(folder: Path, variant: str, size: str, rounds: int) -> list[tuple[str, ...]]:
    """Return the rows of the table."""
    height, width = map(int, size.split("x"))
    task = Task(port(FAMILY, variant), ((height, width),), None, 0, ("forward",))
    machine = Machine("cpu", torch.get_num_threads(), None, 3600.0)
    sides = Sides(task, Sources(), machine, prepare(task, Sources(), machine), folder)
    legacy_trace = sides.legacy()
    found = _captured(_job(folder, task, machine), rounds)
    shutil.rmtree(folder / CAPTURED)  # of inference alone; a run records more beside it
    sides.new(twin=legacy_trace.records)
    legacy, new, twin, copy = folder / LEGACY, folder / NEW, folder / "twin", folder / "copy"
    gigabytes = sum(file.stat().st_size for file in legacy.iterdir()) / 1e9

    shutil.copytree(legacy, copy)
    plain, equal = _turns(rounds, lambda: _cmp(copy, legacy), lambda: _compare(legacy, new, variant, 0))
    shutil.rmtree(copy)
    _process([sys.executable, "-m", "benchmarks.twin", str(new), str(twin)], 0)
    shutil.rmtree(new)
    sample = min(legacy.glob("*.safetensors"))
    copy.mkdir()
    shutil.copy(sample, copy)
    again, differing = _turns(rounds, lambda: _cmp(copy, legacy), lambda: _compare(legacy, twin, variant, 1))
    empty = _empty(legacy, folder / "empty")
    (start,) = _turns(rounds, lambda: _compare(empty, empty, variant, 3))

    sampled = sample.stat().st_size / 1e9
    return [
        (f"trace: {len(Trace.load(legacy).records)} records", f"{gigabytes:.2f} GB", "", "", ""),
        *_capture_rows(found),
        _row("cmp, equal", plain, gigabytes, None, None),
        _row("compare, equal", equal, gigabytes, _rate(plain, gigabytes), EQUAL_SPEED),
        _row(f"cmp of {sampled:.2f} GB, equal, in turns with the next", again, sampled, None, None),
        _row("compare, every record differs", differing, gigabytes, _rate(again, sampled), DIFFERING_SPEED),
        _row("in both: to start, with a trace without records", start, None, None, None),
        ("peak memory, equal", *_peak(equal)),
        ("peak memory, every record differs", *_peak(differing)),
    ]


def _job(folder: Path, task: Task, machine: Machine) -> Path:
    """Write the job that captures the new side and return its path."""
    job = Job(
        family=task.port.family.name,
        variant=task.port.variant.name,
        adapter=str(task.port.family.new.adapter),
        options=dict(task.port.variant.new),
        weights=str(folder / f"{NEW}.weights.safetensors"),
        inputs=str(folder / "inputs.safetensors"),
        trace=str(folder / CAPTURED),
        status="",
        checks=task.checks,
        seed=task.seed,
        threads=machine.threads,
        cpu_capability=None,
        device=machine.device,
    )
    job.save(str(folder / "new.job.json"))
    return folder / "new.job.json"


def _captured(job: Path, rounds: int) -> dict:
    command = [sys.executable, "-m", "benchmarks.capturing", str(job), str(rounds)]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def _capture_rows(found: dict) -> list[tuple[str, ...]]:
    gigabytes = found["bytes"] / 1e9
    cost = [(captured - written) / plain for captured, written, plain in
            zip(found["captured"], found["written"], found["plain"])]  # fmt: skip
    median = {name: statistics.median(found[name]) for name in ("plain", "captured", "written")}
    overall = (median["captured"] - median["written"]) / median["plain"]
    ratio = f"{overall:.2f} forwards ({_list(cost)})"
    return [
        ("plain forward", f"{median['plain']:.2f} s", _list(found["plain"]), "", ""),
        (f"plain write of {gigabytes:.2f} GB", f"{median['written']:.2f} s", _list(found["written"]), "", ""),
        ("capture", f"{median['captured']:.2f} s", _list(found["captured"]), "", ""),
        ("capture without the write", "", "", ratio, f"at most {CAPTURE_COST}"),
    ]


def _turns(rounds: int, *works) -> list[list[Process]]:
    """Run each work once to warm the page cache up, then all in turns."""
    for work in works:
        work()
    turns = [[work() for work in works] for _ in range(rounds)]
    return [list(column) for column in zip(*turns)]


def _cmp(one: Path, two: Path) -> Process:
    """Compare the shards of folder ``one`` with their namesakes."""
    pairs = " && ".join(f"cmp '{file}' '{two / file.name}'" for file in sorted(one.glob("*.safetensors")))
    return _process(["sh", "-c", pairs], 0)


def _compare(one: Path, two: Path, variant: str, code: int) -> Process:
    command = [sys.executable, "-m", "parity", "compare", str(one), str(two)]
    return _process([*command, "--family", FAMILY, "--variant", variant, "--quiet"], code)


def _process(command: list[str], code: int) -> Process:
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != code:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}; expected {code}.")
    return Process(seconds, usage.ru_maxrss * 1024)


def _empty(trace: Path, folder: Path) -> Path:
    index = json.loads((trace / "index.json").read_text())
    folder.mkdir()
    index["coverage"].pop("records", None)  # how many of each kind there must be
    (folder / "index.json").write_text(json.dumps(sealed({**index, "records": [], "shards": {}})))
    return folder


def _seconds(processes: Sequence[Process]) -> list[float]:
    return [process.seconds for process in processes]


def _rate(processes: Sequence[Process], gigabytes: float) -> float:
    return gigabytes / statistics.median(_seconds(processes))


def _row(
    what: str, processes: Sequence[Process], gigabytes: float | None, reference: float | None, must: float | None
) -> tuple[str, ...]:
    seconds = _seconds(processes)
    rate = f", {_rate(processes, gigabytes):.2f} GB/s" if gigabytes else ""
    ratio = f"{_rate(processes, gigabytes) / reference:.2f} of cmp" if reference else ""
    bound = f"at least {must}" if must else ""
    return what, f"{statistics.median(seconds):.2f} s{rate}", _list(seconds), ratio, bound


def _peak(processes: Sequence[Process]) -> tuple[str, ...]:
    peaks = [process.peak / 1e9 for process in processes]
    return f"{statistics.median(peaks):.2f} GB", _list(peaks), "", f"under {PEAK / 1e9} GB"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _machine(arguments: argparse.Namespace) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{arguments.variant}, {arguments.size}, inference, {arguments.rounds} rounds; {processor}, "
        f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GB; Python {platform.python_version()}, "
        f"torch {torch.__version__}; commit {commit.stdout.strip()}"
    )


if __name__ == "__main__":
    main()
