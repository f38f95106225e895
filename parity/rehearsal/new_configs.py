"""The configs of the new side's trainings, written out so that each can be run by hand."""

from __future__ import annotations

from pathlib import Path

from ddq_port.data import own
from legacy_adapters.ground.files import write_whole
from legacy_adapters.ground.names import LEGACY, NEW
from legacy_adapters.whole.given import merge_settings
from legacy_adapters.whole.request import STEPS

from .setup import FREE, MIDDLE, OWN, TWIN, Setup

_HOOK = "FollowHook"
_MODULE = "legacy_adapters.whole.following"


def write(setup: Setup) -> None:
    """Write the configs of all trainings of the new side; equal ones are left as they are."""
    for name, follows, twin_order in (
        (TWIN, True, True),
        (MIDDLE, True, True),
        (OWN, True, False),
        (FREE, False, False),
    ):
        order = norm_order(setup) if twin_order else []
        text = _text(setup, setup.folder / name / STEPS if follows else None, order)
        file = setup.config(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file() or file.read_text() != text:
            write_whole(file, text)


def norm_order(setup: Setup) -> list[str]:
    """Return the new side's parameters in the order in which the legacy side sums the norms of their gradients."""
    layout, mapping = setup.port.layout(LEGACY), setup.port.mapping
    keys = [key for key in layout.tensors if key not in layout.buffers and key not in layout.frozen]
    return [new for key in keys if (new := mapping.target_of(key)) is not None]


def _text(setup: Setup, steps: Path | None, order: list[str]) -> str:
    """Return a config as text.

    Args:
        setup: of the rehearsal.
        steps: file for the hook that sets data and draws as on the legacy side; None to leave both to the new side.
        order: of parameters, for the sum of norms; none for the optimizer's own.
    """
    from mmengine.config import Config, DictAction

    config = Config.fromfile(setup.port.variant.new["config"])
    own.use(config, own.Source(*setup.data), own.Source(*setup.val_data))
    merge_settings(config, setup.rehearsal.settings(NEW, setup.steps), DictAction)
    merge_settings(config, setup.new_settings, DictAction)
    config.default_hooks.checkpoint.save_best = None
    if steps is not None:
        config.custom_imports.imports = [*config.custom_imports.imports, _MODULE]
        hook = dict(type=_HOOK, seed=0, file=str(steps), norm_order=order)
        config.custom_hooks = [*(config.get("custom_hooks") or []), hook]
    return config.pretty_text
