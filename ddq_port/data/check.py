"""Look for what is wrong in a COCO-format data set before a training finds it, or worse, does not.

What reads the data in a training is asked: pycocotools' way to open a file, mmdet 3.3.0's ``CocoDataset`` and
``CocoMetric``, and the loader of the pipeline. The rules about single entries say in words what these would do with
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddq_port.data import annotation_file, records, truth
from ddq_port.data.findings import BOTH, EVALUATION, TRAINING, Collector, Findings, Truth
from ddq_port.data.names import ImageFolder
from ddq_port.data.pixels import Image
from ddq_port.data.records import Records

#: What the installed configs filter: images with a side of less than 32 pixels.
SHIPPED_FILTER = {"filter_empty_gt": False, "min_size": 32}
NAMES, HEADERS, PIXELS = "names", "headers", "pixels"
#: Mistakes in entries that mmdet takes as they are.
_NOT_OF_ENTRIES = frozenset(
    {"classes", "outside", "box-form", "ignored-class", "zero-id", "crowd-missing", "text-id", "encoding"}
)


@dataclass(frozen=True)
class Sample:
    """Which images of a large set are looked at: a number of them, evenly spread.

    Attributes:
        few: up to so many, all are.
        number: of more, so many.
    """

    few: int
    number: int


@dataclass(frozen=True)
class Options:
    """How a data set is used, and how closely it is looked at.

    Attributes:
        classes: names that a config expects (``metainfo.classes``), in the order of labels; None expects nothing.
        filter_cfg: which images a training leaves out.
        loader: the transform of the pipeline that loads images, as a config; None for mmdet's with its defaults.
        purpose: ``TRAINING``, ``EVALUATION`` or ``BOTH``.
        depth: ``NAMES`` asks whether image files are there, ``HEADERS`` reads their sizes, ``PIXELS`` loads them.
        sample: of how many images that holds; None for all.
        detections: how many the model gives per image (``max_per_img``); None if that is not known.
        ask_mmdet: whether mmdet reads and evaluates the file, too; importing it takes some seconds.
    """

    classes: Sequence[str] | None = None
    filter_cfg: Mapping[str, Any] = field(default_factory=lambda: dict(SHIPPED_FILTER))
    loader: Mapping[str, Any] | None = None
    purpose: str = BOTH
    depth: str = PIXELS
    sample: Sample | None = None
    detections: int | None = None
    ask_mmdet: bool = True


def check(
    ann_file: str | Path,
    image_folder: str | Path | None = None,
    options: Options = Options(),
    progress: Callable[[int, int], None] = lambda done, of: None,
    stage: Callable[[str], None] = lambda text: None,
) -> Findings:
    """Check an annotation file and the images it names.

    Args:
        ann_file: JSON with ``images``, ``annotations`` and ``categories``.
        image_folder: what file names are relative to; None leaves the images out.
        options: what the data are for.
        progress: is given the number of images that were looked at, and of all.
        stage: is told what is done at the moment, for what takes long.

    Returns:
        Everything that was found; nothing is raised for bad data.

    Raises:
        OSError: if ``ann_file`` cannot be read at all.
    """
    found = Collector(str(ann_file), options.purpose)
    content = annotation_file.load(Path(ann_file), found)
    if content is None:
        return found.findings()
    entries = records.check(content, options.classes, found)
    del content  # mmdet reads the file itself; COCO's train2017 takes some gigabytes
    trained, evaluated = None, None
    if options.ask_mmdet and entries.names and entries.images and "encoding" not in found.counts:
        stage("mmdet reads the annotations")
        trained = _read(Path(ann_file), entries, options, found)
        if options.purpose != TRAINING and trained is not None:
            stage("mmdet evaluates the annotations")
            evaluated = _evaluate(Path(ann_file), entries, options, found)
    _check_number_of_objects(entries, options, found)
    decoded = 0
    if image_folder is not None:
        decoded = _check_images(entries, Path(image_folder), options, progress, found)
    return found.findings(
        images=len(entries.images),
        without_objects=sum(not entries.of_image[image_id] for image_id in entries.images),
        trained=trained,
        decoded=decoded,
        annotations=entries.annotations,
        objects={name: entries.of_class[category_id] for category_id, name in entries.names.items()},
        truth=evaluated,
    )


def _read(ann_file: Path, entries: Records, options: Options, found: Collector) -> int | None:
    """Let mmdet read the file; return how many images a training gets, None if it cannot be read."""
    classes = _classes(entries, options)
    try:
        reading = truth.read(ann_file, classes, options.filter_cfg)
    except Exception as error:  # whatever mmdet raises on what it does not expect
        if not found.has_errors():
            found.add("reader", "", f"mmdet's CocoDataset ends with {_named(error)}")
        return None
    if options.purpose != EVALUATION:
        _tell_filtered(reading, options.filter_cfg, found)
    expected = sum(number for key, number in entries.of_class.items() if entries.names[key] in classes)
    if sum(reading.all_objects.values()) != expected and not found.has_errors(_NOT_OF_ENTRIES):
        got = sum(reading.all_objects.values())
        found.add("reader", "", f"expected {expected} objects to train on, mmdet's CocoDataset gives {got}")
    return reading.kept


def _tell_filtered(reading: truth.Reading, filter_cfg: Mapping[str, Any], found: Collector) -> None:
    smallest = filter_cfg.get("min_size", 0)
    for ids, why in (
        (reading.small, f"smaller than min_size {smallest}"),
        (reading.emptied, "without annotations of these classes (filter_empty_gt)"),
    ):
        if ids:
            first = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
            number = f"{len(ids)} of {reading.images} images"
            found.add("filtered", "", f"{number} will not be trained: {why} (image {first})")
    if reading.images and not reading.kept:
        found.add("empty", "", "filter_cfg of the config leaves no image to train on")
    elif sum(reading.all_objects.values()) and not sum(reading.objects.values()):
        found.add("empty", "", "the images that filter_cfg of the config leaves have no object to train on")


def _evaluate(ann_file: Path, entries: Records, options: Options, found: Collector) -> Truth | None:
    try:
        result = truth.evaluate(ann_file, _classes(entries, options))
    except Exception as error:  # whatever mmdet and pycocotools raise on what they do not expect
        if not found.has_errors():
            found.add("evaluator", "", f"mmdet's CocoMetric ends with {_named(error)}")
        return None
    if result is None:
        return None
    for cause, number in truth.beyond_limit(result).items():
        found.add("crowded", "", f"{number} of {result.objects} objects are not looked at: {cause}")
    unexplained = truth.unexplained(result)
    if (unexplained or (result.ap < 1 and not result.lost)) and not found.has_errors(_NOT_OF_ENTRIES):
        found.add(
            "lost",
            "",
            f"the truth itself reaches AP {result.ap:.3f}; {unexplained} of {result.objects} objects are not found",
        )
    return result


def _check_number_of_objects(entries: Records, options: Options, found: Collector) -> None:
    if options.detections is None or options.purpose == TRAINING:
        return
    for image_id, number in entries.of_image.items():
        if number > options.detections:
            found.add(
                "crowded",
                f"image {image_id}",
                f"{number} objects, the model gives {options.detections} detections (max_per_img)",
            )


def _classes(entries: Records, options: Options) -> tuple[str, ...]:
    return tuple(entries.names.values()) if options.classes is None else tuple(options.classes)


def _named(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def _check_images(
    entries: Records, folder: Path, options: Options, progress: Callable[[int, int], None], found: Collector
) -> int:
    """Look at the images; return how many were decoded."""
    images = list(_present(entries, ImageFolder(folder), found))
    if options.depth == NAMES or not images:
        return 0
    from ddq_port.data import images as pool

    if options.sample is not None and len(images) > options.sample.few:
        number = options.sample.number
        images = [images[place * len(images) // number] for place in range(number)]
    decode = options.depth == PIXELS
    loader = _loader(options.loader)
    for image, remark in pool.check(images, loader, decode, lambda done: progress(done, len(images))):
        found.add(remark.kind, f"image {image.key}", remark.text, str(image.path))
    return len(images) if decode else 0


def _present(entries: Records, folder: ImageFolder, found: Collector) -> Iterator[Image]:
    """Yield images whose files are there; tell the others."""
    for image in entries.images.values():
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            continue
        path = folder.path / name
        try:
            there = path.is_file()
        except (OSError, ValueError):  # a name that is too long, or has a null byte in it
            there = False
        if there:
            size = image.get("width"), image.get("height")
            yield Image(image["id"], path, size, bool(entries.of_image[image["id"]]))
        else:
            found.add("missing-image", f"image {image['id']}", f"there is no such file{folder.hint(name)}", str(path))


def _loader(config: Mapping[str, Any] | None) -> Callable[[dict[str, Any]], Mapping[str, Any] | None]:
    """Return the transform that a training loads its images with."""
    if config is None or config.get("type") == "LoadImageFromFile":
        from mmcv.transforms import LoadImageFromFile

        return LoadImageFromFile(**{key: value for key, value in (config or {}).items() if key != "type"})
    from mmdet.registry import TRANSFORMS

    import ddq_port.registry  # noqa: F401  the stand-in for mmcv's operators, which mmdet imports

    return TRANSFORMS.build(dict(config))


__all__ = ["BOTH", "EVALUATION", "HEADERS", "NAMES", "PIXELS", "TRAINING", "Findings", "Options", "Sample", "check"]
