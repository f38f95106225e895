"""What `ddq-train check-data` prints, and the same check before a training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ddq_port.data import foreign
from ddq_port.data.check import EVALUATION, HEADERS, NAMES, PIXELS, TRAINING, Options, Sample, check
from ddq_port.data.findings import ERROR, KINDS, NOTE, WARNING, Findings, severity_of
from ddq_port.training.output.console import NOT_SO
from ddq_port.training.output.image_progress import ImageProgress
from legacy_adapters.ground.console import DONE, Failure
from legacy_adapters.ground.words import counted

_COLORS = {ERROR: "red", WARNING: "yellow", NOTE: None}
_SHOWN = 5  # problems of each kind on the terminal
_LARGE_FILE = 20_000_000  # bytes; larger annotation files take long enough to say so
#: Before a training all images of a set are loaded if they are few, which takes seconds; of others so many.
_SAMPLE = Sample(few=2000, number=1000)


#: What ends an evaluation in a traceback or makes its AP wrong; what else may be wrong, it leaves out.
_SPOILS_EVALUATION = {kind for kind, it in KINDS.items() if it.evaluation and it.severity == ERROR}
_SPOILS_EVALUATION |= {"unreadable", "encoding", "malformed", "no-id", "bad-box", "area-missing", "duplicate-id"}


class DataError(Exception):
    """The data of a training have errors."""


def command(
    ann_file: Path,
    images: Path | None,
    config: str | None,
    fast: bool,
    read_images: bool,
    fix: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check a data set, print what was found and return the exit code; with `fix`, mend it and check the result."""
    if images is not None and not images.is_dir():
        raise Failure(f"There is no folder `{images}`; --images names the folder that file names are relative to.")
    other = foreign.recognise(ann_file, images)
    if other is not None:
        raise Failure(other)
    depth = NAMES if not read_images else HEADERS if fast else PIXELS
    options = Options(depth=depth) if config is None else _of_config(config, depth)
    try:
        changes = () if fix is None else _mend(ann_file, images, fix)
        checked = fix if fix is not None and changes else ann_file
        progress = ImageProgress(quiet)
        findings = check(checked, images, options, progress, progress.stage)
        progress.stage("")
    except OSError as error:
        raise Failure(f"Cannot read `{ann_file}`: {error.strerror or error}.") from error
    if as_json:
        told = findings.as_dict() | ({} if fix is None else {"changes": list(changes)})
        click.echo(json.dumps(told, indent=2))
        return DONE if findings.ok else NOT_SO
    if fix is not None:
        for line in _changes(ann_file, fix, changes):
            click.echo(line)
    if not quiet:
        for line in (*_classes(findings), *_outcomes(findings), *_problems(findings)):
            click.echo(line)
    click.echo(verdict(findings))
    return DONE if findings.ok else NOT_SO


def before_training(cfg: Any, say: Callable[[str], None]) -> None:
    """Check every COCO-format data set that a config trains or validates on.

    Images of a set of up to 2,000 are all loaded; of a larger one 1,000 are, evenly spread, and all must be there.

    Args:
        cfg: an mmengine config.
        say: is given what is wrong, in lines.

    Raises:
        DataError: if one has errors.
        OSError: if an annotation file cannot be read.
    """
    for name, purpose in (("train_dataloader", TRAINING), ("val_dataloader", EVALUATION)):
        for dataset in _coco_datasets((cfg.get(name) or {}).get("dataset")):
            ann_file, images = _paths(dataset)
            if not images.is_dir():
                raise DataError(f"The image folder {images} of {name} is not there; expected a folder.")
            if ann_file.stat().st_size > _LARGE_FILE:
                say(f"checking {ann_file}; --no-check-data skips that")
            options = _options(cfg, dataset, purpose, _class_names(dataset), sample=_SAMPLE)
            findings = check(ann_file, images, options)
            if findings.decoded < findings.images and findings.images > _SAMPLE.few:
                say(
                    f"{name}: {findings.decoded} of {findings.images} images were loaded; "
                    f"`ddq-train check-data {ann_file} --images {images}` loads all"
                )
            _judge(findings, name, say)
    _check_evaluators(cfg, say)


def before_evaluation(cfg: Any, say: Callable[[str], None]) -> None:
    """Check every annotation file that a config evaluates on for what makes the evaluation crash or come out wrong.

    Images are not looked at: the evaluation loads them all.

    Args:
        cfg: an mmengine config.
        say: is given what is wrong, in lines.

    Raises:
        DataError: if one has errors.
        OSError: if an annotation file cannot be read.
    """
    given = cfg.get("test_evaluator")
    evaluators = [evaluator for evaluator in (given if isinstance(given, list | tuple) else [given]) if evaluator]
    if not any(_type(one).rpartition(".")[2] == "CocoMetric" and not one.get("format_only") for one in evaluators):
        return
    for dataset in _coco_datasets((cfg.get("test_dataloader") or {}).get("dataset")):
        options = Options(classes=_class_names(dataset), purpose=EVALUATION, ask_mmdet=False)
        findings = check(_paths(dataset)[0], None, options)
        wrong = [problem for problem in findings.problems if problem.kind in _SPOILS_EVALUATION]
        for problem in wrong[:_SHOWN]:
            say(f"{problem.severity} {problem.kind}: {problem}")
        if wrong:
            kind = wrong[0].kind
            remedy = KINDS[kind].remedy.format(ann_file=findings.ann_file)
            raise DataError(
                f"The data of test_dataloader cannot be evaluated on: {KINDS[kind].meaning}; the first is {wrong[0]}. "
                f"{f'What to do: {remedy};' if remedy else 'Mend them'} or pass --no-check-data."
            )


def _judge(findings: Findings, name: str, say: Callable[[str], None]) -> None:
    for _, line in listing(findings, (ERROR, WARNING)):
        say(line)
    first = findings.first_error
    if first is not None:
        remedy = KINDS[first.kind].remedy.format(ann_file=findings.ann_file)
        raise DataError(
            f"The data of {name} have {counted(findings.count(ERROR), 'error')}, the first in {first}. "
            f"{f'What to do: {remedy};' if remedy else 'Mend them'} or pass --no-check-data."
        )


def _check_evaluators(cfg: Any, say: Callable[[str], None]) -> None:
    """Check annotation files that only an evaluator reads: every image that is validated on must be in them."""
    given = cfg.get("val_evaluator")
    datasets = list(_coco_datasets((cfg.get("val_dataloader") or {}).get("dataset")))
    for evaluator in given if isinstance(given, list | tuple) else [given]:
        file = evaluator and not evaluator.get("backend_args") and evaluator.get("ann_file")
        others = [dataset for dataset in datasets if file and not _same(_paths(dataset)[0], Path(file))]
        if not others or _type(evaluator).rpartition(".")[2] != "CocoMetric" or len(others) < len(datasets):
            continue
        options = Options(classes=_class_names(others[0]), purpose=EVALUATION)
        _judge(check(file, None, options), "val_evaluator", say)
        for dataset in others:
            validated = _paths(dataset)[0]
            absent = _image_ids(validated) - _image_ids(Path(file))
            if absent:
                raise DataError(
                    f"val_evaluator evaluates on {file}, which lacks {counted(len(absent), 'image')} of {validated}, "
                    f"such as image {min(absent, key=str)}; set val_evaluator.ann_file to the file of val_dataloader."
                )


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.samefile(other)


def _image_ids(ann_file: Path) -> set[Any]:
    return {image["id"] for image in json.loads(ann_file.read_bytes())["images"]}


def verdict(findings: Findings) -> str:
    """Return the closing line."""
    found = ", ".join(counted(findings.count(severity), severity) for severity in (ERROR, WARNING, NOTE))
    size = (
        f"{counted(findings.images, 'image')} ({findings.without_objects} without objects), "
        f"{counted(findings.annotations, 'annotation')}, {counted(len(findings.objects), 'class')}"
    )
    return f"{'USABLE' if findings.ok else 'UNUSABLE'} {findings.ann_file}: {size}; {found}"


def listing(findings: Findings, severities: tuple[str, ...] = (ERROR, WARNING, NOTE)) -> Iterator[tuple[str, str]]:
    """Yield (severity, line): each kind with its number and meaning, below it its first problems and the remedy."""
    for kind, number in findings.counts.items():
        severity = severity_of(kind, findings.purpose)
        if severity not in severities:
            continue
        yield severity, f"{severity} {kind} ({number}): {KINDS[kind].meaning}"
        shown = [problem for problem in findings.problems if problem.kind == kind][:_SHOWN]
        for problem in shown:
            yield severity, f"  {problem}"
        if number > len(shown):
            yield severity, f"  and {number - len(shown)} more"
        if KINDS[kind].remedy:
            yield severity, f"  what to do: {KINDS[kind].remedy.format(ann_file=findings.ann_file)}"


def _mend(ann_file: Path, images: Path | None, out: Path) -> tuple[str, ...]:
    """Write a mended annotation file, if there is something to mend, and return what was changed."""
    from ddq_port.data import mending

    if out.exists():
        raise Failure(f"`{out}` exists; --fix overwrites nothing, choose another name.")
    if not out.absolute().parent.is_dir():
        raise Failure(f"There is no folder `{out.absolute().parent}` for --fix.")
    try:
        mended = mending.mend(ann_file, images)
        if mended is not None and mended.changes:
            _write(mended.content, out)
            return mended.changes
    except mending.MendingError as error:
        raise Failure(str(error)) from error
    return ()


def _write(content: dict[str, Any], out: Path) -> None:
    from ddq_port.data import mending

    try:
        mending.write(content, out)
    except OSError as error:
        raise Failure(f"Cannot write `{out}`: {error.strerror or error}.") from error


def _changes(ann_file: Path, out: Path, changes: tuple[str, ...]) -> Iterator[str]:
    if not changes:
        yield f"FIX wrote nothing: `{ann_file}` has nothing that can be mended without guessing"
        return
    yield f"FIX {ann_file} -> {out}"
    yield from (f"  {change}" for change in changes)


def _of_config(name: str, depth: str) -> Options:
    """Return how a config uses data to train on."""
    from ddq_port.training.settings import config
    from ddq_port.training.settings.options import ConfigError

    try:
        cfg = config.load(name)
    except ConfigError as error:
        raise Failure(str(error)) from error
    dataset = next(_coco_datasets((cfg.get("train_dataloader") or {}).get("dataset")), None)
    if dataset is None:
        raise Failure(
            f"The config {name} has no CocoDataset in train_dataloader; expected one to take its filters from."
        )
    return _options(cfg, dataset, depth=depth)


def _options(
    cfg: Any,
    dataset: Mapping[str, Any],
    purpose: str = Options.purpose,
    classes: tuple[str, ...] | None = None,
    depth: str = PIXELS,
    sample: Sample | None = None,
) -> Options:
    loaders = (step for step in dataset.get("pipeline") or () if "LoadImage" in _type(step))
    limit = ((cfg.get("model") or {}).get("test_cfg") or {}).get("max_per_img")
    return Options(
        classes=classes,
        filter_cfg=dict(dataset.get("filter_cfg") or {}),
        loader=next(loaders, None),
        purpose=purpose,
        depth=depth,
        sample=sample,
        detections=limit if isinstance(limit, int) else None,
    )


def _type(step: Mapping[str, Any]) -> str:
    kind = step.get("type", "")
    return kind if isinstance(kind, str) else getattr(kind, "__name__", "")


def _coco_datasets(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the configs of data sets on the local disk, wrapped ones included."""
    if not isinstance(dataset, Mapping):
        return
    of_coco = _type(dataset).rpartition(".")[2] == "CocoDataset"
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


def _outcomes(findings: Findings) -> Iterator[str]:
    """Say what mmdet makes of the data."""
    if findings.trained is not None and (findings.ok or findings.trained < findings.images):
        yield f"mmdet trains on {findings.trained} of {counted(findings.images, 'image')}"
    if findings.truth is None or findings.truth.ap < 0:  # pycocotools' -1: there is nothing to find
        return
    truth = findings.truth
    of = "" if truth.images == findings.images else f", seen on {counted(truth.images, 'image')}"
    lost = "; ".join(f"{number} not found: {cause}" for cause, number in truth.lost.items())
    yield f"the truth itself reaches AP {truth.ap:.3f} ({counted(truth.objects, 'object')}{of}{lost and '; ' + lost})"


def _problems(findings: Findings) -> Iterator[str]:
    for severity, line in listing(findings):
        plain = line.startswith(" ") or os.environ.get("NO_COLOR")
        yield line if plain else click.style(line, fg=_COLORS[severity])
