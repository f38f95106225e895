"""Do jobs and run Python's programs in forks of processes that have imported what these import first.

:func:`execute` stands in for :func:`legacy_adapters.launch.execute`, :func:`python` for ``subprocess.run``.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from legacy_adapters import launch
from parity.runs import reproducer

from . import recordings

PROCESS = Path(__file__).with_name("process.py")
_RECORDER_FOLDER = Path(launch.__file__).parent
_ROOMS = ("numerics", "provenance", "recording", "tasks", "training")
#: What jobs import, be it only when they run.
_RECORDER = (
    "resource", "safetensors.torch", "torch.onnx",
    *(f"legacy_adapters.{name}" for name in ("contract", "inputs", "loading", "origin", "worker")),
    *(
        f"legacy_adapters.{room}.{file.stem}"
        for room in _ROOMS for file in sorted((_RECORDER_FOLDER / room).glob("[!_]*.py"))
    ),
)  # fmt: skip
#: What a warm process of each kind has imported; the legacy side's must hold nothing of the port.
KINDS = {
    "port": ("ddq_port.models", "mmdet.models", "legacy_adapters.mmdet3", *_RECORDER),
    "mmdet": ("legacy_adapters.standin:install", "mmdet.models", "legacy_adapters.mmdet3", *_RECORDER),
    "plain": _RECORDER,
}
KINDS["faults"] = (*KINDS["port"], "tests.faults.catalogue")
_FAULTS = Path(__file__).parents[1] / "faults"
#: Variables of the environment that a job sets and a fork can still obey.
_OBEYED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")
#: Beginnings of those that only the start of a process heeds.
_HEEDED_AT_START = ("PYTHON", "LD_", "ATEN_", "MKL_", "TORCH", "CUDA", "LC_", "LANG")
#: Beginning of those that torch itself sets when a test first needs its compiler: they change nothing here, but if they
#: counted, no warm process would serve from then on.
_SET_BY_TORCH = "TORCHINDUCTOR_"
#: Nothing else is where a warm process, whose path begins there, looks for modules.
_WARM_PATH = ("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
#: Kernels of torch, which the start of a process chooses; there are warm processes of each choice.
_KERNELS = "ATEN_CPU_CAPABILITY"

#: Seconds that a program may take.
_LONGEST = 600.0

_scratch = launch.execute
_warm: dict[tuple[str, str | None], Warm] = {}


class Warm:
    """A process that does jobs in forks of itself.

    Args:
        kind: a key of ``KINDS``.
        kernels: value of the environment variable that chooses torch's kernels; None for torch's own choice.
    """

    def __init__(self, kind: str, kernels: str | None) -> None:
        environment = {**os.environ, **dict.fromkeys(_OBEYED[:3], "1")}
        environment |= {} if kernels is None else {_KERNELS: kernels}
        self.process = subprocess.Popen(
            [sys.executable, str(PROCESS), *KINDS[kind]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
        self.environment = environment
        atexit.register(self.end)
        if self._answer(None) != "ready":
            raise RuntimeError(f"The warm process of {kind} did not start.")

    def serves(self, environment: dict[str, str]) -> bool:
        """Tell whether a fork is as good as a process with this environment."""

        def fixed(variables: dict[str, str]) -> dict[str, str]:
            heeded = (name for name in variables if name.startswith(_HEEDED_AT_START))
            names = (name for name in heeded if name not in _OBEYED and not name.startswith(_SET_BY_TORCH))
            return {name: variables[name] for name in names if (name, variables[name]) != _WARM_PATH}

        return fixed(environment) == fixed(self.environment)

    def run(
        self, arguments: list[str], folder: Path, output: Path, errors: Path, environment: dict[str, str],
        time_limit: float,
    ) -> int:  # fmt: skip
        """Do in a fork what :func:`tests.warm.process._work` says; return the exit code."""
        request = dict(
            arguments=arguments, folder=str(folder), output=str(output), errors=str(errors), environment=environment
        )
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        pid, code = int(self._answer(None)), None
        try:
            code = self._answer(time_limit)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # and whatever it started
            if code is None:
                self._answer(None)
        if code is None:
            raise subprocess.TimeoutExpired(arguments, time_limit)
        return int(code)

    def end(self) -> None:
        """Kill the process."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _answer(self, time_limit: float | None) -> str | None:
        if not select.select([self.process.stdout], [], [], time_limit)[0]:
            return None
        return self._line()

    def _line(self) -> str:
        letters = b""
        while not letters.endswith(b"\n"):  # unbuffered: `select` must see what is left
            letter = os.read(self.process.stdout.fileno(), 1)
            if not letter:
                raise RuntimeError("The warm process ended.")
            letters += letter
        return letters.decode().strip()


def execute(command: list[str], log_file: Path, environment: dict[str, str], time_limit: float) -> int:
    """Run a job in a fork of the warm process of its code base, or from scratch if there is none for it.

    What an equal job has written before is written again instead, see :mod:`tests.warm.recordings`.
    """

    def work() -> int:
        warm = _serving(kind, environment)
        if warm is None:
            return _scratch(command, log_file, environment, time_limit)
        return warm.run(["job", job], log_file.parent, log_file, log_file, environment, time_limit)

    python, _, job = command
    kind = _kind(json.loads(Path(job).read_text())) if python == sys.executable else None
    if kind is None:
        return _scratch(command, log_file, environment, time_limit)
    return recordings.recalled(job, log_file, environment, work)


def python(
    *arguments: object, kind: str = "port", cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program as ``subprocess.run([sys.executable, *arguments], capture_output=True, text=True)`` does.

    Args:
        *arguments: ``-c CODE``, ``-m MODULE`` or ``FILE``, and what follows.
        kind: of the warm process.
        cwd: folder to start in; None for the current one.
        env: environment; None for that of this process.
    """
    command, environment = [str(argument) for argument in arguments], dict(os.environ if env is None else env)
    warm = _serving(kind, environment)
    if warm is None:
        whole = [sys.executable, *command]
        return subprocess.run(whole, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        code = warm.run(command, Path(cwd or ".").absolute(), output, errors, environment, _LONGEST)
        return subprocess.CompletedProcess(command, code, output.read_text(), errors.read_text())


def _serving(kind: str, environment: dict[str, str]) -> Warm | None:
    """Return the warm process that serves a job with this environment, started if need be; None if none does."""
    key = kind, environment.get(_KERNELS)
    if key not in _warm or _warm[key].process.poll() is not None:
        _warm[key] = Warm(*key)
    return _warm[key] if _warm[key].serves(environment) else None


def _kind(job: dict) -> str | None:
    """Name the kind of a job's code base; None for a code base of which there is no warm process."""
    if job["options"].get("repo") or job["device"] != "cpu":  # a fork of a process that asked for GPUs can use none
        return None
    if _FAULTS in Path(job["adapter"]).parents:
        return "faults"
    try:
        code = Path(job["adapter"]).read_text()
    except (OSError, UnicodeDecodeError):
        return "plain"
    if "tests.faults" in code:
        return "faults"
    return "port" if "ddq_port" in code else "mmdet" if "mmdet" in code else "plain"


def use_forks() -> None:
    """Run sides in forks of warm processes from now on."""
    launch.execute = execute


@contextmanager
def in_forks() -> Iterator[None]:
    """Run sides, and the scripts that `bisect` tries, in forks of warm processes while this lasts."""

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        ran = python(*command[1:])
        return subprocess.CompletedProcess(command, ran.returncode, ran.stdout.encode(), ran.stderr.encode())

    use_forks()
    try:
        with mock.patch.object(reproducer, "subprocess", SimpleNamespace(run=run)):
            yield
    finally:
        launch.execute = _scratch
