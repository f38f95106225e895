"""Print the state-dict layout of a variant as JSON, as stored in ``converters/layouts``.

``python -m parity.layouts r50_4scale > converters/layouts/ddq_detr.r50_4scale.json`` after a change of the model.
"""

from __future__ import annotations

import sys

from converters.rules.layout import Layout, layout_of
from ddq_port import configs


def built(variant: str) -> Layout:
    """Return the layout of the model of ``variant``.

    The model is really built: mmdet's Swin reads numbers out of tensors and so cannot be built on the meta device.

    Raises:
        KeyError: if there is no such variant.
    """
    import ddq_port.models  # noqa: F401  # isort: skip
    from legacy_adapters.mmdet3 import build_model

    return layout_of(build_model(str(configs.path(configs.VARIANTS[variant]))), variant)


def main(arguments: list[str]) -> int:
    """Write the layout of the one named variant to stdout."""
    if len(arguments) != 1 or arguments[0] not in configs.VARIANTS:
        sys.stderr.write(f"usage: python -m parity.layouts {{{','.join(configs.VARIANTS)}}}\n")
        return 2
    sys.stdout.write(built(arguments[0]).to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
