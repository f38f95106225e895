"""What the children of :mod:`tests.training.children` need, imported once."""

import ddq_port.models  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

import mmdet.datasets  # noqa: F401
import mmdet.engine  # noqa: F401
import mmdet.visualization  # noqa: F401
import mmengine.runner  # noqa: F401

import ddq_port.hooks  # noqa: F401
import parity.sides.prepare  # noqa: F401
