"""New-style detectors of the port, on MMDetection 3.x.

Importing this package is cheap: it loads neither torch nor any mm* package. Its one side effect is to register the
stand-in for the compiled extension of mmcv, which answers only where that extension is missing
(see :mod:`ddq_port.ops.standin`).
"""

from ddq_port.ops import standin as _standin

__version__ = "0.1.0"

_standin.install()
