"""What may be wrong with a data set: the kinds of problems, and those that were found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

ERROR, WARNING, NOTE = "error", "warning", "note"
#: What a data set is for. What only an evaluation trips over is no more than a warning for data to train on.
TRAINING, EVALUATION, BOTH = "training", "evaluation", "both"
#: Of each kind so many are listed; all are counted.
MOST_LISTED = 100
_LARGEST = 1e300
#: What to do about what can be mended without guessing; {ann_file} is filled in.
FIX = "`ddq-train check-data {ann_file} --fix OUT.json` mends it"


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        severity: an *error* makes a training or an evaluation crash or come out wrong; a *warning* is left out or
            cannot be learnt; a *note* is in order and good to know.
        meaning: what it means for a training.
        remedy: what to do; empty where each problem's text says it.
        evaluation: whether only the evaluation is touched.
    """

    severity: str
    meaning: str
    remedy: str = ""
    evaluation: bool = False


_CONVERT = "make 8 bits of the values that there are, for instance `magick OLD -auto-level -depth 8 NEW.png`"
KINDS = {
    "unreadable": Kind(ERROR, "the annotation file is not COCO-format JSON"),
    "encoding": Kind(ERROR, "the trainer opens the file as text of another encoding"),
    "empty": Kind(ERROR, "there is nothing to train or to evaluate on"),
    "malformed": Kind(ERROR, "an entry lacks a field or has one of another type"),
    "bad-size": Kind(
        ERROR,
        "an image entry without its size in pixels",
        "write the size of the file as width, height; --fix makes numbers of text",
    ),
    "bad-box": Kind(
        ERROR,
        "a bbox that is not four finite numbers with width and height from 0 on",
        "correct or remove it; --fix makes numbers of text",
    ),
    "no-id": Kind(ERROR, "an annotation without an id: the training cannot read the file", FIX),
    "area-missing": Kind(ERROR, "an annotation without a usable `area`: the training crashes", FIX),
    "area-range": Kind(ERROR, "pycocotools does not count objects of this area", FIX, evaluation=True),
    "crowd-missing": Kind(ERROR, "an annotation without `iscrowd`: the evaluation crashes", FIX, evaluation=True),
    "bad-crowd": Kind(
        ERROR, "`iscrowd` is neither 0 nor 1; mmdet takes text for 1", "write 0 or 1; --fix does for text"
    ),
    "zero-id": Kind(ERROR, "pycocotools takes annotation id 0 for `not found`: AP is too low", FIX, evaluation=True),
    "text-id": Kind(ERROR, "the evaluation crashes at annotation ids that are text", FIX, evaluation=True),
    "mixed-ids": Kind(
        ERROR, "the evaluation crashes where ids are text and numbers", "make all of them numbers", evaluation=True
    ),
    "id-type": Kind(ERROR, "text in one place and a number in another are two ids: the objects are lost", FIX),
    "duplicate-id": Kind(
        ERROR,
        "entries with one id: the training stops, or all but the last are lost",
        "give each an id of its own; --fix does so for annotations",
    ),
    "duplicate-class": Kind(ERROR, "classes of one name cannot be told apart", "rename one of them"),
    "classes": Kind(ERROR, "mmdet leaves out what has another name, and labels classes in the file's order"),
    "unknown-image": Kind(ERROR, "an annotation of no image of this file", "add the image or remove the annotation"),
    "unknown-category": Kind(
        ERROR, "an annotation of no class of this file", "add it to `categories` or remove the annotation"
    ),
    "reader": Kind(ERROR, "mmdet's CocoDataset does not read the file as it should"),
    "evaluator": Kind(ERROR, "mmdet's CocoMetric cannot evaluate on the file"),
    "lost": Kind(ERROR, "the evaluation does not find objects in the truth itself, for a reason unknown here"),
    "missing-image": Kind(ERROR, "the training crashes when it reads that image"),
    "unreadable-image": Kind(ERROR, "the training crashes when it reads that image"),
    "damaged-image": Kind(ERROR, "the decoder fills what is missing with grey", "get the file again"),
    "values-lost": Kind(ERROR, "the training reads 8 bits per colour: this image is black to it", _CONVERT),
    "image-size": Kind(ERROR, "the image has another size than its annotations were made for"),
    "box-form": Kind(ERROR, "the boxes are not [x, y, width, height] in pixels"),
    "outside": Kind(ERROR, "a box has no pixel in common with its image", "correct or remove these annotations"),
    "ignored-class": Kind(
        ERROR,
        "all objects of a class have `ignore`: mmdet does not train on them, but the evaluation counts them",
        "remove `ignore`, or write iscrowd 1 instead for regions that do not count",
    ),
    "ignored": Kind(
        WARNING,
        "an annotation with `ignore` is left out of the training, but counts in the evaluation",
        "remove `ignore`, or write iscrowd 1 instead for regions that do not count",
    ),
    "filtered": Kind(WARNING, "the config's filter_cfg leaves images out of the training"),
    "crowded": Kind(WARNING, "more objects than an evaluation looks at"),
    "beyond-edge": Kind(WARNING, "a box reaches out of its image, where no prediction goes"),
    "no-area": Kind(WARNING, "a box without area is left out of the training, but counts in the evaluation"),
    "thin": Kind(WARNING, "a box of less than a pixel is left out of the training, but counts in the evaluation"),
    "duplicate-box": Kind(WARNING, "an object is listed more than once: same image, class and box", "remove one"),
    "duplicate-file": Kind(WARNING, "one image file stands for several images"),
    "dark-image": Kind(WARNING, "the training reads 8 bits per colour: few levels are left of this image", _CONVERT),
    "blank-image": Kind(WARNING, "all pixels of an image with objects have one value"),
    "large-image": Kind(WARNING, "the image takes much memory in every process that loads it"),
    "surplus-class": Kind(WARNING, "a class that the config does not have is left out"),
    "unused-class": Kind(WARNING, "a class without objects cannot be learnt"),
    "float-id": Kind(NOTE, "ids are written as 1.0; mmdet takes that for 1, other programs may not", FIX),
    "turned-image": Kind(NOTE, "the loader turns the image as its EXIF data say: boxes must be for the turned image"),
    "id-gap": Kind(NOTE, "the label of a class is its place in the list, not its id"),
    "crowd": Kind(NOTE, "crowds are not trained on, and the evaluation forgives detections on them"),
}


def severity_of(kind: str, purpose: str) -> str:
    """Return how grave a kind of problem is for data of that purpose."""
    return WARNING if KINDS[kind].evaluation and purpose == TRAINING else KINDS[kind].severity


@dataclass(frozen=True)
class Problem:
    """One thing that was found.

    Attributes:
        kind: a key of ``KINDS``.
        severity: ``'error'``, ``'warning'`` or ``'note'``.
        file: the annotation file, or the image.
        where: ``'annotation 17'``, ``'image 3'``, ``'category 2'`` with their ids, or ``''`` for the whole file.
        text: what was expected and found.
    """

    kind: str
    severity: str
    file: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.where}: {self.text}" if self.where else f"{self.file}: {self.text}"


@dataclass(frozen=True)
class Truth:
    """What comes out when the annotations themselves are given to the evaluation as detections.

    Attributes:
        ap: ``bbox_mAP`` of mmdet's CocoMetric.
        images: how many images were evaluated.
        objects: how many objects they have, without crowds.
        lost: how many of them the evaluation does not find, by cause.
    """

    ap: float
    images: int
    objects: int
    lost: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """What a data set holds and what is wrong with it.

    Attributes:
        ann_file: the annotation file.
        purpose: one of ``TRAINING``, ``EVALUATION``, ``BOTH``.
        images: how many images it lists.
        without_objects: how many of them have nothing to train on.
        trained: how many images mmdet trains on, after the filters of the config; None if it could not be asked.
        decoded: how many images were decoded.
        annotations: how many annotations it lists, crowds included.
        objects: annotations of each class to train on, by its name, in the file's order, which is that of the labels.
        truth: the evaluation of the truth; None if there was none.
        counts: how many problems of each kind were found.
        problems: the first ``MOST_LISTED`` of each kind.
    """

    ann_file: str
    purpose: str = BOTH
    images: int = 0
    without_objects: int = 0
    trained: int | None = None
    decoded: int = 0
    annotations: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    truth: Truth | None = None
    counts: dict[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def count(self, severity: str) -> int:
        """Return how many problems of a severity were found."""
        return sum(number for kind, number in self.counts.items() if severity_of(kind, self.purpose) == severity)

    @property
    def ok(self) -> bool:
        """Tell whether there is no error."""
        return self.count(ERROR) == 0

    @property
    def first_error(self) -> Problem | None:
        """The first of the errors, None if there is none."""
        return next((problem for problem in self.problems if problem.severity == ERROR), None)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of their labels: what a config's ``metainfo.classes`` must be."""
        return tuple(self.objects)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        counts = {severity: self.count(severity) for severity in (ERROR, WARNING, NOTE)}
        return dict(asdict(self), severities=counts, ok=self.ok)


class Collector:
    """Collects problems of one annotation file.

    Args:
        ann_file: its path.
        purpose: what the data are for.
    """

    def __init__(self, ann_file: str, purpose: str = BOTH) -> None:
        self.ann_file = ann_file
        self.purpose = purpose
        self.counts: Counter[str] = Counter()
        self._problems: list[Problem] = []

    def add(self, kind: str, where: str, text: str, file: str | None = None) -> None:
        """Count a problem, and keep it if it is one of the first of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= MOST_LISTED:
            severity = severity_of(kind, self.purpose)
            self._problems.append(Problem(kind, severity, file or self.ann_file, where, text))

    def has_errors(self, besides: Collection[str] = ()) -> bool:
        """Tell whether an error was found, of a kind that is not named here."""
        return any(severity_of(kind, self.purpose) == ERROR for kind in self.counts if kind not in besides)

    def findings(self, **numbers: Any) -> Findings:
        """Return what was found, graver kinds first."""
        order = list(KINDS)
        problems = sorted(self._problems, key=lambda problem: order.index(problem.kind))
        counts = {kind: self.counts[kind] for kind in order if kind in self.counts}
        return Findings(self.ann_file, self.purpose, counts=counts, problems=tuple(problems), **numbers)


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number that a float holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < _LARGEST


def short(value: Any) -> str:
    """Return a value as text to be read in a line."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def kind_of(value: Any) -> str:
    """Name the type of a JSON value."""
    return "nothing" if value is None else f"a {type(value).__name__}"


def listed(names: Sequence[str]) -> str:
    """Return names in back quotes, the first six of them."""
    shown = ", ".join(f"`{name}`" for name in names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
