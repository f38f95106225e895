"""Describe a side's model: the keys of its state dict, in order, with dtype and shape, and its number of classes.

Where it is asked for also the groups of the optimizer that its config makes.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import torch

from legacy_adapters import contract
from legacy_adapters.job import write_json

from .initialising import every_parameter

BUFFER, FROZEN, SHARED = "buffer", "frozen", "shared"
_PLAIN = (int, float, str, type(None))


def describe(job: Any, adapter: Any) -> None:
    """Build the model and write its layout and how many classes it has to ``job.describe``.

    A model that will be run is refused if an operator that its code calls is lacking.
    """
    model = adapter.build(job.options, job.device)
    if job.runs:
        contract.check_operators(model, job.adapter)
    optimizer = groups(adapter.optimizer_wrapper(model, job.options), model) if job.trains else None
    write_json(
        job.describe, dict(layout=list(entries(model).items()), classes=adapter.classes(model), optimizer=optimizer)
    )


def entries(model: torch.nn.Module) -> Dict[str, List[Any]]:
    """Return key -> dtype, shape and, of what is no trained parameter of its own, its role.

    That is ``buffer``, ``frozen``, or ``shared`` if an earlier key is the same parameter.
    """
    parameters = dict(every_parameter(model))
    first: Dict[int, str] = {}
    for name, parameter in parameters.items():
        first.setdefault(id(parameter), name)
    trained = {name: parameter.requires_grad for name, parameter in parameters.items()}
    described: Dict[str, List[Any]] = {}
    for key, tensor in model.state_dict().items():
        role = [BUFFER] if key not in trained else [] if trained[key] else [FROZEN]
        if key in trained and first[id(parameters[key])] != key:
            role.append(SHARED)
        described[key] = [str(tensor.dtype).replace("torch.", ""), list(tensor.shape), *role]
    return described


def groups(wrapper: Any, model: torch.nn.Module) -> Optional[Dict[str, Any]]:
    """Return the class of an optimizer, names and plain settings of its groups, and its base settings, if it has some.

    None where the config makes no optimizer.
    """
    if wrapper is None:
        return None
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    base = getattr(wrapper, "base_param_settings", None)
    return dict(
        kind=type(wrapper.optimizer).__name__,
        groups=[
            dict(names=[names[id(parameter)] for parameter in group["params"]], settings=_settings(group))
            for group in wrapper.optimizer.param_groups
        ],
        base=None if base is None else _settings(base),
    )


def _settings(group: Dict[str, Any]) -> Dict[str, Any]:
    """Return what a group says of its parameters, as far as JSON can hold it."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in group.items()
        if name != "params" and (isinstance(value, _PLAIN) or _is_numbers(value))
    }


def _is_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, _PLAIN) for item in value)
