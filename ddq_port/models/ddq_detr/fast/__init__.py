"""The fast numerics of DDQ-DETR: the same functions of the same parameters in less time, memory and questions to a GPU.

:mod:`.detector` puts the parts together. Each of them takes the place of one of the same name in the folder above.
"""

from .detector import FastDDQDETR

__all__ = ["FastDDQDETR"]
