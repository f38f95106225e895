"""Stand in for :func:`legacy_adapters.launch.execute`: jobs whose code base is warm are done in forks."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from legacy_adapters import launch, registry

PROCESS = Path(__file__).with_name("process.py")
#: What a warm process of each kind has imported; the legacy side's must hold nothing of the port.
KINDS = {
    "port": ("ddq_port.models", "mmdet.models"),
    "mmdet": ("legacy_adapters.standin:install", "mmdet.models"),
    "plain": ("safetensors.torch",),
}
KINDS["faults"] = (*KINDS["port"], "tests.faults.catalogue")
_FAULTS = Path(__file__).parents[1] / "faults"
#: Variables of the environment that a job sets and a fork can still obey.
_OBEYED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")
#: Beginnings of those that only the start of a process heeds.
_HEEDED_AT_START = ("PYTHON", "LD_", "ATEN_", "MKL_", "TORCH", "CUDA")

_scratch = launch.execute
_warm: dict[str, Warm] = {}


class Warm:
    """A process that does jobs in forks of itself.

    Args:
        kind: a key of ``KINDS``.
    """

    def __init__(self, kind: str) -> None:
        single = dict.fromkeys(_OBEYED[:3], "1")
        self.process = subprocess.Popen(
            [sys.executable, str(PROCESS), *KINDS[kind]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **single},
        )
        self.environment = dict(os.environ)
        atexit.register(self.end)
        if self._answer(None) != "ready":
            raise RuntimeError(f"The warm process of {kind} did not start.")

    def serves(self, environment: dict[str, str]) -> bool:
        """Tell whether a fork is as good as a process with this environment."""

        def fixed(variables: dict[str, str]) -> dict[str, str]:
            names = (name for name in variables if name.startswith(_HEEDED_AT_START) and name not in _OBEYED)
            return {name: variables[name] for name in names}

        return fixed(environment) == fixed(self.environment)

    def execute(self, job: str, log: Path, environment: dict[str, str], time_limit: float) -> int:
        """Do a job in a fork; as :func:`legacy_adapters.launch.execute`."""
        request = dict(job=job, log=str(log), environment=environment)
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
            raise subprocess.TimeoutExpired(job, time_limit)
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
    """Run a job in a fork of the warm process of its code base, or from scratch if there is none for it."""
    python, _, job = command
    kind = _kind(json.loads(Path(job).read_text())) if python == sys.executable else None
    if kind is None:
        return _scratch(command, log_file, environment, time_limit)
    if kind not in _warm or _warm[kind].process.poll() is not None:
        _warm[kind] = Warm(kind)
    if not _warm[kind].serves(environment):
        return _scratch(command, log_file, environment, time_limit)
    return _warm[kind].execute(job, log_file, environment, time_limit)


def _kind(job: dict) -> str | None:
    """Name the kind of a job's code base; None for a code base of which there is no warm process."""
    if job["options"].get("repo") or job["device"] != "cpu":  # a fork of a process that asked for GPUs can use none
        return None
    if Path(job["adapter"]) == registry.get("mmdet_ddq").legacy.adapter:
        return "mmdet"
    if _FAULTS in Path(job["adapter"]).parents:
        return "faults"
    try:
        code = Path(job["adapter"]).read_text()
    except (OSError, UnicodeDecodeError):
        return "plain"
    return "port" if "ddq_port" in code else "mmdet" if "mmdet" in code else "plain"


def use_forks() -> None:
    """Run sides in forks of warm processes from now on."""
    launch.execute = execute


@contextmanager
def in_forks() -> Iterator[None]:
    """Run sides in forks of warm processes while this lasts."""
    use_forks()
    try:
        yield
    finally:
        launch.execute = _scratch
