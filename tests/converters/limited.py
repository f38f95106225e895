"""Run commands, each in a process of its own with little memory and time: python limited.py < COMMANDS

A command is a line of JSON, the arguments of `ddq-convert`. Prints for each one line of JSON: how it ended, what it
wrote to stderr, how much memory in MiB and how many seconds of CPU it took.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import torch  # noqa: F401  so that the limits are on the work and not on imports
from click.testing import CliRunner

from converters import api  # noqa: F401
from converters.cli import render  # noqa: F401
from converters.cli.main import cli
from converters.examining import inspection  # noqa: F401

MEMORY, SECONDS = 1 << 30, 20  # far beyond what is asserted, so that nothing harms the machine


def _run(args: list[str]) -> dict[str, object]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = CliRunner().invoke(cli, args)
    used = resource.getrusage(resource.RUSAGE_SELF)
    crashed = result.exception is not None and not isinstance(result.exception, SystemExit)
    return {
        "code": repr(result.exception) if crashed else result.exit_code,
        "stderr": result.stderr,
        "grown": (used.ru_maxrss - before) / 1024,
        "seconds": used.ru_utime + used.ru_stime,
    }


def main() -> None:
    """Fork for every command, so that what one leaves in memory is gone for the next."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for line in sys.stdin:
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            if status:
                print(json.dumps({"code": f"ended by {status}", "stderr": "", "grown": 0, "seconds": 0}), flush=True)
            continue
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        print(json.dumps(_run(json.loads(line))), flush=True)
        os._exit(0)


main()
