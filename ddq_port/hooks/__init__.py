"""Hooks for mmengine's Runner; importing this package registers them in :mod:`ddq_port.registry`.

Use them from any config: ``custom_hooks = [dict(type='ddq_port.ExactResumeHook')]``.
"""

from .errors import NonFiniteLossError, ResumeRefusedError, TrainingStopped
from .exact_resume import ExactResumeHook
from .nan_stop import StopOnNonFiniteLossHook
from .schedule import SameScheduleHook

__all__ = [
    "ExactResumeHook",
    "NonFiniteLossError",
    "ResumeRefusedError",
    "SameScheduleHook",
    "StopOnNonFiniteLossHook",
    "TrainingStopped",
]
