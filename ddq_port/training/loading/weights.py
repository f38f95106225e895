"""Weights of a training: what a model begins with, and whether a checkpoint fits it."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import re
import shlex
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.hooks import Hook

from ddq_port import checkpoints
from ddq_port.checkpoints import CheckpointFileError
from ddq_port.registry import MODELS
from ddq_port.training.loading import wrapped

if TYPE_CHECKING:
    from mmengine.runner import Runner
    from torch import Tensor, nn

_RESUMABLE = ("optimizer", "message_hub")
_OBJECT = re.compile(r"(?:GLOBAL|[Uu]nsupported (?:global|class):?(?: GLOBAL)?)\s+`?([\w.]+)`?")  # in torch's words
#: Keys that the legacy layout has and the new one has not.
_LEGACY = ("bbox_head.cls_branches.", "bbox_head.reg_branches.", "decoder.aux_reg_branches.")
_NOWHERE = "it holds no weights where mmengine looks, under `state_dict` or at its top level"
_CONVERT = (
    "`ddq-convert convert {quoted} NEW.pth` writes a detector's checkpoint without them, if the file holds a state dict"
)
_SAVE_AGAIN = (
    "if you trust it, save its tensors alone: `python -c \"import torch; c = torch.load('{file}', weights_only=False); "
    "torch.save(c.get('state_dict', c.get('model')), 'NEW.pth')\"`"
)
_TORCHVISION = ("torchvision://", "modelzoo://")
#: Tensors that a backbone may begin without: counters that nothing reads, indices that are computed, and the norms of
#: a Swin's outputs, which its classifier did not have.
_NOT_GIVEN = re.compile(r"num_batches_tracked$|relative_position_index$|^norm\d+\.")
_OF_SWIN = ("", "module.", "backbone.")  # what mmdet's Swin takes away
_RESIZED = re.compile(r"relative_position_bias_table$|^absolute_pos_embed$")  # by mmdet, to the shape that is needed


class WeightsError(Exception):
    """Weights cannot be had, or do not fit."""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file; of an index of shards, that of its files' names and digests.

    Raises:
        CheckpointFileError: if it is called an index and is none.
        OSError: if it cannot be read.
    """
    if path.name.endswith(checkpoints.INDEX_SUFFIX):
        digests = (f"{shard.name} {sha256(shard)}\n" for shard in checkpoints.files(path))
        return hashlib.sha256("".join(digests).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pretrained(model: Any, place: str = "model") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each `init_cfg` of a model's config that takes weights from a checkpoint, with its place."""
    if isinstance(model, Mapping):
        if model.get("type") == "Pretrained" and isinstance(model.get("checkpoint"), str):
            yield place, model  # type: ignore[misc]
        for name, part in model.items():
            yield from pretrained(part, f"{place}.{name}")
    elif isinstance(model, list | tuple):
        for number, part in enumerate(model):
            yield from pretrained(part, f"{place}.{number}")


def check_pretrained(model: Mapping[str, Any]) -> None:
    """Refuse a model whose pretrained parts cannot be had on this machine, before anything is built.

    Raises:
        WeightsError: if `torchvision://` is meant and torchvision cannot be imported, or a local file is missing.
    """
    for place, init in pretrained(model):
        wanted = init["checkpoint"]
        if wanted.startswith(_TORCHVISION):
            fault = _import_error("torchvision")
            if fault:
                raise WeightsError(
                    f"{place} wants {wanted}, and torchvision cannot be imported ({fault}); pass --backbone-weights "
                    "FILE, a .pth or .safetensors with these weights, or install the torchvision of this torch."
                )
        elif "://" not in wanted and not Path(wanted).expanduser().is_file():
            raise WeightsError(f"{place} wants {wanted}, which is not there; pass --backbone-weights FILE.")


def _import_error(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # a torchvision of another torch fails with whatever its operators raise
        return " ".join(f"{type(error).__name__}: {error}".split())[:120]
    return None


def without_pretrained(model: dict[str, Any]) -> None:
    """Take out of a model's config what would load weights, where a checkpoint gives all of them afterwards."""
    for value in list(model.values()):
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, dict):
                without_pretrained(part)
    if isinstance(model.get("init_cfg"), Mapping) and model["init_cfg"].get("type") == "Pretrained":
        model["init_cfg"] = None


def backbone_init(backbone: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return what to change in a backbone's config so that it begins with the weights of a file.

    The file may be that of the backbone alone, under the names of torchvision (of a Swin, those of its original
    repository), or of a whole detector, whose `backbone.` is taken. It must have all that the backbone needs.

    Args:
        backbone: `model.backbone` of a config.
        file: `.pth` or `.safetensors`.

    Raises:
        WeightsError: if it cannot be read or a tensor is missing or has another shape.
    """
    content = read(file, _SAVE_AGAIN)
    built = MODELS.build({**backbone, "init_cfg": None})
    wanted = {key: tuple(value.shape) for key, value in built.state_dict().items() if not _NOT_GIVEN.search(key)}
    swin = "convert_weights" in backbone
    place = wrapped.place(content, wanted)
    looked_at = (*wrapped.LOADED, ("model",)) if swin else wrapped.LOADED
    if place is not None and (place.path not in looked_at or swin and place.prefix not in _OF_SWIN):
        raise WeightsError(
            f"{file} has the weights of this {backbone['type']} {place.told()}, where it is not looked for; save them "
            f"alone: `{place.command(file)}`."
        )
    change, given = _of_swin(content) if swin else _of_any(content, place)
    change["init_cfg"] = dict(type="Pretrained", checkpoint=str(file), **change.pop("init_cfg", {}))
    fit = Fit.of(wanted, {key: shape for key, shape in shapes(given).items() if key in wanted}, _RESIZED)
    if not fit.whole:
        raise WeightsError(f"{file} {fit.told('this ' + backbone['type'])}.")
    return change


def _of_any(content: Mapping[str, Any], place: wrapped.Place | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what to change in the config of a backbone that mmengine loads, and the tensors that it will find."""
    if place is None:
        return {}, state_of(content)
    state = _without(place.prefix, _tensors(wrapped.tensors(content, place.path)))
    return dict(init_cfg=dict(prefix=place.prefix)) if place.prefix else {}, state


def _of_swin(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the same of mmdet's Swin, which loads files by rules of its own."""
    from mmdet.models.backbones.swin import swin_converter

    held = content.get("state_dict", content.get("model", content))
    state = _tensors(held) if isinstance(held, Mapping) else {}
    if inside := _without("backbone.", state):
        return dict(convert_weights=False), inside
    return dict(convert_weights=True), _without("backbone.", swin_converter(state))


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if hasattr(value, "shape")}


def _without(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose keys have a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def read(file: Path, remedy: str = _CONVERT) -> dict[str, Any]:
    """Read a `.pth` or `.safetensors` as mmengine does, on the CPU; of a `.pth` the tensors stay in the file.

    Args:
        file: The file.
        remedy: What helps if it holds objects; `{file}` stands for its name, `{quoted}` for that in a command.

    Raises:
        WeightsError: if it is not there, damaged, or holds objects that torch refuses.
    """
    import torch

    if not file.is_file():
        raise WeightsError(_no_file(file))
    if file.stat().st_size == 0:
        raise WeightsError(f"{file} is empty; copy it again.")
    if checkpoints.is_safetensors(file):
        return _read_safetensors(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except PermissionError as error:
        raise WeightsError(f"{file} cannot be read ({error.strerror}).") from error
    except Exception as error:  # torch's unpickler does what the bytes say, and fails with whatever that leads to
        fault = str(error) if isinstance(error, pickle.UnpicklingError) else ""
        raise WeightsError(_named_otherwise(file) or _refused(file, fault, remedy)) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{file} holds {type(content).__name__}, expected a dict of tensors.")
    return content


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        return checkpoints.load_from_safetensors(str(file))
    except CheckpointFileError as error:
        raise WeightsError(_named_otherwise(file) or str(error)) from error
    except OSError as error:
        raise WeightsError(f"{file} cannot be read ({error}); copy it again.") from error


def _no_file(file: Path) -> str:
    if not file.exists():
        return f"{file} is not there; expected a .pth or .safetensors file."
    return f"{file} is no file, expected a .pth or .safetensors; {_inspect(file)}."


def _named_otherwise(file: Path) -> str | None:
    """Say that a file is of the other format than its name says, by which mmengine reads it; None if it is not."""
    with file.open("rb") as opened:
        head = opened.read(9)
    if checkpoints.is_safetensors(file):
        is_other = zipfile.is_zipfile(file)
    else:
        is_other = head[8:] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size
    if not is_other:
        return None
    what, name = (".pth", "NEW.pth") if checkpoints.is_safetensors(file) else (".safetensors", "NEW.safetensors")
    return f"{file} is a {what} by another name, and files are read by their names; call it {name}."


def _refused(file: Path, fault: str, remedy: str) -> str:
    """Say of a pickle that torch refuses which object is in it, or that it is none, and what helps."""
    named = _OBJECT.search(fault)
    if named is None:
        return f"{file} is not a checkpoint, or damaged; {_inspect(file)}."
    way = remedy.format(file=file, quoted=_quoted(file))
    return f"{file} holds objects that torch does not load ({named[1]}); {way}."


def _inspect(file: Path) -> str:
    return f"`ddq-convert inspect {_quoted(file)}` tells what it is"


def _quoted(file: str | Path) -> str:
    return shlex.quote(str(file))


def check_resumable(file: Path) -> None:
    """Refuse a checkpoint that holds no more than weights.

    Raises:
        WeightsError: as :func:`read`, or saying what is missing.
    """
    content = read(file)
    lacking = [name for name in _RESUMABLE if name not in content]
    if lacking:
        way = "pass it as --load-from to begin a training with its weights"
        if "state_dict" not in content and not state_of(content):
            way = (
                f"{_NOWHERE}: `ddq-convert convert {_quoted(file)} NEW.pth` writes them there, then pass NEW.pth as "
                "--load-from"
            )
        raise WeightsError(f"{file} cannot be resumed, for it lacks {' and '.join(lacking)}; {way}.")


def state_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors that mmengine takes from a checkpoint for a model, by key, without a `module.` before them."""
    held = checkpoint.get("state_dict", checkpoint)
    state = _tensors(held) if isinstance(held, Mapping) else {}
    return {key.removeprefix("module."): value for key, value in state.items()}


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor."""
    return {key: tuple(value.shape) for key, value in state.items()}


@dataclass(frozen=True)
class Fit:
    """How well a file fits a model.

    Attributes:
        total: tensors of the model.
        missing: keys of the model that the file lacks.
        unexpected: keys of the file that the model lacks.
        reshaped: keys with another shape: the model's, then the file's.
    """

    total: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    @classmethod
    def of(cls, own: Mapping[str, tuple], given: Mapping[str, tuple], resized: re.Pattern | None = None) -> Fit:
        """Compare shapes by key; those of keys that `resized` finds may differ."""
        differ = (key for key in own if key in given and own[key] != given[key])
        return cls(
            len(own),
            tuple(key for key in own if key not in given),
            tuple(key for key in given if key not in own),
            tuple((key, own[key], given[key]) for key in differ if resized is None or not resized.search(key)),
        )

    @property
    def whole(self) -> bool:
        """Whether nothing is left over on either side."""
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def taken(self) -> int:
        """How many tensors of the model the file gives."""
        return self.total - len(self.missing) - len(self.reshaped)

    def told(self, model: str) -> str:
        """Say how many tensors of `model` the file gives and name the first of each kind that does not fit."""
        parts = [f"gives {self.taken} of the {self.total} tensors of {model}"]
        for what, keys in (("lacks", self.missing), ("has, without use,", self.unexpected)):
            if keys:
                parts.append(f"{what} `{keys[0]}`" + (f" and {len(keys) - 1} more" if len(keys) > 1 else ""))
        if self.reshaped:
            key, own, given = self.reshaped[0]
            more = f" and {len(self.reshaped) - 1} more" if len(self.reshaped) > 1 else ""
            parts.append(f"has `{key}` as {list(given)} where the model has {list(own)}{more}")
        return "; it ".join(parts)


class FittingWeightsHook(Hook):
    """Refuses a checkpoint that mmengine would load in part, with no more than a warning.

    Args:
        file: its name, for messages.
        partial: accept weights that fit in part, and log how many do.
    """

    priority = "LOWEST"  # after mmengine's EMAHook, which swaps what is in the checkpoint

    def __init__(self, file: str, partial: bool = False) -> None:
        self.file, self.partial = file, partial

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare keys and shapes with the model's.

        Raises:
            WeightsError: if they differ and `partial` is not set, or if nothing fits.
        """
        model = getattr(runner.model, "module", runner.model)
        fit = Fit.of(shapes(model.state_dict()), shapes(state_of(checkpoint)))
        if fit.whole:
            runner.logger.info(f"{self.file} gives all {fit.total} tensors of the model")
        elif self.partial and fit.taken:
            runner.logger.warning(f"{self.file} {fit.told('the model')}")
        else:
            raise _misfit(self.file, fit, checkpoint, model)


def load(model: nn.Module, checkpoint: Mapping[str, Any], file: str) -> None:
    """Give a model the weights of a checkpoint that :func:`read` gave.

    Raises:
        WeightsError: unless they are all of the model's, and no others.
    """
    state = state_of(checkpoint)
    fit = Fit.of(shapes(model.state_dict()), shapes(state))
    if not fit.whole:
        raise _misfit(file, fit, checkpoint, model)
    model.load_state_dict(state)


def _misfit(file: str, fit: Fit, checkpoint: Mapping[str, Any], model: nn.Module) -> WeightsError:
    place = wrapped.place(checkpoint, model.state_dict().keys())
    return WeightsError(f"{file} {fit.told('the model')}. {_advice(fit, file, place)}")


def _advice(fit: Fit, file: str, place: wrapped.Place | None) -> str:
    """Say what makes weights fit; each command that is named writes weights that do."""
    command = f"`ddq-convert convert {_quoted(file)} NEW.pth"
    if any(key.startswith("bbox_head.cls_branches.") for key, _, _ in fit.reshaped):
        return f"{command} --num-classes N` writes weights for another number of classes."
    if not fit.taken and place is not None and place.path not in wrapped.LOADED:
        return f"{_NOWHERE.capitalize()}, but {place.told()}; {command}` writes them there."
    if not fit.taken and not fit.unexpected and not fit.reshaped:
        return f"{_NOWHERE.capitalize()}; {command}` writes them there."
    if place is not None and place.prefix not in ("", "module."):
        return f"Its keys begin with `{place.prefix}`, which {command}` takes away."
    if any(key.startswith(_LEGACY) for key in fit.unexpected):
        return f"These look like weights of the legacy code; {command}` writes those that fit."
    if not (fit.unexpected or fit.reshaped) and all(key.endswith("num_batches_tracked") for key in fit.missing):
        return f"Only counters of BatchNorm are missing; {command}` adds them."
    return "Pass the config that they were trained with."
