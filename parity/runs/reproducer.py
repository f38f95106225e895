"""Write a script that shows an error with one module alone, or with the model on its own inputs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from legacy_adapters.job import Job

from ..sides.places import SCRIPT

DIFFERS = 1
WEIGHTS, EXPECTED = "weights.safetensors", "expected.safetensors"


@dataclass(frozen=True)
class Reproducer:
    """What the script has to do.

    Attributes:
        title: first line of its docstring.
        told: what differs, one sentence.
        job: of the isolated run: adapter, options, device, threads, dtype.
        training: mode of the model.
        call: a Python expression that gives the result to look at.
        prepare: further lines before it.
        expected: what the legacy side has under each slot of the result.
        allowed: largest difference that is accepted, per slot.
        weights: of the modules in use, by full name.
    """

    title: str
    told: str
    job: Job
    training: bool
    call: str
    prepare: tuple[str, ...]
    expected: Mapping[str, Tensor]
    allowed: Mapping[str, float]
    weights: Mapping[str, Tensor]


def write(reproducer: Reproducer, folder: Path) -> Path:
    """Write the script and its files into ``folder``, which must exist, and return the script's path."""
    save_file({key: value.contiguous() for key, value in reproducer.weights.items()}, str(folder / WEIGHTS))
    expected = {f"slot {slot}": value.clone().contiguous() for slot, value in reproducer.expected.items()}
    save_file(expected, str(folder / EXPECTED))
    path = folder / SCRIPT
    path.write_text(_script(reproducer), encoding="utf-8")
    return path


def shows(script: Path) -> bool:
    """Run a script and tell whether it shows a difference."""
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, check=False)
    return ran.returncode == DIFFERS and b"WRONG" in ran.stdout


def _script(reproducer: Reproducer) -> str:
    text = reproducer.call + "".join(reproducer.prepare)
    load = "from pkgutil import resolve_name as load\n" if "load('" in text else ""
    capability = reproducer.job.cpu_capability
    # torch chooses its kernels once, when it is imported
    kernels = "" if capability is None else f'\nos.environ["ATEN_CPU_CAPABILITY"] = {capability!r}\n'
    operating = "import os\n" if kernels else ""
    half, autocast = "", ""
    if reproducer.job.amp is not None:
        half = "autocasting, "
        autocast = f"""
def autocast(compute):
    with autocasting(device, {reproducer.job.amp!r}):
        return compute()

"""
    job, prepare = reproducer.job, "".join(f"    {line}\n" for line in reproducer.prepare)
    return f'''"""{reproducer.title}

{reproducer.told}
Ends with 1 while that is so and with 0 once it is not. Needs the code under test and the files beside it.
"""

{operating}import sys
from pathlib import Path
{load}{kernels}
import torch
from safetensors.torch import load_file

from legacy_adapters.loading import load_adapter
from legacy_adapters.numerics.precision import {half}computing_in
from legacy_adapters.recording.values import flatten

here, device = Path(__file__).parent, {job.device!r}
{autocast}torch.set_num_threads({job.threads})
adapter = load_adapter({job.adapter!r})
model = adapter.build({job.options!r}, device)
model.load_state_dict(load_file(here / "{WEIGHTS}"), strict=False)
model.to(device, torch.{job.dtype}).train({reproducer.training})
allowed = {dict(reproducer.allowed)!r}
with computing_in({job.dtype!r}), torch.set_grad_enabled({reproducer.training}):
{prepare}    found = dict(flatten({reproducer.call}))
differs = False
for slot, legacy in load_file(here / "{EXPECTED}").items():
    name, own = slot[5:], found[slot[5:]].detach().cpu()
    same = own.shape == legacy.shape and own.dtype == legacy.dtype
    gap = (own.double() - legacy.double()).abs().max().item() if same and own.numel() else float("nan")
    wrong = not (torch.equal(own, legacy) or gap <= allowed[name])
    differs |= wrong
    print(f"output {{name or '-'}}: largest difference {{gap:.3g}}, allowed {{allowed[name]:.3g}}", "WRONG" * wrong)
sys.exit(differs)
'''
