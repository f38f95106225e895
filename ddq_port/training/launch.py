"""Processes of a training: as mmengine starts them, and on the CPU, which mmengine's launchers do not know."""

from __future__ import annotations

import datetime
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config

LAUNCHERS = ("none", "pytorch", "slurm")
_NEEDS = {
    "none": (),
    "pytorch": ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODELIST"),
}
_STARTED_BY = {
    "pytorch": "torchrun: `torchrun --nproc-per-node 8 -m ddq_port.training CONFIG --launcher pytorch`",
    "slurm": "srun: `srun --ntasks-per-node 8 --gpus-per-node 8 ddq-train CONFIG --launcher slurm`",
}


class LaunchError(Exception):
    """The environment is not that of the launcher that was named."""


def check(launcher: str) -> None:
    """Refuse an environment that would make every process train alone, or none at all.

    Raises:
        LaunchError: saying how to start.
    """
    lacking = [name for name in _NEEDS[launcher] if name not in os.environ]
    if lacking:
        raise LaunchError(
            f"--launcher {launcher} finds no {lacking[0]} in the environment; start with {_STARTED_BY[launcher]}."
        )
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if launcher == "none" and processes > 1 and "LOCAL_RANK" in os.environ:
        raise LaunchError(
            f"This is one of {processes} processes of torchrun, each would train alone; pass --launcher pytorch."
        )


def rank(launcher: str) -> int:
    """Return this process' number among all, 0 if it is alone; known before the processes are connected."""
    name = {"pytorch": "RANK", "slurm": "SLURM_PROCID"}.get(launcher)
    return int(os.environ[name]) if name else 0


def device(launcher: str) -> str:
    """Return the device that this process will train on: `cuda:N` or `cpu`."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    local = {"pytorch": "LOCAL_RANK", "slurm": "SLURM_LOCALID"}.get(launcher)
    return f"cuda:{int(os.environ.get(local, 0)) if local else 0}"


def on_cpu(cfg: Config, launcher: str) -> None:
    """Connect the processes of torchrun with gloo if there is no GPU, and change `cfg` so that models stay on the CPU.

    mmengine 0.10.7 calls `torch.cuda.set_device` and gives its wrapper device numbers, whatever the backend is.

    Raises:
        LaunchError: if they were started by SLURM.
    """
    import torch
    from torch import distributed

    if launcher == "none" or torch.cuda.is_available() or distributed.is_initialized():
        return
    if launcher == "slurm":
        raise LaunchError("--launcher slurm needs GPUs, and there are none; on CPUs start with torchrun.")
    timeout = cfg.env_cfg.get("dist_cfg", {}).get("timeout", 1800)
    distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=timeout))
    cfg.model_wrapper_cfg = dict(
        type="MMDistributedDataParallel",
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )
