"""Before a training: is the code, on this device, still the one that was proven?

A golden file holds what the legacy code computed for a tiny model of the same kind; `python -m parity check` runs the
new code on the device of the training and compares. It is a process of its own, for it sets threads, precision and
kernels, and the training must begin as if nothing had run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legacy_adapters.ground.files import write_whole

MATCH = 0
_TIME_LIMIT = 900  # seconds for each of the two runs in the process
#: Detectors of which golden files are installed, by their type in a config.
_FAMILIES = {"ddq_port.DDQDETR": "ddq_detr"}


class PreflightError(Exception):
    """The check did not end in a match; the training must not start."""


class NotRecordedError(Exception):
    """There is nothing to compare with."""


@dataclass(frozen=True)
class Plan:
    """Whether there will be a preflight.

    Attributes:
        golden: the file to compare with, None for no preflight.
        text: what is done and why, in one line.
    """

    golden: Path | None
    text: str


@dataclass(frozen=True)
class Passed:
    """A preflight that ended in a match.

    Attributes:
        report: what `ddq-parity` reported, and what it was about, as JSON.
        summary: its verdict, in one line.
    """

    report: str
    summary: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the report."""
        return hashlib.sha256(self.report.encode()).hexdigest()

    def write(self, folder: Path) -> Path:
        """Keep the report under a name that tells its digest; an equal one may be there.

        Raises:
            OSError: if it cannot be written.
        """
        path = folder / f"preflight-{self.sha256[:12]}.json"
        write_whole(path, self.report)
        return path


def plan(model: Mapping[str, Any], asked: bool | None) -> Plan:
    """Decide whether to check, and with which golden file.

    Args:
        model: `model` of a config.
        asked: `--preflight` or `--no-preflight`; None is on for a known family.

    Raises:
        NotRecordedError: if it was asked for and there is no golden file of this kind of model, or the file is gone.
    """
    if asked is False:
        return Plan(None, "preflight off: --no-preflight")
    family = _FAMILIES.get(str(model.get("type")))
    if family is None:
        why = f"{model.get('type')} is of no family with recorded numbers ({', '.join(_FAMILIES)} are)"
        if asked:
            raise NotRecordedError(f"--preflight: {why}; leave it out.")
        return Plan(None, f"preflight off: {why}")
    variant = variant_of(model)
    golden = goldens(family) / f"{variant}.npz"
    if not golden.is_file():
        raise NotRecordedError(f"{golden} is missing; install ddq-port again or pass --no-preflight.")
    return Plan(golden, f"preflight on: {family}, checked with {variant} against what the legacy code computed")


def variant_of(model: Mapping[str, Any]) -> str:
    """Name the recorded tiny model that has the parts of this one."""
    if "swin" in str(model.get("backbone", {}).get("type", "")).lower():
        return "tiny_swinl"
    return "tiny_5scale" if model.get("num_feature_levels") == 5 else "tiny_4scale"


def goldens(family: str) -> Path:
    """Return the folder of a family's golden files, without importing the package that they belong to."""
    found = importlib.util.find_spec("legacy_adapters")
    locations = (found and found.submodule_search_locations) or [""]
    return Path(next(iter(locations)), "families", family, "goldens")


def run(golden: Path, device: str, command: tuple[str, ...] = (sys.executable, "-m", "parity")) -> Passed:
    """Compare with a golden file on a device.

    Args:
        golden: the file.
        device: `cpu` or `cuda:N`.
        command: what runs `ddq-parity`.

    Raises:
        PreflightError: if the verdict is not a match, or there is none.
    """
    arguments = ("check", str(golden), "--device", device, "--time-limit", str(_TIME_LIMIT), "--json", "--quiet")
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=_environment())
    try:
        verdict = json.loads(done.stdout)
        summary = str(verdict["summary"])
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PreflightError(
            f"The preflight on {device} gave no verdict (exit code {done.returncode}): {last} {_ADVICE}"
        ) from None
    if done.returncode != MATCH:
        raise PreflightError(
            f"The preflight on {device} found: {summary} {_ADVICE} `ddq-parity check {golden} --device {device}` tells "
            "more."
        )
    about = dict(golden=golden.name, golden_sha256=hashlib.sha256(golden.read_bytes()).hexdigest(), device=device)
    return Passed(json.dumps(dict(preflight=about, verdict=verdict), indent=1, sort_keys=True) + "\n", summary)


_ADVICE = "Nothing was trained; --no-preflight trains nevertheless."


def _environment() -> dict[str, str]:
    """Return the environment without what would change the check: options of `ddq-parity`, places in a launch."""
    launch = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    kept = os.environ.keys() - launch
    return {name: os.environ[name] for name in kept if not name.startswith("DDQ_PARITY_")}
