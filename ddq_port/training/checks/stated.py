"""What a config states about classes: how many its model tells apart, and what they are called in its data."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddq_port.data.classes import repeated

#: Parts of a model that tell the classes of the data apart. Others have numbers of their own: an RPN has 1, a semantic
#: head counts stuff as well, a backbone may have the classes of ImageNet.
_HEADS = ("bbox_head", "mask_head", "mask_iou_head", "point_head", "query_head")
_LIKE_METAINFO = ("metainfo", "metainfos", "metadata", "datasetmeta", "datasetinfo")
_LIKE_CLASSES = ("class", "classes", "classname", "classnames", "names", "categories", "category", "labels")


class StatementError(Exception):
    """A config says something about its classes that mmdet does not understand, or not as it is meant."""


@dataclass(frozen=True)
class DataClasses:
    """The classes of one data set of a config.

    Attributes:
        place: where it stands, such as `train_dataloader.dataset.datasets.1`.
        names: in the order of the labels.
        stated: whether the config names them; else they are those of the data set's type.
        kind: name of that type.
        ann_file: the annotation file on the local disk whose categories are read by these names; None if there is none.
    """

    place: str
    names: tuple[str, ...]
    stated: bool
    kind: str
    ann_file: Path | None

    @property
    def called(self) -> str:
        """Name the data set in a message, and the origin of its classes where the config does not name them."""
        return self.place if self.stated else f"{self.place} (no metainfo.classes, so those of {self.kind})"


def takes_texts(model: Any) -> bool:
    """Tell whether a model's config is that of one that detects what a text says, so that no number binds it."""
    return isinstance(model, Mapping) and ("language_model" in model or "text_encoder" in model)


def heads(model: Any, place: str = "model") -> dict[str, int]:
    """Return the number of classes of every head of a model's config, by its place; heads without one are left out.

    Raises:
        StatementError: if one is not a number, or denoising has a number of its own.
    """
    if not isinstance(model, Mapping):
        return {}
    if isinstance(model.get("dn_cfg"), Mapping) and "num_classes" in model["dn_cfg"]:
        raise StatementError(
            f"{place}.dn_cfg.num_classes is set; expected only {place}.bbox_head.num_classes, which denoising takes. "
            "Remove the former."
        )
    found = {}
    for where, number in _heads(model, place):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            given = "not given" if number is None else repr(number)
            raise StatementError(f"{where} is {given}; expected a number of classes of at least 1.")
        found[where] = number
    return found


def _heads(part: Any, place: str) -> Iterator[tuple[str, Any]]:
    for key, value in _items(part):
        where = f"{place}.{key}"
        if key in _HEADS:
            heads_here = (
                [(where, value)] if isinstance(value, Mapping) else [(f"{where}.{n}", v) for n, v in _items(value)]
            )
            for at, head in heads_here:
                if isinstance(head, Mapping) and not head.get("class_agnostic"):
                    number = head["num_classes"] if "num_classes" in head else _by_default(head.get("type"))
                    if number is not inspect.Parameter.empty:
                        yield f"{at}.num_classes", number
        yield from _heads(value, where)


def _by_default(kind: Any) -> Any:
    """Return how many classes a type of head has where its config gives no number.

    None if it must be given, `inspect.Parameter.empty` if such a head has no number or the type is not known.
    """
    import mmdet.models  # noqa: F401

    import ddq_port.models  # noqa: F401
    from ddq_port.registry import MODELS

    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    for base in kind.__mro__ if isinstance(kind, type) else ():
        parameter = inspect.signature(base.__init__).parameters.get("num_classes")
        if parameter is not None:
            return None if parameter.default is inspect.Parameter.empty else parameter.default
    return inspect.Parameter.empty


def _items(part: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(part, Mapping):
        yield from part.items()
    elif isinstance(part, list | tuple):
        yield from enumerate(part)


def data_sets(dataset: Any, place: str) -> Iterator[DataClasses]:
    """Yield the classes of a data set's config, those inside of wrappers included, where they are known.

    Args:
        dataset: `train_dataloader.dataset` of a config, or one inside of it.
        place: where it stands.

    Raises:
        StatementError: if mmdet would not find the names that are meant, or read them as something else.
    """
    if not isinstance(dataset, Mapping):
        return
    if "dataset" in dataset:
        yield from data_sets(dataset["dataset"], f"{place}.dataset")
    for number, part in enumerate(dataset.get("datasets") or ()):
        yield from data_sets(part, f"{place}.datasets.{number}")
    kind = _kind(dataset.get("type"))
    if kind is None:
        return
    _check_keys(dataset, kind, place)
    metainfo = dataset.get("metainfo")
    if metainfo is not None and not isinstance(metainfo, Mapping):
        raise StatementError(
            f"{place}.metainfo is {_short(metainfo)}; expected dict(classes=(...)) with the names in it."
        )
    own = _names_of(kind)
    _check_spelling(metainfo or {}, place, f"the {len(own)} of {kind.__name__}" if own else "none")
    stated = "classes" in (metainfo or {})
    names = _names(metainfo["classes"], f"{place}.metainfo.classes") if stated else own
    if names:
        yield DataClasses(place, names, stated, kind.__name__, _by_name(dataset, kind))


def _kind(kind: Any) -> type | None:
    """Return the class of a detection data set by its name in a config; None for other kinds and unknown names."""
    import ddq_port.hooks  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)
    from mmdet.datasets import BaseDetDataset
    from mmdet.registry import DATASETS

    if isinstance(kind, str):
        name = kind.rpartition(".")[2]
        kind = DATASETS.get(name) if name in DATASETS.module_dict else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseDetDataset) else None


def _names_of(kind: type) -> tuple[str, ...]:
    """Return the classes that a type of data set has by itself; none where things and stuff are two lists."""
    own = getattr(kind, "METAINFO", {})
    return () if "stuff_classes" in own else tuple(own.get("classes") or ())


def _by_name(dataset: Mapping[str, Any], kind: type) -> Path | None:
    from mmdet.datasets import CocoDataset

    read_alike = getattr(kind, "load_data_list", None) is CocoDataset.load_data_list
    file = dataset.get("ann_file")
    if not read_alike or not isinstance(file, str) or not file or "://" in file or dataset.get("backend_args"):
        return None
    return Path(dataset.get("data_root") or "", file)


def _names(value: Any, place: str) -> tuple[str, ...] | None:
    """Return the names of a config's `classes`; None for those in a file elsewhere."""
    if isinstance(value, str):
        if "://" in value:
            return None
        value = _names_in_text(value, place)
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise StatementError(f"{place} is {_short(value)}; expected a list of names, such as ('cat', 'dog').")
    if not value:
        raise StatementError(
            f"{place} is empty; expected the names of the classes in the order of the annotation file."
        )
    twice = repeated(value)
    if twice is not None:
        raise StatementError(f"{place} has `{twice}` twice; expected every class once.")
    return tuple(value)


def _names_in_text(text: str, place: str) -> list[str]:
    """Return the lines of the file that a text names, as mmengine reads it."""
    if Path(text).is_file():
        return Path(text).read_text().splitlines()
    if Path(text).suffix in (".txt", ".names"):
        raise StatementError(f"{place} is the file {text}, which is not there; expected one with a name on each line.")
    names = [name.strip() for name in text.split(",") if name.strip()] or ["name"]
    comma = ", with a comma" if len(names) == 1 else ""
    raise StatementError(
        f"{place} is one text, {text!r}, which mmdet reads letter by letter; expected a list of names. Write "
        f"classes={tuple(names)!r}{comma}."
    )


def _check_keys(dataset: Mapping[str, Any], kind: type, place: str) -> None:
    """Refuse settings that look like `metainfo` or `classes` and are not what mmdet calls it."""
    allowed = {name for base in kind.__mro__ for name in inspect.signature(base.__init__).parameters}
    for key, value in dataset.items():
        if key in allowed or key == "type":
            continue
        if _alike(key, "metainfo", _LIKE_METAINFO):
            raise StatementError(f"{place} has `{key}`, which mmdet does not know; write metainfo=dict(classes=(...)).")
        if _alike(key, "classes", _LIKE_CLASSES):
            raise StatementError(
                f"{place}.{key} is {_short(value)}, a setting that mmdet does not know; write "
                "metainfo=dict(classes=(...))."
            )


def _check_spelling(metainfo: Mapping[str, Any], place: str, instead: str) -> None:
    stated = metainfo.get("classes")
    for key, value in metainfo.items():
        if key == "classes" or not isinstance(value, str | list | tuple):
            continue
        if isinstance(stated, list | tuple) and list(value) == list(stated):
            continue
        if _alike(key, "classes", _LIKE_CLASSES):
            if stated is not None:
                raise StatementError(
                    f"{place}.metainfo has both `{key}` and `classes` ({_short(stated)}), and mmdet looks at `classes` "
                    f"only; put the names that are meant there and leave `{key}` out."
                )
            raise StatementError(
                f"{place}.metainfo has `{key}`, which mmdet does not look at, so the classes are {instead}; call it "
                "`classes`."
            )


def _alike(key: Any, meant: str, others: tuple[str, ...]) -> bool:
    """Tell whether a setting is another spelling of what is meant, or another word for it."""
    plain = re.sub("[^a-z]", "", str(key).lower())
    return plain in others or difflib.SequenceMatcher(None, plain, meant).ratio() > 0.8


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
