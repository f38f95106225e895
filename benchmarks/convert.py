"""What a conversion costs: ``python -m benchmarks.convert --folder EMPTY``.

Converts a 4-scale checkpoint of 195 MB, in a process of its own each time, in turns with a plain script that loads and
saves it with torch; then one of 1 GB, in turns with `cp`, `sync` and SHA-256 of the same file. Prints a table in
Markdown; exit code 1 if a figure is not good enough. Needs 4 GB of disk.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks import enlarged
from converters.rules.ports import port

ROOT = Path(__file__).parents[1]
#: What the figures must be: seconds; bytes beside the largest tensor; times the copying, and seconds beside it.
SECONDS, MEMORY, TIMES, MORE = 1.0, 150e6, 1.5, 0.5
NAIVE = """
import sys, torch
from safetensors.torch import save_file
state = torch.load(sys.argv[1], map_location="cpu", weights_only=True)["state_dict"]
save_file({k: v.clone() for k, v in state.items() if not k.startswith("decoder.aux_reg_branches")}, sys.argv[2])
"""
RULES = """
import sys, time
from converters import checkpoint, detect, engine
loaded = checkpoint.read(sys.argv[1])
start = time.perf_counter()
found = detect.detect(loaded.state_dict)
engine.convert(loaded.state_dict, found.port.mapping, "new", found.port.layout("new"))
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, and its largest resident memory in bytes."""

    seconds: float
    peak: float = math.nan


@dataclass(frozen=True)
class Row:
    """A line of the table; `good` is None where nothing is asked."""

    what: str
    costs: Sequence[Cost]
    must: str = ""
    good: bool | None = None

    def __str__(self) -> str:
        seconds = [cost.seconds for cost in self.costs]
        peak = max(cost.peak for cost in self.costs) / 1e6
        verdict = "" if self.good is None else f"{self.must}: {'yes' if self.good else 'NO'}"
        rounds = ", ".join(f"{value:.2f}" for value in seconds)
        memory = "" if math.isnan(peak) else f"{peak:.0f} MB"
        return f"| {self.what} | {statistics.median(seconds):.2f} s | {rounds} | {memory} | {verdict} |"


def main() -> None:
    arguments = _arguments()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True)
    try:
        rows = [*_small(folder, arguments.rounds), *_large(folder, arguments.rounds)]
    finally:
        shutil.rmtree(folder)
    print(_machine(arguments.rounds))
    print("\n| what | median | all rounds | peak memory | must be |\n|---|---|---|---|---|")
    for row in rows:
        print(row)
    sys.exit(any(row.good is False for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for everything; must not exist, is removed again")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def _small(folder: Path, rounds: int) -> list[Row]:
    """Measure the checkpoint of 195 MB."""
    source, new, pth = folder / "legacy.pth", folder / "new.safetensors", folder / "new.pth"
    largest = _checkpoint(source, "ddq_detr", "r50_4scale")
    convert = [sys.executable, "-m", "converters", "convert", str(source)]
    start, naive, safe, rules, torch_made, verified = _turns(
        rounds,
        lambda: _process([sys.executable, "-m", "converters", "--version"]),
        lambda: _process([sys.executable, "-c", NAIVE, str(source), str(folder / "naive.safetensors")]),
        lambda: _fresh(new, [*convert, str(new)]),
        lambda: Cost(float(_output([sys.executable, "-c", RULES, str(source)]))),
        lambda: _fresh(pth, [*convert, str(pth)]),
        lambda: _process([sys.executable, "-m", "converters", "verify", str(new), "--source", str(source)]),
    )
    size = f"{source.stat().st_size / 1e6:.0f} MB"
    allowed = largest + MEMORY
    return [
        Row("to start: `ddq-convert --version`", start),
        Row(f"load and save with torch, {size} to .safetensors", naive),
        Row(f"convert, {size} to .safetensors", safe, f"at most {SECONDS:.1f} s", _median(safe) <= SECONDS),
        Row(
            f"its memory: largest tensor {largest / 1e6:.0f} MB",
            safe,
            f"at most {allowed / 1e6:.0f} MB",
            max(cost.peak for cost in safe) <= allowed,
        ),
        Row("of it: to tell the layout, to apply and check the rules", rules),
        Row(f"convert, {size} to .pth (imports torch)", torch_made),
        Row("verify the .safetensors with its source", verified),
    ]


def _large(folder: Path, rounds: int) -> list[Row]:
    """Measure the checkpoint of 1 GB."""
    family, source, new = folder / "family", folder / "large.pth", folder / "large.safetensors"
    enlarged.write_family(family)
    largest = _checkpoint(source, str(family), enlarged.NAME)
    command = [sys.executable, "-m", "converters", "convert", str(source), str(new), "--family", str(family)]
    plain, made = _turns(rounds, lambda: _copied(source, folder / "copy"), lambda: _fresh(new, command))
    size, allowed = f"{source.stat().st_size / 1e9:.2f} GB", TIMES * _median(plain) + MORE
    return [
        Row(f"cp, sync and SHA-256 of {size}", plain),
        Row(f"convert, {size} to .safetensors", made, f"at most {allowed:.2f} s", _median(made) <= allowed),
        Row(
            f"its memory: largest tensor {largest / 1e6:.0f} MB",
            made,
            f"at most {(largest + MEMORY) / 1e6:.0f} MB",
            max(cost.peak for cost in made) <= largest + MEMORY,
        ),
    ]


def _checkpoint(path: Path, family: str, variant: str) -> int:
    """Write a legacy checkpoint as training leaves it; return the bytes of its largest tensor."""
    # in a process of its own: the memory of this one counts as that of every process it starts
    process = multiprocessing.get_context("spawn").Process(target=_save, args=(path, family, variant))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"The checkpoint of {variant} could not be written.")
    tensors = port(family, variant).layout("new").tensors
    return max(4 * math.prod(spec.shape) for spec in tensors.values() if spec.dtype == "float32")


def _save(path: Path, family: str, variant: str) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randint(0, 1000, spec.shape)
        if spec.dtype == "int64"
        else torch.randn(spec.shape, generator=generator)
        for key, spec in port(family, variant).layout("legacy").tensors.items()
    }
    branches = [key for key in state if key.startswith("bbox_head.aux_reg_branches.")]
    state |= {key.replace("bbox_head.", "decoder."): state[key] for key in branches}
    torch.save({"meta": {"epoch": 12}, "state_dict": state}, path)


def _turns(rounds: int, *works: Callable[[], Cost]) -> list[list[Cost]]:
    """Run each work once to warm the page cache up, then all in turns."""
    for work in works:
        work()
    turns = [[work() for work in works] for _ in range(rounds)]
    return [list(column) for column in zip(*turns)]


def _fresh(destination: Path, command: list[str]) -> Cost:
    """Run a command that writes `destination`, and its manifest, anew."""
    destination.unlink(missing_ok=True)
    destination.with_name(destination.name + ".manifest.json").unlink(missing_ok=True)
    os.sync()
    return _process(command)


def _copied(source: Path, copy: Path) -> Cost:
    copy.unlink(missing_ok=True)
    os.sync()
    start = time.perf_counter()
    subprocess.run(["cp", source, copy], check=True)
    subprocess.run(["sync", copy], check=True)
    with source.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    return Cost(time.perf_counter() - start)


def _process(command: list[str]) -> Cost:
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}.")
    return Cost(seconds, usage.ru_maxrss * 1024)


def _output(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def _median(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.seconds for cost in costs)


def _machine(rounds: int) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return (
        f"{rounds} rounds, in turns; {processor}, {len(os.sched_getaffinity(0))} cores; "
        f"Python {platform.python_version()}, torch {metadata.version('torch')}; commit {commit.stdout.strip()}"
    )


if __name__ == "__main__":
    main()
