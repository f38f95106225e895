"""What the installed MMDetection 3.x knows: its classes by their names, and what each may be given."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import ddq_port.ops.standin

#: First word of a path -> registries in which its types are looked for first.
_FIRST = {
    "model": ("MODELS", "TASK_UTILS", "ops"),
    "param_scheduler": ("PARAM_SCHEDULERS",),
    "optim_wrapper": ("OPTIM_WRAPPERS", "OPTIMIZERS", "OPTIM_WRAPPER_CONSTRUCTORS"),
    "train_cfg": ("LOOPS",),
    "val_cfg": ("LOOPS",),
    "test_cfg": ("LOOPS",),
    "val_evaluator": ("METRICS",),
    "test_evaluator": ("METRICS",),
    "custom_hooks": ("HOOKS", "MODELS"),
    "default_hooks": ("HOOKS",),
}
_OF_DATA = ("TRANSFORMS", "DATASETS", "DATA_SAMPLERS")
#: Words in front of a type that say which package it is of.
SCOPES = ("mmdet.", "mmcv.", "mmengine.")
#: Required by the class; a config must say it.
REQUIRED = inspect.Parameter.empty


@lru_cache(maxsize=None)
def _registries() -> dict[str, Any]:
    """Return the registries by their names, filled."""
    ddq_port.ops.standin.install()  # operators, where mmcv was installed without its compiled ones
    import mmdet.registry
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    import mmcv.ops

    named = {name: value for name, value in vars(mmdet.registry).items() if name.isupper()}
    return {**named, "ops": mmcv.ops}


@lru_cache(maxsize=None)
def known(path: str, name: str) -> Any:
    """Return the class or function of a name that stands at a path of a config; None if there is none.

    Args:
        path: dotted; its first word says which registry is asked first.
        name: as a config says it.
    """
    registries = _registries()
    first = path.partition(".")[0]
    name = name.rpartition(".")[2] if name.startswith(SCOPES) else name
    order = dict.fromkeys((*_FIRST.get(first, _OF_DATA if first.endswith("dataloader") else ()), *registries))
    for registry in order:
        held = registries[registry]
        found = getattr(held, name, None) if registry == "ops" else _registered(held, name)
        if callable(found):
            return found
    return None


def _registered(registry: Any, name: str) -> Any:
    """Return what a registry, or one that it stands in, has under a name; its own ``get`` would import things."""
    while registry is not None:
        if name in registry.module_dict:
            return registry.module_dict[name]
        registry = registry.parent
    return None


@lru_cache(maxsize=None)
def parameters(kind: Any) -> tuple[dict[str, Any], bool]:
    """Return what a class or function may be given, with defaults or ``REQUIRED``, and whether it takes more.

    Arguments that a class hands on to the class it inherits from count as its own. It takes more where it hands them on
    to something else, which the signature does not tell.
    """
    found: dict[str, Any] = {}
    is_open = False
    holders = [one for one in inspect.getmro(kind) if "__init__" in vars(one)] if inspect.isclass(kind) else [kind]
    for holder in holders:
        if holder is object:
            break
        try:
            signature = inspect.signature(vars(holder)["__init__"] if inspect.isclass(holder) else holder)
        except (TypeError, ValueError):
            return found, True
        given = [one for one in signature.parameters.values() if one.name != "self"]
        for one in given:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                found.setdefault(one.name, one.default)
        is_open = any(one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in given)
        if holder is kind and not is_open:
            break
    return found, is_open


def class_names(dataset: str) -> Any:
    """Return what the classes of a dataset's class are called, in the order of their labels; None if nobody knows."""
    kind = known("train_dataloader", dataset)
    return (getattr(kind, "METAINFO", None) or {}).get("classes")
