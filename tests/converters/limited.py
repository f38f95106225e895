"""Inspect files, each in a process of its own with little memory and time: python limited.py FILE...

Prints for each file one line of JSON: how it ended, what it wrote to stderr, memory at the end in MiB, seconds of CPU.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

from click.testing import CliRunner

from converters import inspection, render  # noqa: F401  so that the limits are on the work and not on imports
from converters.cli import cli

MEMORY, SECONDS = 1 << 30, 20  # address space, CPU; far beyond what is asserted, so that nothing harms the machine


def _inspect(path: str) -> dict[str, object]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = CliRunner().invoke(cli, ["inspect", path])
    used = resource.getrusage(resource.RUSAGE_SELF)
    crashed = result.exception is not None and not isinstance(result.exception, SystemExit)
    return {
        "code": repr(result.exception) if crashed else result.exit_code,
        "stdout": result.stdout[:2000],
        "stderr": result.stderr,
        "grown": (used.ru_maxrss - before) / 1024,
        "seconds": used.ru_utime + used.ru_stime,
    }


for name in sys.argv[1:]:
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"file": Path(name).name, "code": f"ended by {status}", "stderr": ""}), flush=True)
        continue
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    print(json.dumps({"file": Path(name).name, **_inspect(name)}), flush=True)
    os._exit(0)
