"""Run image files through a side's pipelines and preprocessor, and record what every transform leaves.

Each image goes through the test pipeline; each, with made-up objects, several times through that of training, the random
generators seeded before. Then the preprocessor makes the network's input: of each image alone, and of training in pairs.
Recorded are all tensors, arrays, numbers and texts that a transform leaves, and the states of the generators behind it.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List

import numpy as np

from ..contract import AdapterError
from ..ground.words import one_line
from ..inputs import TEST, TRAINING, Preprocessing
from ..numerics.seeding import RandomWatch, seed_all
from ..recording.trace_writer import DTYPES, TraceWriter
from ..recording.values import flatten
from ..scripting.opened import opened_whole

#: Kind of all records; their name is the transform, their call the image.
KIND = "module_out"
#: Name of the last step, in which the preprocessor makes a batch.
PREPROCESSOR = "data_preprocessor"
#: Slot of a text, as bytes, that tells why a transform failed; of a mark that it left an image out.
ERROR, LEFT_OUT = "error", "left out"
#: Slots of the images of a batch.
MEMBERS = "members"
_RANDOM, _SETTINGS = "random state", "settings"
#: Places of files, which differ without meaning anything.
_PATHS = ("img_path", "ori_filename", "filename", "img_prefix", "img_info")


def run(job: Any, adapter: Any, model: Any, writer: TraceWriter, provenance: Dict[str, Any]) -> None:
    """Record into ``writer`` what ``job.preprocess`` asks for.

    Args:
        job: a :class:`legacy_adapters.job.Job`; ``preprocess`` has ``images``, a list of ``{"id", "file", "size",
            "bboxes", "labels"}`` in a JSON file, and ``repeats``, how often each goes through the training pipeline.
        adapter: must have ``preprocessing(model, options)``.
        model: was built; its weights do not matter.
        writer: of a new trace.
        provenance: which code runs, and where.

    Raises:
        AdapterError: if the adapter has no such method.
    """
    if not adapter.can("preprocessing"):
        raise AdapterError(
            "{} has no method preprocessing(model, options), which preprocess needs; take it over from an adapter that has "
            "it.".format(adapter.label)
        )
    with open(job.preprocess["images"], encoding="utf-8") as file:
        images = json.load(file)
    made = adapter.preprocessing(model, job.options)
    repeats = job.preprocess["repeats"] if TRAINING in made.pipelines else 0
    recording = _Recording(writer, made)
    for image in images:
        seed_all(job.seed, "{} {}".format(TEST, image["id"]))
        found = recording.through(TEST, image["id"], made.pipelines[TEST], _of_file(image))
        if found is not None:
            recording.batch(TEST, [image["id"]], [found], False)
    for repeat in range(repeats):
        phase, before = "{} {}".format(TRAINING, repeat + 1), []  # type: str, List[Any]
        for image in images:
            seed_all(job.seed, "{} {}".format(phase, image["id"]))
            found = recording.through(phase, image["id"], made.pipelines[TRAINING], _with_objects(image))
            if found is not None:
                before.append((image["id"], found))
                recording.batch(phase, [one for one, _ in before], [item for _, item in before], True)
                before = before[-1:] if len(before) == 1 else []
    coverage = dict(leaf_calls=[], never_executed=[], without_gradient=[], classes={})
    writer.finish(dict(provenance, repeats=repeats, transforms=recording.names), coverage)


def _of_file(image: Dict[str, Any]) -> Dict[str, Any]:
    return dict(img_path=image["file"], img_id=image["id"])


def _with_objects(image: Dict[str, Any]) -> Dict[str, Any]:
    """Return what a data set gives a training pipeline of an image."""
    height, width = image["size"]
    objects = [
        dict(ignore_flag=0, bbox=bbox, bbox_label=label) for bbox, label in zip(image["bboxes"], image["labels"])
    ]
    return dict(_of_file(image), height=height, width=width, instances=objects, seg_map_path=None)


class _Recording:
    """Record what transforms leave.

    Args:
        writer: gets the records.
        made: how the side preprocesses.

    Attributes:
        names: of the transforms of each pipeline.
    """

    def __init__(self, writer: TraceWriter, made: Preprocessing) -> None:
        self._writer, self._made = writer, made
        self._phase, self._image = "", 0
        self.names = {kind: self._watched(list(steps)) for kind, steps in made.pipelines.items()}
        for name, value in flatten(opened_whole(dict(made.settings))):
            writer.add(_SETTINGS, KIND, PREPROCESSOR, 0, name, value)

    def _watched(self, steps: List[Any]) -> List[str]:
        """Name the transforms; those that others hold in lists are replaced by watched ones."""
        names = []
        for number, step in enumerate(steps):
            name = "{}.{}".format(number, type(step).__name__)
            names.append(name)
            self._watch_inside(step, name)
        return names

    def _watch_inside(self, step: Any, name: str) -> None:
        for attribute, value in list(getattr(step, "__dict__", {}).items()):
            if not isinstance(value, (list, tuple)) or not value or not all(map(callable, value)):
                continue
            inside = []
            for number, one in enumerate(value):
                path = "{}/{}.{}".format(name, number, type(one).__name__)
                self._watch_inside(one, path)
                is_list = type(one).__name__ == "Compose"
                inside.append(one if is_list else _Watched(one, path, self._left))
            setattr(step, attribute, type(value)(inside))

    def through(self, phase: str, image: int, steps: Any, data: Any) -> Any:
        """Take an image through a pipeline and return what it gives; None if a transform fails or leaves the image out."""
        self._phase, self._image = phase, image
        for number, step in enumerate(steps):
            name = "{}.{}".format(number, type(step).__name__)
            try:
                data = step(data)
            except Exception as error:  # a person is told which transform refuses which image, and why
                self._add(name, {ERROR: "{}: {}".format(type(error).__name__, one_line(str(error)))})
                return None
            self._left(name, data)
            if data is None:
                return None
        return data

    def batch(self, phase: str, images: List[int], items: List[Any], training: bool) -> None:
        """Make the network's input of what pipelines gave of some images; it is recorded as of the last of them."""
        self._phase, self._image = phase, images[-1]
        self._add(PREPROCESSOR, {MEMBERS: images})
        try:
            found = self._made.batch(items, training)
        except Exception as error:
            self._add(PREPROCESSOR, {ERROR: "{}: {}".format(type(error).__name__, one_line(str(error)))})
            return
        self._left(PREPROCESSOR, found)

    def _left(self, name: str, data: Any) -> None:
        if data is None:
            self._add(name, {LEFT_OUT: True})
            return
        told = {key: value for key, value in data.items() if key not in _PATHS} if isinstance(data, dict) else data
        self._add(name, told)
        self._add(name, {"{} {}".format(key, _RANDOM): value for key, value in RandomWatch().all().items()})

    def _add(self, name: str, value: Any) -> None:
        for slot, tensor in flatten(opened_whole(value)):
            if slot.split(".")[-1] not in _PATHS and tensor.dtype in DTYPES:
                self._writer.add(self._phase, KIND, name, self._image, slot, tensor)


class _Watched:
    """A transform inside another one, whose result is recorded.

    Args:
        transform: the transform.
        path: its name.
        left: is told what it leaves.
    """

    def __init__(self, transform: Any, path: str, left: Any) -> None:
        self._transform, self._path, self._left = transform, path, left

    def __call__(self, data: Any) -> Any:
        result = self._transform(data)
        self._left(self._path, result)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transform, name)


def is_of_generator(slot: str) -> bool:
    """Tell whether a slot holds the state of a random generator."""
    return slot.endswith(_RANDOM)


def text_of(values: np.ndarray) -> str:
    """Return a text that was recorded as its bytes."""
    return bytes(values.astype(np.uint8).tolist()).decode(errors="replace")
