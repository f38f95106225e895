"""What `ddq-train check-data` prints, and the same check before a training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ddq_port.data.check import ERROR, KINDS, NOTE, WARNING, Findings, check
from ddq_port.training.console import DONE, NOT_SO, Failure

_COLORS = {ERROR: "red", WARNING: "yellow", NOTE: None}
_SHOWN = 5  # problems of each kind on the terminal


class DataError(Exception):
    """The data of a training have errors."""


def command(ann_file: Path, images: Path | None, read_images: bool, as_json: bool, quiet: bool) -> int:
    """Check a data set, print what was found and return the exit code."""
    if images is not None and not images.is_dir():
        raise Failure(f"There is no folder `{images}`; --images names the folder that file names are relative to.")
    try:
        findings = check(ann_file, images, read_images=read_images)
    except OSError as error:
        raise Failure(f"Cannot read `{ann_file}`: {error.strerror or error}.") from error
    if as_json:
        click.echo(json.dumps(findings.as_dict(), indent=2))
        return DONE if findings.ok else NOT_SO
    if not quiet:
        for line in (*_classes(findings), *_problems(findings)):
            click.echo(line)
    click.echo(verdict(findings))
    return DONE if findings.ok else NOT_SO


def before_training(cfg: Any, say: Callable[[str], None]) -> None:
    """Check every COCO-format data set that a config trains or validates on; images are not opened.

    Args:
        cfg: an mmengine config.
        say: is given what is wrong, in lines.

    Raises:
        DataError: if one has errors.
        OSError: if an annotation file cannot be read.
    """
    for name in ("train_dataloader", "val_dataloader"):
        for dataset in _coco_datasets((cfg.get(name) or {}).get("dataset")):
            ann_file, images = _paths(dataset)
            findings = check(ann_file, images, classes=_class_names(dataset), read_images=False)
            for _, line in listing(findings, (ERROR, WARNING)):
                say(line)
            if not findings.ok:
                raise DataError(
                    f"The data of {name} have {_number(findings.count(ERROR), 'error')}, "
                    f"the first in {findings.problems[0]}. "
                    "Mend them or pass --no-check-data."
                )


def verdict(findings: Findings) -> str:
    """Return the closing line."""
    found = ", ".join(_number(findings.count(severity), severity) for severity in (ERROR, WARNING, NOTE))
    size = (
        f"{_number(findings.images, 'image')} ({findings.without_objects} without objects), "
        f"{_number(findings.annotations, 'annotation')}, {_number(len(findings.objects), 'class')}"
    )
    return f"{'USABLE' if findings.ok else 'UNUSABLE'} {findings.ann_file}: {size}; {found}"


def listing(findings: Findings, severities: tuple[str, ...] = (ERROR, WARNING, NOTE)) -> Iterator[tuple[str, str]]:
    """Yield (severity, line): each kind with its number and meaning, below it its first problems."""
    for kind, (severity, meaning) in KINDS.items():
        number = findings.counts.get(kind, 0)
        if not number or severity not in severities:
            continue
        yield severity, f"{severity} {kind} ({number}): {meaning}"
        shown = [problem for problem in findings.problems if problem.kind == kind][:_SHOWN]
        for problem in shown:
            yield severity, f"  {problem}"
        if number > len(shown):
            yield severity, f"  and {number - len(shown)} more"


def _coco_datasets(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the configs of data sets on the local disk, wrapped ones included."""
    if not isinstance(dataset, Mapping):
        return
    of_coco = str(dataset.get("type", "")).rpartition(".")[2] == "CocoDataset"
    if of_coco and dataset.get("ann_file") and not dataset.get("backend_args"):
        yield dataset
    for part in (dataset.get("dataset"), *(dataset.get("datasets") or ())):
        yield from _coco_datasets(part)


def _paths(dataset: Mapping[str, Any]) -> tuple[Path, Path]:
    """Return annotation file and image folder, put together as mmengine does it."""
    root = dataset.get("data_root") or ""
    prefix = (dataset.get("data_prefix") or {}).get("img", "")
    return Path(root, dataset["ann_file"]), Path(root, prefix)


def _class_names(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    from mmdet.datasets import CocoDataset

    return tuple((dataset.get("metainfo") or {}).get("classes") or CocoDataset.METAINFO["classes"])


def _classes(findings: Findings) -> Iterator[str]:
    if findings.objects:
        width = max(len("class"), *map(len, findings.objects))
        yield f"label  {'class':{width}}  annotations"
        for label, (name, number) in enumerate(findings.objects.items()):
            yield f"{label:5}  {name:{width}}  {number:11}"


def _problems(findings: Findings) -> Iterator[str]:
    for severity, line in listing(findings):
        plain = line.startswith(" ") or os.environ.get("NO_COLOR")
        yield line if plain else click.style(line, fg=_COLORS[severity])


def _number(number: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"
