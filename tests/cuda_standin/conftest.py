"""Processes that believe they have a GPU, and what they print."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def child(module, *arguments, exit_code=0):
    """Run a module in a process of its own; return what its lines of JSON hold."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == exit_code, ran.stdout[-2000:] + ran.stderr[-2000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]
