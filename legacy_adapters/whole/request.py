"""What an adapter is asked for: train a model, or test one, with the code base's own runner and on given data.

Imports the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Tuple, Union

#: Names of the two requests, as a job has them.
TRAIN, TEST = "train", "test"
#: What a training leaves in its work dir: a line for each step, see :mod:`.steplog`.
STEPS = "steps.jsonl"
#: What a training or test leaves in its work dir when it is done: an :class:`Outcome`.
OUTCOME = "outcome.json"
#: Annotation file in COCO's format and folder of its images, both absolute paths.
Data = Tuple[str, str]


@dataclass(frozen=True)
class WholeTraining:
    """A training from its first step to its last.

    The runner is the code base's own, with its own hooks, evaluator, checkpoints and logs. It leaves in ``work_dir``
    checkpoints ``iter_N.pth``, N steps from the beginning, of all that a training goes on with, and the file
    :data:`STEPS`. Order of the data, augmentation and draws of the model follow from seed and step, by :mod:`.draws`.

    Attributes:
        options: of the variant, and ``repo``, as :meth:`Adapter.build` is given them.
        work_dir: folder, which exists; of an earlier, interrupted run if ``resume`` is set.
        data: to train on.
        val_data: to validate on.
        seed: of everything random.
        stop_at: step after which to stop, with schedules as for the whole; None for the config's last.
        device: ``cpu`` or ``cuda[:n]``.
        resume: checkpoint to go on from; None to begin.
        trusted: ``resume`` may hold pickled objects, which loading it executes.
        start_to: file to write the state dict to before the first step, ``{"state_dict": ...}``; None for none.
        settings: ``key=value`` texts that change the config, as the code base's own scripts take them.
    """

    options: Mapping[str, Any]
    work_dir: str
    data: Data
    val_data: Data
    seed: int
    stop_at: Optional[int] = None
    device: str = "cpu"
    resume: Optional[str] = None
    trusted: bool = False
    start_to: Optional[str] = None
    settings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class WholeTest:
    """A test of a checkpoint, by the code base's own test loop and evaluator.

    Attributes:
        options: as in :class:`WholeTraining`, like ``device``, ``trusted`` and ``settings``.
        work_dir: folder, which exists.
        val_data: to test on.
        checkpoint: to test.
    """

    options: Mapping[str, Any]
    work_dir: str
    val_data: Data
    checkpoint: str
    device: str = "cpu"
    trusted: bool = False
    settings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        metrics: of the last validation or of the test, APs in [0, 1] by the names of COCO's evaluation in mmdet 3.x,
            such as ``coco/bbox_mAP``.
        steps: since the beginning; 0 of a test.
        checkpoint: the last one; of a test the one that was tested.
    """

    metrics: Dict[str, float]
    steps: int
    checkpoint: str


Request = Union[WholeTraining, WholeTest]


def from_plain(kind: str, fields: Mapping[str, Any]) -> Request:
    """Return the request that a job's plain data stand for.

    Args:
        kind: :data:`TRAIN` or :data:`TEST`.
        fields: of the request.
    """
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return (WholeTraining if kind == TRAIN else WholeTest)(**dict(fields, **lists))
