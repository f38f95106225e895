"""Functions of numbers that models commonly apply: activations and what is used in their place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

Function = Callable[[np.ndarray], np.ndarray]


def _of_torch(function: Callable[[torch.Tensor], torch.Tensor]) -> Function:
    return lambda values: function(torch.from_numpy(np.ascontiguousarray(values))).numpy()


def _inverse_sigmoid(eps: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def function(x: torch.Tensor) -> torch.Tensor:
        x = x.clamp(0, 1)
        return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))

    return function


#: What is found on top of a value on one side only.
FUNCTIONS: dict[str, Function] = {
    "the sigmoid": _of_torch(torch.sigmoid),
    "the inverse sigmoid": _of_torch(_inverse_sigmoid(1e-5)),
    "the inverse sigmoid (eps 1e-3)": _of_torch(_inverse_sigmoid(1e-3)),
    "ReLU": _of_torch(F.relu),
    "GELU": _of_torch(F.gelu),
    "SiLU": _of_torch(F.silu),
    "tanh": _of_torch(torch.tanh),
    "exp": _of_torch(torch.exp),
    "the logarithm": _of_torch(torch.log),
    "the square": _of_torch(torch.square),
    "the square root": _of_torch(torch.sqrt),
    "the absolute value": _of_torch(torch.abs),
    "the softmax along the last axis": _of_torch(lambda x: x.softmax(-1) if x.dim() else x),
    "the logarithm of the softmax along the last axis": _of_torch(lambda x: x.log_softmax(-1) if x.dim() else x),
    "the normalised (L2, last axis)": _of_torch(lambda x: F.normalize(x, dim=-1) if x.dim() else x),
}

#: Activations that stand in each other's place.
ACTIVATIONS: dict[str, Function] = {
    "no activation": lambda values: values,
    "ReLU": _of_torch(F.relu),
    "ReLU6": _of_torch(F.relu6),
    "LeakyReLU(0.01)": _of_torch(lambda x: F.leaky_relu(x, 0.01)),
    "LeakyReLU(0.001)": _of_torch(lambda x: F.leaky_relu(x, 0.001)),
    "LeakyReLU(0.1)": _of_torch(lambda x: F.leaky_relu(x, 0.1)),
    "LeakyReLU(0.2)": _of_torch(lambda x: F.leaky_relu(x, 0.2)),
    "GELU": _of_torch(F.gelu),
    "GELU (tanh)": _of_torch(lambda x: F.gelu(x, approximate="tanh")),
    "GELU (x * sigmoid(1.702 x))": _of_torch(lambda x: x * torch.sigmoid(1.702 * x)),
    "SiLU": _of_torch(F.silu),
    "ELU": _of_torch(F.elu),
    "SELU": _of_torch(F.selu),
    "CELU(0.5)": _of_torch(lambda x: F.celu(x, 0.5)),
    "Mish": _of_torch(F.mish),
    "Softplus": _of_torch(F.softplus),
    "Hardswish": _of_torch(F.hardswish),
    "Hardsigmoid": _of_torch(F.hardsigmoid),
    "Hardtanh": _of_torch(F.hardtanh),
    "Sigmoid": _of_torch(torch.sigmoid),
    "Tanh": _of_torch(torch.tanh),
    "Softsign": _of_torch(F.softsign),
}
