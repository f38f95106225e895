"""What `ddq-export` does."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from mmengine.registry import DefaultScope

from ddq_port.registry import MODELS
from ddq_port.training.checks import agreement as classes_of
from ddq_port.training.endings import exit_codes, logs_on_stderr
from ddq_port.training.loading import finite, weights
from ddq_port.training.output.console import NOT_SO
from ddq_port.training.settings import config
from ddq_port.training.settings.options import ConfigError
from legacy_adapters.ground.console import DONE, message

from .detector import ExportError, OneImage
from .session import Exported, Found, agreement
from .writing import ONNX, PROGRAM, Form, write

_NEEDED = {ONNX: ("onnx", "onnxscript"), PROGRAM: ()}
#: (h, w) of the images that a file of any size is tried with.
_TRIED = ((65, 97), (100, 75), (160, 160), (131, 257), (320, 224))


@dataclass(frozen=True)
class Written:
    """What was exported.

    Attributes:
        file: that was written.
        sha256: its digest.
        megabytes: its size.
        size: ``HxW`` of its images, or ``any``.
        checked: how it agrees with the model, by size of the image.
        same: whether it does in all of them; None if it was not tried.
    """

    file: str
    sha256: str
    megabytes: float
    size: str
    checked: dict[str, dict[str, Any]]
    same: bool | None

    def lines(self) -> list[str]:
        """Say it in lines."""
        lines = [
            f"{size:<9} {one['paired']} of {max(one['counts'])} detections as of the model, {one['at_cut']} at the cut; "
            f"scores within {one['score']:.1e}, boxes within {one['pixels']:.1e} px"
            for size, one in self.checked.items()
        ]
        told = {None: "not tried", True: f"as the model in {len(self.checked)} images", False: "NOT as the model"}[self.same]
        return [*lines, f"EXPORTED {self.file} {self.megabytes:.1f} MB, size {self.size}, {told}, sha256 {self.sha256[:12]}"]


def command(
    *,
    config: str,
    checkpoint: str,
    out: Path,
    size: tuple[int, int] | None,
    check: bool,
    force: bool,
    cfg_options: Sequence[str],
    as_json: bool,
    quiet: bool,
) -> int:
    """Export, check and print what came out. Return the exit code.

    Args:
        config: file or name of a config.
        checkpoint: the weights.
        out: the file to write.
        size: (h, w) of its images, None for any.
        check: run the file, too.
        force: replace ``out``.
        cfg_options: settings of the config to replace.
        as_json: print JSON.
        quiet: print nothing but the result and errors.
    """
    with exit_codes(), logs_on_stderr(quiet, False):
        try:
            _check_output(out, force, check)
            written = export(config, Path(checkpoint), out, size, check, cfg_options, (lambda text: None) if quiet else message)
        except ExportError as error:
            raise ConfigError(str(error)) from error
    click.echo(json.dumps(asdict(written), indent=1, sort_keys=True) if as_json else "\n".join(written.lines()))
    return NOT_SO if written.same is False else DONE


def _check_output(out: Path, force: bool, check: bool) -> None:
    if out.suffix not in _NEEDED:
        raise ConfigError(f"{out} ends in {out.suffix or 'nothing'}; expected {' or '.join(_NEEDED)}.")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; choose another name or pass --force.")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"{out.absolute().parent} is not a folder; OUT is written into one that exists.")
    needed = _NEEDED[out.suffix] + (("onnxruntime",) if check and out.suffix == ONNX else ())
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be installed for {out.suffix}: `pip install 'ddq-port[export]'`.")


def export(
    config_name: str, checkpoint: Path, out: Path, size: tuple[int, int] | None, check: bool, cfg_options: Sequence[str],
    tell: Any,
) -> Written:  # fmt: skip
    """Write the file and try it; arguments as of :func:`command`, ``tell`` says how far it is.

    Raises:
        ConfigError, weights.WeightsError: if config or weights cannot be used.
        ExportError: if the model cannot be exported.
    """
    cfg, notes = config.for_export(config_name, cfg_options)
    for note in notes:
        tell(f"note: {note}")
    weights.without_pretrained(cfg.model)
    stored = weights.read(checkpoint)
    finite.check(checkpoint, stored)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmdet"):
        model = MODELS.build(cfg.model)
    weights.load(model, stored, str(checkpoint))
    if size is None and "Swin" in type(model.backbone).__name__:
        raise ConfigError("A Swin's windows are laid out for one size of image; pass --size HxW.")
    detector = OneImage(model)
    tell("following the model ...")
    write(detector, out, Form(size, classes_of.Trained.of(str(checkpoint), stored).names or ()))
    checked = {}
    if check:
        tell("trying the file ...")
        exported = Exported(out)
        for tried in [size] if size else _TRIED:
            checked["{}x{}".format(*tried)] = asdict(_agreement(detector, exported, tried))
    same = all(_is_same(one) for one in checked.values()) if check else None
    told = "any" if size is None else "{}x{}".format(*size)
    return Written(str(out), weights.sha256(out), out.stat().st_size / 1e6, told, checked, same)


def _agreement(detector: OneImage, exported: Exported, size: tuple[int, int]) -> Any:
    """Compare the detections of both in a made-up image of a size, (h, w)."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(size[0] * size[1])) * 255
    with torch.no_grad():
        own = Found.of(*detector(image))
    return agreement(own, exported(image))


def _is_same(one: dict[str, Any]) -> bool:
    return one["counts"][0] == one["counts"][1] == one["paired"] + one["at_cut"]
