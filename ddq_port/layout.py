"""Print the state-dict layout of a variant as JSON, as stored in ``converters/layouts``.

``python -m ddq_port.layout r50_4scale > converters/layouts/ddq_detr.r50_4scale.json`` after a change of the model.
"""

from __future__ import annotations

import json
import sys

from ddq_port import configs


def layout(variant: str) -> dict[str, list[object]]:
    """Return key -> [dtype, shape] of the model of ``variant``.

    The model is really built: mmdet's Swin reads numbers out of tensors and so cannot be built on the meta device.

    Raises:
        KeyError: if there is no such variant.
    """
    from mmengine.registry import DefaultScope

    from ddq_port.registry import MODELS

    config = configs.load(configs.VARIANTS[variant])
    config.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmdet"):
        state = MODELS.build(config.model).state_dict()
    return {key: [str(value.dtype).removeprefix("torch."), list(value.shape)] for key, value in state.items()}


def main(arguments: list[str]) -> int:
    """Write the layout of the one named variant to stdout."""
    if len(arguments) != 1 or arguments[0] not in configs.VARIANTS:
        sys.stderr.write(f"usage: python -m ddq_port.layout {{{','.join(configs.VARIANTS)}}}\n")
        return 2
    lines = (
        f"{json.dumps(key)}:{json.dumps(spec, separators=(',', ':'))}"
        for key, spec in sorted(layout(arguments[0]).items())
    )
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
