"""Record any ``torch.nn.Module`` in a script of one's own: no family, no adapter, no second process.

Like all that runs a legacy side this is written for Python 3.8 and asks for torch and numpy only, so that the folder
``legacy_adapters`` can be copied beside a script of an old interpreter::

    from legacy_adapters.scripting import capture

    with capture(model, "old.trace") as recording:
        output = model(images)
        recording.loss("total", criterion(output)).backward()
"""

from __future__ import annotations

from ..recording.scripts import BACKWARD, CALL, PHASE
from .capturing import CaptureError, Recording, capture

__all__ = ["BACKWARD", "CALL", "PHASE", "CaptureError", "Recording", "capture"]
