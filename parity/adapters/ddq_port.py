"""The functions of this toolkit's own DDQ-DETR, for adapter files that take them over.

A file that begins with ``from parity.adapters.ddq_port import *`` and defines some of them anew is a whole adapter.
"""

from __future__ import annotations

from legacy_adapters.targets.ddq_detr.new import *  # noqa: F403
from legacy_adapters.targets.ddq_detr.new import ADAPTER as _ADAPTER

build, training, distributed = _ADAPTER.build, _ADAPTER.training, _ADAPTER.distributed
predict, losses, variants, image_detector = _ADAPTER.predict, _ADAPTER.losses, _ADAPTER.variants, _ADAPTER.image_detector
taps, provenance, preprocessing = _ADAPTER.taps, _ADAPTER.provenance, _ADAPTER.preprocessing
del ADAPTER  # noqa: F821  (a file that has it is not a file of functions)
