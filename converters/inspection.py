"""Describe a checkpoint file without converting it. What `ddq-convert inspect` calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters import checkpoint, families, hashing
from converters.checkpoint import Checkpoint
from converters.detect import Detection, detect
from converters.engine import same_bits
from converters.errors import DetectionError, PartsError
from converters.finite import NotFinite
from converters.layout import class_counts, spec_of
from converters.ledger import DROP_DUPLICATE
from converters.parts import weights
from converters.stored import StoredTensor

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds.

    Attributes:
        path: The file.
        format: `pth` or `safetensors`.
        tensors: Number of tensors in the state dict.
        parameters: Number of their elements, less duplicates and BatchNorm's running statistics.
        dtypes: Number of tensors of each dtype.
        detection: Family, variant and side; None where unknown.
        same_layout_as: Families that cannot be told apart from the detected one.
        classes: Every number of classes seen; one, if the checkpoint is sound.
        duplicates: Keys that repeat another key.
        duplicates_differing: Those of them that do not repeat it bit by bit.
        meta_keys: Keys of the file's plain metadata.
        other_keys: Top-level keys beside state dict and metadata, such as `optimizer`.
        foreign: Globals of the pickle that were made inert.
        key: The key that the state dict stands under.
        prefix: What its keys begin with in the file.
        wrapping: What the state dict is wrapped in, in phrases; nothing where mmengine finds it as it is.
        not_finite: How many NaN and infinite numbers a tensor holds, by its key in the file.
    """

    path: Path
    format: str
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    detection: Detection | None
    same_layout_as: tuple[str, ...]
    classes: tuple[int, ...]
    duplicates: tuple[str, ...]
    duplicates_differing: tuple[str, ...]
    meta_keys: tuple[str, ...]
    other_keys: tuple[str, ...]
    foreign: tuple[str, ...]
    key: str
    prefix: str
    wrapping: tuple[str, ...]
    not_finite: Mapping[str, NotFinite]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {**asdict(self), "path": str(self.path)}


def inspect_file(path: str | Path, key: str | None = None, prefix: str | None = None) -> Inspection:
    """Read and describe a checkpoint; for `key` and `prefix` see `checkpoint.read`.

    Raises:
        CheckpointError: If the file cannot be read as one.
        OSError: If it cannot be read at all.
    """
    return inspect_checkpoint(checkpoint.read(path, key, prefix))


def inspect_checkpoint(loaded: Checkpoint) -> Inspection:
    """Describe a checkpoint that was read, after a look at its check sums.

    Raises:
        CheckpointError: If the file is damaged.
        OSError: If it cannot be read.
    """
    counts = hashing.not_finite({loaded.wrapping.in_file(key): tensor for key, tensor in loaded.state_dict.items()})
    loaded.check()
    specs = {key: spec_of(tensor) for key, tensor in loaded.state_dict.items()}
    found = _detected(loaded)
    twins = {} if found is None else _twins(loaded, found)
    trained = _training_weights(loaded)
    differing = tuple(
        key for key, twin in twins.items() if twin not in trained or not same_bits(trained[key], trained[twin])
    )
    counted = [
        tensor.numel()
        for key, tensor in loaded.state_dict.items()
        if key not in twins and not key.endswith(_STATISTICS)
    ]
    class_keys = () if found is None else families.family(found.family).class_keys
    return Inspection(
        path=loaded.path,
        format=loaded.format,
        tensors=len(specs),
        parameters=sum(counted),
        dtypes=dict(sorted(Counter(spec.dtype for spec in specs.values()).items())),
        detection=found,
        same_layout_as=() if found is None else families.same_layout(found.family),
        classes=tuple(sorted(class_counts(specs, class_keys))),
        duplicates=tuple(twins),
        duplicates_differing=differing,
        meta_keys=tuple(sorted(loaded.meta)),
        other_keys=loaded.other_keys,
        foreign=loaded.foreign,
        key=loaded.wrapping.key,
        prefix=loaded.wrapping.prefix,
        wrapping=tuple(loaded.wrapping.facts()),
        not_finite=dict(sorted(counts.items())),
    )


def _detected(loaded: Checkpoint) -> Detection | None:
    try:
        return detect(loaded.state_dict)
    except DetectionError:
        return None


def _training_weights(loaded: Checkpoint) -> Mapping[str, StoredTensor]:
    """Return the weights among which duplicates are equal, which averaged ones are not."""
    try:
        return weights(loaded).training
    except PartsError:
        return loaded.state_dict


def _twins(loaded: Checkpoint, found: Detection) -> dict[str, str]:
    """Pair each duplicate with the key that it repeats."""
    mapping = families.mapping(found.family, found.variant)
    matches = ((key, mapping.match(key)) for key in sorted(loaded.state_dict))
    return {
        key: match.twin
        for key, match in matches
        if match is not None and match.action == DROP_DUPLICATE and match.twin is not None
    }
