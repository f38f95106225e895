"""What is left when a conversion is killed: ``python -m benchmarks.crashes --folder EMPTY``.

Converts a checkpoint in processes of their own and kills each (``kill -9``) at a random moment, from its start to a
little after its end. After every kill: the output, if it is there under its name, must verify against its manifest and
its source; everything else must be a temporary file; the source must be as it was; and the next run must succeed and
leave nothing but its output. Prints a table in Markdown; exit code 1 if anything else was found.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import CheckpointError, VerificationError
from converters.examining import verification

ROOT = Path(__file__).parents[1]
#: What may be left behind beside the source and the output.
TEMPORARY = re.compile(r"\..+\.\d+(-\d+)?\.ddq-convert\.(tmp|old)")
NOTHING, LEFTOVERS, COMPLETE = "nothing left", "temporary files left", "output complete"


@dataclass(frozen=True)
class Tally:
    """What was found after each kill of one kind of conversion, and what should not have been found."""

    what: str
    found: Counter[str]
    faults: tuple[str, ...]


def main() -> None:
    arguments = _arguments()
    arguments.folder.mkdir(parents=True)
    try:
        tallies = [
            kill(arguments.source, arguments.folder / name, options, arguments.kills, arguments.seed)
            for name, options in (
                ("new.safetensors", ()),
                ("split.safetensors", ("--shard-size", "50MB")),
                ("new.pth", ()),
            )
        ]
    finally:
        shutil.rmtree(arguments.folder)
    print(f"| killed | {NOTHING} | {LEFTOVERS} | {COMPLETE} | anything else |\n|---|---|---|---|---|")
    for tally in tallies:
        counts = (tally.found[outcome] for outcome in (NOTHING, LEFTOVERS, COMPLETE))
        print(f"| {tally.what} | {' | '.join(map(str, counts))} | {len(tally.faults)} |")
    for fault in (fault for tally in tallies for fault in tally.faults):
        print(fault, file=sys.stderr)
    sys.exit(any(tally.faults for tally in tallies))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for everything; must not exist, is removed again")
    parser.add_argument("--source", type=Path, required=True, help="a legacy checkpoint")
    parser.add_argument("--kills", type=int, default=50, help="of each kind of output")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def kill(source: Path, destination: Path, options: Sequence[str], kills: int, seed: int) -> Tally:
    """Kill conversions of `source` into `destination` at random moments and look at what each has left."""
    before = _sha256(source)
    command = [sys.executable, "-m", "converters", "convert", str(source), str(destination), "--quiet", *options]
    whole = statistics.median(_timed(command, destination) for _ in range(3))
    moments = random.Random(seed)
    found: Counter[str] = Counter()
    faults: list[str] = []
    for number in range(kills):
        delay = moments.uniform(0, 1.1 * whole)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        outcome, fault = look(source, destination)
        found[outcome] += 1
        fault = fault or ("the source was changed" if _sha256(source) != before else None)
        fault = fault or _next_run(command, destination)
        faults += [f"{destination.name}, kill {number} after {delay:.3f} s: {fault}"] if fault else []
        _clear(destination)
    return Tally(f"{kills} x {destination.name} of {whole:.2f} s", found, tuple(faults))


def look(source: Path, destination: Path) -> tuple[str, str | None]:
    """Tell what a killed conversion has left beside its source, and what of that should not be there."""
    left = [path for path in destination.parent.iterdir() if path != source]
    temporary = [path for path in left if TEMPORARY.fullmatch(path.name)]
    outcome = LEFTOVERS if temporary else NOTHING
    if len(temporary) == len(left):
        return outcome, None
    try:
        verification.verify_file(destination, source)
    except (CheckpointError, VerificationError) as error:
        return outcome, f"{', '.join(sorted(path.name for path in left))} left: {error}"
    return COMPLETE, None


def _next_run(command: Sequence[str], destination: Path) -> str | None:
    """Run the conversion to its end; say what is wrong with it."""
    done = subprocess.run([*command, "--force"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return f"the next run failed: {done.stderr.strip()}"
    hidden = sorted(path.name for path in destination.parent.iterdir() if path.name.startswith("."))
    return f"the next run left {', '.join(hidden)}" if hidden else None


def _timed(command: Sequence[str], destination: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    seconds = time.perf_counter() - start
    _clear(destination)
    return seconds


def _clear(destination: Path) -> None:
    for path in destination.parent.iterdir():
        if path.name.removeprefix(".").startswith(destination.stem):
            path.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
