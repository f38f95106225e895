"""Which configs an installed MMDetection 2.x has, of what they are, and which stand for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from converters.configs.zoo import Entry
from legacy_adapters.family import FamilyError

from ..migration.reading import read
from .lacking import lacking

#: Where an installed package has its configs, and a checkout.
_FOLDERS = ("mmdet/.mim/configs", "configs")
#: Parts of a model whose classes make it another architecture; those of another backbone or neck are no new one.
_HEADS = ("rpn_head", "bbox_head", "roi_head", "mask_head", "panoptic_head", "panoptic_fusion_head", "segm_head")
_OF_REGIONS = ("bbox_head", "mask_head", "semantic_head", "grid_head", "point_head", "mask_iou_head")


def folder_of(repo: Path) -> Path:
    """Return the folder of configs of a code base.

    Raises:
        FamilyError: if there is none.
    """
    for name in _FOLDERS:
        if (repo / name).is_dir():
            return repo / name
    raise FamilyError(f"{repo} has no configs of MMDetection 2.x; looked for {' and '.join(_FOLDERS)}.")


def entries(repo: Path, is_wanted: Callable[[str], bool] = lambda name: True) -> tuple[Entry, ...]:
    """Return the configs with a model, in the order of their names.

    One of each architecture stands for it, and one for each backbone and neck that none of these has.

    Args:
        repo: folder of the code base.
        is_wanted: tells by its name whether a config is looked at.

    Raises:
        FamilyError: if there is no folder of configs.
    """
    folder = folder_of(repo)
    models: dict[str, Mapping[str, Any]] = {}
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if name.startswith("_base_/") or not is_wanted(name):
            continue
        try:
            models[name] = read(str(path), "2.x")["model"]
        except FamilyError:
            continue  # settings that other configs include
    picks = _picks(models)
    return tuple(Entry(name, architecture(model), name in picks, lacking(model)) for name, model in models.items())


def architecture(model: Mapping[str, Any]) -> str:
    """Return the classes of a detector and of its heads in a line, each once."""
    regions = model.get("roi_head") or {}
    parts = [model, *(model.get(name) for name in _HEADS), *(regions.get(name) for name in _OF_REGIONS)]
    return " ".join(dict.fromkeys(kind for part in parts for kind in _kinds(part)))


def _kinds(part: Any) -> Iterator[str]:
    for one in part if isinstance(part, (list, tuple)) else [part]:
        if isinstance(one, Mapping) and one.get("type"):
            yield str(one["type"])


def _picks(models: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Choose what stands for each architecture, then for each backbone and neck that is not among the chosen."""
    order = sorted(models, key=_plainness)
    seen: set[str] = set()
    chosen: set[str] = set()
    for tell in (lambda model: [architecture(model)], _trunk):
        for name in order:
            told = [one for one in tell(models[name]) if one not in seen]
            if told:
                chosen.add(name)
            if name in chosen:
                seen.update(architecture(models[name]).split("\n"))
                seen.update(_trunk(models[name]))
    return chosen


def _trunk(model: Mapping[str, Any]) -> list[str]:
    """Return the classes of backbone, neck and the plugins of the backbone, each with the part it is for."""
    backbone = model.get("backbone") or {}
    found = [f"{part}: {kind}" for part in ("backbone", "neck") for kind in _kinds(model.get(part))]
    plugins = backbone.get("plugins") or () if isinstance(backbone, Mapping) else ()
    found += [f"plugin: {kind}" for plugin in plugins for kind in _kinds(plugin.get("cfg"))]
    if isinstance(backbone, Mapping) and backbone.get("dcn"):
        found.append(f"layers: {backbone['dcn']['type']}")
    return found


def _plainness(name: str) -> tuple[int, int, str]:
    """Return what a config that stands for others is chosen by: small, not tuned, with a short name."""
    unwanted = ("r101", "x101", "x50", "mstrain", "mstest", "fp16", "mdpool", "2x", "3x", "amp", "caffe", "ascend", "legacy")
    return sum(word in name for word in unwanted), len(name), name
