"""Point a config at one's own data in COCO format: paths, names of the classes, their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddq_port.data import foreign
from ddq_port.data.classes import NamesError, difference, listed, of_file, repeated


class OwnDataError(Exception):
    """A config cannot be pointed at these data."""


@dataclass(frozen=True)
class Source:
    """Annotated images.

    Attributes:
        ann_file: their annotations, in COCO format.
        images: the folder that file names are relative to.
    """

    ann_file: Path
    images: Path

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes in the order in which mmdet labels them: that of the file.

        Raises:
            OwnDataError: if the file is none, or names no classes, or one of them twice.
        """
        other = foreign.recognise(self.ann_file, self.images)
        if other is not None:
            raise OwnDataError(other)
        try:
            names = of_file(self.ann_file)
        except NamesError as error:
            raise OwnDataError(
                f"`{self.ann_file}` names no classes ({error}); see `ddq-train check-data {self.ann_file}`."
            ) from error
        twice = repeated(names)
        if twice is not None:
            raise OwnDataError(
                f"`{self.ann_file}` has the category `{twice}` twice; expected every name once, for mmdet reads "
                "categories by their names."
            )
        return names


def use(cfg: Any, train: Source, val: Source | None) -> tuple[str, ...]:
    """Make a config train and evaluate on one's own data; `cfg` is changed. Return the names of the classes.

    Replaced are annotation file, image folder and class names of the data sets, the annotation file of the evaluators,
    and every ``num_classes`` of the model. Pipelines, samplers and filters stay.

    Args:
        cfg: an mmengine config.
        train: what to train on.
        val: what to validate and test on; None for a config that does neither.

    Raises:
        OwnDataError: if a data set of the config is not of one annotation file, if validation would have other classes
            than the training, or if the model has no ``num_classes``.
    """
    sources = {"train_dataloader": train, "val_dataloader": val, "test_dataloader": val}
    used = {name: source for name, source in sources.items() if cfg.get(name)}
    if None in used.values():
        raise OwnDataError("The config validates, too, and not on these data; say on which (--val-data ANN IMAGES).")
    classes = train.classes()
    differs = difference(classes, val.classes()) if val is not None else None
    if val is not None and differs is not None:
        raise OwnDataError(
            f"`{train.ann_file}` has the classes {listed(classes)}, and `{val.ann_file}` has "
            f"{listed(val.classes())}: {differs}. Expected the same in the same order."
        )
    for name, source in used.items():
        _use_in(cfg[name], name, source, classes)
    for name in ("val_evaluator", "test_evaluator"):
        if val is not None:
            _use_in_evaluators(cfg.get(name), val)
    if not list(_set_classes(cfg.model, len(classes))):
        raise OwnDataError("The model of the config has no num_classes; expected a detector of mmdet's kind.")
    return classes


def _use_in(dataloader: Any, name: str, source: Source, classes: tuple[str, ...]) -> None:
    dataset = dataloader.dataset
    if "ann_file" not in dataset:
        raise OwnDataError(f"{name}.dataset is a {dataset.get('type')}; expected one with an ann_file, CocoDataset.")
    dataset.data_root = ""
    dataset.ann_file = str(source.ann_file.absolute())
    dataset.data_prefix = dict(img=f"{source.images.absolute()}/")
    dataset.metainfo = dict(classes=classes)


def _use_in_evaluators(evaluators: Any, source: Source) -> None:
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if evaluator and "ann_file" in evaluator:
            evaluator.ann_file = str(source.ann_file.absolute())


def _set_classes(part: Any, number: int) -> Iterator[int]:
    """Set every ``num_classes`` below a part of a model; yield once for each."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key == "num_classes":
                part[key] = number
                yield number
            else:
                yield from _set_classes(value, number)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _set_classes(value, number)
