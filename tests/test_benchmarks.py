"""The benchmarks run and print their tables; what they measure is in docs/performance.md."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_traces_at_tiny_width(tmp_path):
    folder = tmp_path / "traces"
    command = [sys.executable, "-m", "benchmarks.traces", "--folder", folder]
    command += ["--variant", "tiny_4scale", "--size", "64x96", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert any(row.startswith("| compare, every record differs") for row in rows) and len(rows) > 10
    assert not folder.exists()
