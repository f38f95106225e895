"""Child registries of MMDetection's, scope ``ddq_port``.

In a config a class of this package is named with its scope, ``type='ddq_port.DDQDETR'``; everything that is not
found here is looked up in mmdet and then mmengine, so ``default_scope`` stays ``'mmdet'``. mmengine imports this
module by its name when it first meets the scope, so no ``custom_imports`` entry is strictly needed. From then on
mmengine reads `.safetensors` files, too.
"""

from ddq_port import requirements

requirements.check()  # before an import below fails for a lack of mmcv

from mmdet.registry import MODELS as MMDET_MODELS  # noqa: E402
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS  # noqa: E402
from mmengine.registry import HOOKS as MMENGINE_HOOKS  # noqa: E402
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS  # noqa: E402
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS  # noqa: E402
from mmengine.registry import Registry  # noqa: E402

from ddq_port import checkpoints  # noqa: E402

SCOPE = "ddq_port"
_LOCATIONS = ["ddq_port.models"]

MODELS = Registry("model", parent=MMDET_MODELS, scope=SCOPE, locations=_LOCATIONS)
TASK_UTILS = Registry("task util", parent=MMDET_TASK_UTILS, scope=SCOPE, locations=_LOCATIONS)
# of mmengine's own, so that they are found from any default scope
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope=SCOPE, locations=["ddq_port.hooks"])
OPTIM_WRAPPERS = Registry("optim wrapper", parent=MMENGINE_OPTIM_WRAPPERS, scope=SCOPE, locations=["ddq_port.amp"])
OPTIMIZERS = Registry("optimizer", parent=MMENGINE_OPTIMIZERS, scope=SCOPE, locations=["ddq_port.optim"])

checkpoints.register()
