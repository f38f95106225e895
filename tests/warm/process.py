"""Do jobs in forks of this process, which has imported a code base: ``python process.py MODULE ...``.

It starts no thread, for a fork of a process with a pool of threads hangs. Requests are lines of JSON, a
:class:`Request` each; the answers are lines, too: the number of the fork's process, and when it has ended its exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any


def main(modules: list[str]) -> None:
    """Import, say so, and do jobs until the input ends."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # was the folder of this file
    answers = os.dup(1)
    os.dup2(2, 1)  # what the imports print is no answer
    import torch

    torch.set_num_threads(1)
    for name in modules:
        module, _, function = name.partition(":")
        imported = importlib.import_module(module)
        if function:
            getattr(imported, function)()
    gc.freeze()  # a fork that looked at what is here would copy it
    os.write(answers, b"ready\n")
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            _work(**request)
        os.write(answers, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _work(job: str, log: str, environment: dict[str, Any]) -> None:
    """Do the job as ``worker.py JOB`` would in a session of its own, and end this process, whatever happens."""
    code = 1
    try:
        os.setsid()
        os.chdir(Path(log).parent)
        os.environ.clear()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(written, 1)
        os.dup2(written, 2)
        from legacy_adapters import worker

        sys.argv = [worker.__file__, job]
        code = worker.main(job)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
