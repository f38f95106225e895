"""What a config says of processes, seeds and files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .draft import Draft


def runtime(draft: Draft, old: Mapping[str, Any]) -> None:
    """Translate it."""
    new = draft.config
    if old.get("auto_scale_lr") is not None:
        new["auto_scale_lr"] = old["auto_scale_lr"]
    if old.get("custom_imports") is not None:
        new["custom_imports"] = old["custom_imports"]
        draft.remark("custom_imports", old["custom_imports"], "kept; what it imports must be for 3.x")
    environment = {}
    if old.get("cudnn_benchmark") is not None:
        environment["cudnn_benchmark"] = old["cudnn_benchmark"]
    processes = {name: old[name] for name in ("mp_start_method", "opencv_num_threads") if old.get(name) is not None}
    if processes:
        environment["mp_cfg"] = processes
    if old.get("dist_params") is not None:
        environment["dist_cfg"] = old["dist_params"]
        draft.came("env_cfg.dist_cfg", "dist_params")
    if environment:
        new["env_cfg"] = environment
    if old.get("log_level") is not None:
        new["log_level"] = old["log_level"]
    start, resumed = old.get("load_from"), old.get("resume_from")
    if resumed is not None:
        draft.came("load_from", "resume_from")
        draft.remark(
            "resume_from",
            resumed,
            "a checkpoint of 2.x holds no schedules; convert it with ddq-convert convert, then resume",
        )
    if "load_from" in old or "resume_from" in old:
        new["load_from"] = start if resumed is None else resumed
        new["resume"] = resumed is not None or bool(old.get("auto_resume"))
    if start is not None:
        draft.remark("load_from", start, "kept; a checkpoint of 2.x is converted with ddq-convert convert")
    if old.get("seed") is not None:
        new["randomness"] = dict(seed=old["seed"], deterministic=bool(old.get("deterministic")))
        draft.came("randomness.seed", "seed")
    for name in ("work_dir", "find_unused_parameters"):
        if old.get(name) is not None:
            new[name] = old[name]
    for name in ("plugin", "plugin_dir"):
        if old.get(name) is not None:
            draft.remark(name, old[name], "3.x has no such setting")
