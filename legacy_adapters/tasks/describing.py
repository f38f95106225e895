"""Describe a side's model: the keys of its state dict, in order, with dtype and shape, and its number of classes."""

from __future__ import annotations

from typing import Any, Dict, List

import torch

from legacy_adapters import contract
from legacy_adapters.job import write_json

from .initialising import every_parameter

BUFFER, FROZEN = "buffer", "frozen"


def describe(job: Any, adapter: Any) -> None:
    """Build the model and write its layout and how many classes it has to ``job.describe``.

    A model that will be run is refused if an operator that its code calls is lacking.
    """
    model = adapter.build(job.options, job.device)
    if job.runs:
        contract.check_operators(model, job.adapter)
    write_json(job.describe, dict(layout=list(entries(model).items()), classes=adapter.classes(model)))


def entries(model: torch.nn.Module) -> Dict[str, List[Any]]:
    """Return key -> dtype, shape and, of what is no trained parameter, ``buffer`` or ``frozen``."""
    trained = {name: parameter.requires_grad for name, parameter in every_parameter(model)}
    described: Dict[str, List[Any]] = {}
    for key, tensor in model.state_dict().items():
        role = [BUFFER] if key not in trained else [] if trained[key] else [FROZEN]
        described[key] = [str(tensor.dtype).replace("torch.", ""), list(tensor.shape), *role]
    return described
