"""Whether config, data and checkpoint mean the same classes; asked before anything is built.

mmdet numbers labels in the order of an annotation file's categories, leaving out those that `metainfo.classes` does not
name, and asks nobody whether the model, the other data sets, the evaluator and the checkpoint have the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddq_port.data.classes import NamesError, difference, listed, of_file, of_meta, repeated, resembling
from ddq_port.training.checks.stated import DataClasses, StatementError, data_sets, heads, takes_texts
from ddq_port.training.loading import weights
from legacy_adapters.ground.words import counted

_ROWS = re.compile(r"^bbox_head\.(?:aux_)?cls_branches\.\d+\.(?:weight|bias)$|(?:^|\.)label_embedding\.weight$")
_HEAD = "model.bbox_head.num_classes"
EVALUATE, LOAD, RESUME = "evaluate", "load", "resume"


class AgreementError(Exception):
    """Config, data and checkpoint do not mean the same classes."""


@dataclass(frozen=True)
class Agreed:
    """What config and data agree on.

    Attributes:
        place: the data set that the names are of; empty if they are not known.
        names: of the classes, in the order of the labels; empty if they are not known.
        heads: the number of classes of each head of the model, by its place.
        notes: what is in order and good to know, one line each.
    """

    place: str
    names: tuple[str, ...]
    heads: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Trained:
    """What a checkpoint tells of its classes.

    Attributes:
        file: its name.
        names: of the classes, in the order of the labels; None if it has none.
        rows: how many classes its tensors have, by key; empty if no key is known.
    """

    file: str
    names: tuple[str, ...] | None
    rows: Mapping[str, int]

    @classmethod
    def of(cls, file: str, content: Mapping[str, Any]) -> Trained:
        """Look into a checkpoint that was read."""
        shapes = weights.shapes(weights.state_of(content))
        rows = {key: shape[0] for key, shape in shapes.items() if shape and _ROWS.search(key)}
        return cls(file, of_meta(content.get("meta")), rows)


def check_config(cfg: Any, loaders: Mapping[str, str], *, skip_unreadable: bool = False) -> Agreed:
    """Refuse a config whose model and data do not have the same classes in the same order.

    Args:
        cfg: an mmengine config; nothing of it is built.
        loaders: names of the data loaders that will be used, each with that of its evaluator, or an empty one.
        skip_unreadable: leave out annotation files that cannot be read, where another check tells more about them.

    Raises:
        AgreementError: one line that names both sides.
    """
    if takes_texts(cfg.get("model")):
        return Agreed("", (), {}, ())
    try:
        numbers = heads(cfg.get("model"))
        found = {name: list(data_sets((cfg.get(name) or {}).get("dataset"), f"{name}.dataset")) for name in loaders}
    except StatementError as error:
        raise AgreementError(str(error)) from error
    _check_heads(numbers)
    files = _Files(skip_unreadable)
    apart = any(
        _kind_of(metric) == "MultiDatasetsEvaluator" for name in loaders.values() for metric in _many(cfg, name)
    )
    all_data = [data for name in loaders for data in found[name]]
    for data in all_data:
        if data.ann_file is not None:
            files.check(data, data.ann_file, f"{data.place}.ann_file")
        _check_number(numbers, data)
    for data in all_data[1:] if not apart else ():
        _check_same(all_data[0], data)
    for name, evaluator in loaders.items():
        for metric in _many(cfg, evaluator) if found[name] else ():
            file = _local(metric)
            if file is not None:
                files.check(found[name][0], file, f"{evaluator}.ann_file")
    first = all_data[0] if all_data else None
    return Agreed(first.called if first else "", first.names if first else (), numbers, tuple(files.notes))


def check_checkpoint(
    trained: Trained, agreed: Agreed, purpose: str, *, partial: bool = False, other_names: bool = False
) -> list[str]:
    """Refuse a checkpoint of other classes than those of config and data. Return notes, one line each.

    Args:
        trained: the checkpoint.
        agreed: what config and data agree on.
        purpose: ``EVALUATE``, ``LOAD`` or ``RESUME``.
        partial: accept another number of classes; the tensors that depend on it are not loaded then.
        other_names: accept other names, where class N means the same in both, or is to be learnt anew.

    Raises:
        AgreementError: one line that names the checkpoint and both lists of classes.
    """
    number = agreed.heads.get(_HEAD)
    key = _other_rows(trained.rows, number) if number else None
    if key is not None and not partial:
        raise AgreementError(
            f"{trained.file} has {counted(trained.rows[key], 'class')} (rows of `{key}`) and {_HEAD} is {number}. "
            f"{_to_other_number(number, purpose)}"
        )
    if not agreed.heads or not agreed.names or trained.names is None or key is not None:
        return []
    differs = difference(trained.names, agreed.names)
    if differs is None or (partial and len(trained.names) != len(agreed.names)):
        return []
    text = (
        f"{trained.file} was trained for the classes {listed(trained.names)}, and {agreed.place} has "
        f"{listed(agreed.names)}: {differs}"
    )
    if other_names:
        return [f"--allow-other-classes: {text}"]
    raise AgreementError(f"{text}. {_to_other_names(len(agreed.names), purpose, bool(trained.rows))}")


def _other_rows(rows: Mapping[str, int], number: int) -> str | None:
    """Return a key of another number of classes; branches alone may have one more, that of the background."""
    if set(rows.values()) == {number + 1} and not any("label_embedding" in key for key in rows):
        return None
    return next((key for key in rows if rows[key] != number), None)


def other_than_training(cfg: Any, agreed: Agreed) -> list[str]:
    """Return a note if the config states other classes for the training, for a checkpoint that has no names itself."""
    try:
        trained = list(data_sets((cfg.get("train_dataloader") or {}).get("dataset"), "train_dataloader.dataset"))
    except StatementError:  # of data that are not used here
        return []
    if not agreed.names or not trained or not trained[0].stated:
        return []
    differs = difference(trained[0].names, agreed.names)
    if differs is None:
        return []
    return [
        f"the checkpoint has no names of classes; the config trains {listed(trained[0].names)} and evaluates "
        f"{listed(agreed.names)}: {differs}"
    ]


class _Files:
    """Compares annotation files with the names by which they are read.

    Args:
        skip_unreadable: as in :func:`check_config`.
    """

    def __init__(self, skip_unreadable: bool) -> None:
        self.skip_unreadable, self.notes = skip_unreadable, []

    def check(self, data: DataClasses, file: Path, place: str) -> None:
        """Refuse a file whose categories are not those of a data set, in its order; others are left out and noted."""
        try:
            there = of_file(file)
        except NamesError as error:
            if self.skip_unreadable:
                return
            raise AgreementError(
                f"{file} of {place} names no classes ({error}); see `ddq-train check-data {file}`."
            ) from error
        here = [name for name in there if name in data.names]
        surplus = [name for name in there if name not in data.names]
        if here != list(data.names):
            raise AgreementError(_file_told(data, file, place, there, here))
        if surplus:
            note = f"{file} has {listed(surplus)}, too, which {data.place}.metainfo.classes does not name; left out"
            self.notes += [note] if note not in self.notes else []


def _file_told(data: DataClasses, file: Path, place: str, there: Sequence[str], here: Sequence[str]) -> str:
    what = f"{file} of {place} has the categories {listed(there)}"
    if not data.stated:
        return (
            f"{data.place} has no metainfo.classes, so mmdet takes the {len(data.names)} of {data.kind}, and {what}. "
            f"Write metainfo=dict(classes={_written(there)})."
        )
    twice = repeated(there)
    if twice is not None:
        return f"{what}, `{twice}` twice; expected every name once, because mmdet reads categories by their names."
    stated = f"{data.place}.metainfo.classes is {listed(data.names)}"
    if len(here) < len(data.names):
        absent = [name for name in data.names if name not in there]
        alike = resembling(absent[0], there)
        lacks = f"the file lacks {listed([f'`{name}`' for name in absent])}"
        if alike:
            return f"{what}, and {stated}: {lacks}, but has {alike}. Write the names as in the file."
        if not here:
            return f"{what}, and {stated}, of which the file has none. Write classes={_written(there)}."
        return (
            f"{what}, and {stated}: {lacks}. mmdet does not number what a file lacks, so labels would mean other "
            "classes; add the categories to the file, which need no objects, or write its names into metainfo.classes."
        )
    return (
        f"{what}, and {stated}: {difference(here, data.names)}. mmdet numbers labels in the order of the file; write "
        f"classes={_written(here)}."
    )


def _written(names: Sequence[str]) -> str:
    return repr(tuple(names)) if len(names) <= 12 else f"({names[0]!r}, {names[1]!r}, ...)"


def _check_heads(numbers: Mapping[str, int]) -> None:
    places = list(numbers)
    for place in places[1:]:
        if numbers[place] != numbers[places[0]]:
            raise AgreementError(
                f"The heads of the model have different numbers of classes: {places[0]} is {numbers[places[0]]} and "
                f"{place} is {numbers[place]}. Set all {len(places)} to the number of classes of the data."
            )


def _check_number(numbers: Mapping[str, int], data: DataClasses) -> None:
    number = len(data.names)
    for place, stated in numbers.items():
        if stated != number:
            which = f"{place}={number}" if len(numbers) == 1 else f"all {len(numbers)} heads to {number}"
            raise AgreementError(
                f"{place} is {stated} and {data.called} has {counted(number, 'class')} ({listed(data.names)}); expected the "
                f"same number. Set {which} if the data are right."
            )


def _check_same(first: DataClasses, other: DataClasses) -> None:
    differs = difference(first.names, other.names)
    if differs is not None:
        raise AgreementError(
            f"{first.called} has the classes {listed(first.names)}, and {other.called} has {listed(other.names)}: "
            f"{differs}. Expected the same in the same order."
        )


def _to_other_number(number: int, purpose: str) -> str:
    convert = f"`ddq-convert convert --num-classes {number} --class-map FILE` writes weights for other classes"
    if purpose == EVALUATE:
        return f"Pass the config that it was trained with. {convert}, to be trained."
    if purpose == RESUME:
        return "A training goes on with the classes that it began with; begin another one with --load-from."
    return f"{convert}; --partial leaves out what does not fit."


def _to_other_names(number: int, purpose: str, convertible: bool) -> str:
    if purpose == EVALUATE:
        return (
            "Evaluate on data of the classes that it was trained for; if class N means the same in both, pass "
            "--allow-other-classes."
        )
    if purpose == RESUME:
        return (
            "A training goes on with the classes that it began with; begin another one with --load-from, or pass "
            "--allow-other-classes if they only have other names."
        )
    convert = f"`ddq-convert convert --num-classes {number} --class-map FILE` writes weights for other classes; "
    return f"{convert if convertible else ''}--allow-other-classes begins with these as they are."


def _many(cfg: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield the metrics of an evaluator's config, those of an `Evaluator` included."""
    stated = cfg.get(name) if name else None
    for metric in stated if isinstance(stated, list | tuple) else [stated]:
        if isinstance(metric, Mapping):
            yield metric
            yield from (one for one in metric.get("metrics") or () if isinstance(one, Mapping))


def _kind_of(metric: Mapping[str, Any]) -> str:
    kind = metric.get("type")
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _local(metric: Mapping[str, Any]) -> Path | None:
    """Return the annotation file on the local disk that a `CocoMetric` reads."""
    file = metric.get("ann_file")
    if _kind_of(metric) != "CocoMetric" or not isinstance(file, str) or "://" in file or metric.get("backend_args"):
        return None
    return Path(file)
