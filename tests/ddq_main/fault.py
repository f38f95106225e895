"""What a fault of the ports of DDQ FCN and DDQ R-CNN is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

#: Environment variable that tells ``adapter.py`` which fault to plant.
VARIABLE = "DDQ_MAIN_FAULT"
FCN, RCNN = "ddq_fcn", "ddq_rcnn"


@dataclass(frozen=True)
class Fault:
    """An error that is planted on purpose in the new model, or in its code.

    Attributes:
        name: of this fault; unique.
        family: whose small model it is planted in.
        where: what must be named: one of these modules, terms or parameters.
        plant: changes the model, or the code that it runs, in place.
    """

    name: str
    family: str
    where: tuple[str, ...]
    plant: Callable[[nn.Module], None]
