"""Do jobs in forks of this process, which has imported a code base: ``python process.py MODULE ...``.

It starts no thread, for a fork of a process with a pool of threads hangs. Requests are lines of JSON, the arguments of
:func:`_work`; the answers are lines, too: the number of the fork's process, and when it has ended its exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from types import ModuleType


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
    if executed := sys.modules.get("legacy_adapters.provenance.executed"):
        executed.packages(), executed.files()  # resolve thousands of paths, once for all forks
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


def _work(arguments: list[str], folder: str, output: str, errors: str, environment: dict[str, str]) -> None:
    """Do what Python does with these arguments, in a session of its own, and end this process, whatever happens.

    Args:
        arguments: ``-c CODE``, ``-m MODULE`` or ``FILE``, and what follows; or ``job FILE`` for a worker's job.
        folder: to start in.
        output: file for what is printed.
        errors: file for what is printed to stderr; may be the same.
        environment: of the process.
    """
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(written, 1)
        os.dup2(written if errors == output else os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        code = _job(arguments[1]) if arguments[0] == "job" else _code_of(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _job(path: str) -> int:
    from legacy_adapters import worker

    sys.argv = [worker.__file__, path]
    return worker.main(path)


def _code_of(arguments: list[str]) -> int:
    """Run a program to its end and return its exit code."""
    first, *rest = arguments
    try:
        if first == "-c":
            sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), main.__dict__)
        elif first == "-m":
            sys.argv, sys.path[0] = ["-m", *rest[1:]], os.getcwd()
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.abspath(first))
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])
