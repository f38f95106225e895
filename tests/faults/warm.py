"""Do jobs of the legacy side in forks of this process, which has imported that side's code base and nothing of the port.

Reads a JSON list ``[job file, log file]`` a line and answers each with the exit code of the fork that did it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Import, say so, and do jobs until the input ends."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # was the folder of this file, which has modules of its own
    answers = os.dup(1)
    os.dup2(2, 1)  # what the imports print is no answer
    import torch

    from legacy_adapters import standin

    torch.set_num_threads(1)
    standin.install()
    import mmdet.models  # noqa: F401

    os.write(answers, b"ready\n")
    for line in sys.stdin:
        job_file, log_file = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _work(job_file, log_file)
        _, status = os.waitpid(pid, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _work(job_file: str, log_file: str) -> None:
    """Do the job and end this process, whatever happens."""
    from legacy_adapters import worker

    code = 1
    try:
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = worker.main(job_file)
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
