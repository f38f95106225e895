"""Describe a checkpoint file without converting it. What `ddq-convert inspect` calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converters.carrying import parts
from converters.errors import DetectionError, PartsError
from converters.formats.finite import NotFinite
from converters.formats.stored import StoredTensor
from converters.reading import averages, checkpoint
from converters.reading.averages import AVERAGED, TRAINING, Tensors, Weights
from converters.reading.checkpoint import Checkpoint
from converters.rules import built, ports
from converters.rules.detect import Detection, keys_without_rule
from converters.rules.engine import classes_of, rules_between, same_bits
from converters.rules.layout import spec_of
from converters.rules.ledger import DROP_DUPLICATE
from converters.rules.mapping import Mapping as KeyMapping
from converters.writing import hashing
from legacy_adapters.ground.names import NEW

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class WeightSet:
    """One set of weights.

    Attributes:
        name: `weights`, or `averaged weights` and `training weights`.
        place: Where it stands in the file.
        tensors: How many it has, less duplicates.
        duplicates: Number of keys that should repeat a tensor of this set.
        duplicates_differing: Those of them that do not repeat it bit by bit.
    """

    name: str
    place: str
    tensors: int
    duplicates: int
    duplicates_differing: tuple[str, ...]


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
        unknown_keys: Keys of the state dict that no rule of the detected model takes.
        duplicates: Keys of the state dict that repeat another key.
        duplicates_differing: Those of them that do not repeat their twin in the state dict bit by bit.
        sets: The sets of weights; one, or where there are averages the averaged and the training weights.
        notes: What the user should know about averages, in sentences.
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
    unknown_keys: tuple[str, ...]
    duplicates: tuple[str, ...]
    duplicates_differing: tuple[str, ...]
    sets: tuple[WeightSet, ...]
    notes: tuple[str, ...]
    meta_keys: tuple[str, ...]
    other_keys: tuple[str, ...]
    foreign: tuple[str, ...]
    key: str
    prefix: str
    wrapping: tuple[str, ...]
    not_finite: Mapping[str, NotFinite]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        known = None if self.detection is None else self.detection.as_dict()
        return {**asdict(replace(self, detection=None)), "path": str(self.path), "detection": known}


def inspect_file(
    path: str | Path,
    key: str | None = None,
    prefix: str | None = None,
    family: str | None = None,
    variant: str | None = None,
) -> Inspection:
    """Read and describe a checkpoint.

    Args:
        path: The file.
        key: As of `checkpoint.read`, like the next one.
        prefix: See there.
        family: That the checkpoint is of, by name or folder; None finds it among those that are known by their keys.
        variant: Of the family.

    Raises:
        CheckpointError: If the file cannot be read as one.
        DetectionError: If it is not of the family or variant that is named.
        FamilyError: If there is no such family or variant.
        OSError: If it cannot be read at all.
    """
    return inspect_checkpoint(checkpoint.read(path, key, prefix), family, variant)


def inspect_checkpoint(loaded: Checkpoint, family: str | None = None, variant: str | None = None) -> Inspection:
    """Describe a checkpoint that was read, after a look at its check sums; for the others see `inspect_file`.

    Raises:
        CheckpointError: If the file is damaged.
        OSError: If it cannot be read.
    """
    held = _weights(loaded)
    counts = hashing.not_finite(_in_file(loaded, held))
    loaded.check()
    specs = {key: spec_of(tensor) for key, tensor in loaded.state_dict.items()}
    found = _detected(loaded, family, variant)
    twins = {} if found is None else _twins(loaded.state_dict, found)
    counted = [
        tensor.numel()
        for key, tensor in loaded.state_dict.items()
        if key not in twins and not key.endswith(_STATISTICS)
    ]
    return Inspection(
        path=loaded.path,
        format=loaded.format,
        tensors=len(specs),
        parameters=sum(counted),
        dtypes=dict(sorted(Counter(spec.dtype for spec in specs.values()).items())),
        detection=found,
        same_layout_as=() if found is None else tuple(family.name for family in ports.same_layout(found.port.family)),
        classes=() if found is None else tuple(sorted(classes_of(loaded.state_dict, _rules(found)))),
        unknown_keys=() if found is None else keys_without_rule(specs, found),
        duplicates=tuple(twins),
        duplicates_differing=_differing(loaded.state_dict, twins, loaded.state_dict),
        sets=_sets(held, found),
        notes=held.notes,
        meta_keys=tuple(sorted(loaded.meta)),
        other_keys=loaded.other_keys,
        foreign=loaded.foreign,
        key=loaded.wrapping.key,
        prefix=loaded.wrapping.prefix,
        wrapping=tuple(loaded.wrapping.facts()),
        not_finite=dict(sorted(counts.items())),
    )


def _in_file(loaded: Checkpoint, held: Weights) -> dict[str, StoredTensor]:
    """Return the tensors of every set of weights by their keys in the file, those of other dicts after its name."""
    named = {loaded.wrapping.in_file(key): tensor for key, tensor in loaded.state_dict.items()}
    used = {id(tensor) for tensor in (*held.training.values(), *(held.averaged or {}).values())}
    used -= {id(tensor) for tensor in named.values()}
    others = dict(loaded.averages)
    for top in held.held_by:
        for place, tensors in averages.dicts(loaded.content[top], top):
            others |= {f"{place}.{key}": tensor for key, tensor in tensors.items()}
    return {**named, **{key: tensor for key, tensor in others.items() if id(tensor) in used}}


def _rules(found: Detection) -> KeyMapping:
    """Return the rules that take the checkpoint to the new side."""
    return rules_between(found.port.mapping, found.side, NEW)


def _detected(loaded: Checkpoint, family: str | None, variant: str | None) -> Detection | None:
    try:
        return built.detected(loaded.state_dict, built.candidates(family, variant), variant)
    except DetectionError:
        if family is not None or variant is not None:
            raise
        return None


def _weights(loaded: Checkpoint) -> Weights:
    try:
        return parts.weights(loaded)
    except PartsError as error:
        return Weights(loaded.state_dict, notes=(str(error),))


def _sets(held: Weights, found: Detection | None) -> tuple[WeightSet, ...]:
    """Describe the sets of weights; what training left at the place of averaged ones is compared with both."""
    if held.averaged is None:
        return (_set(held.single, held.own, held.training, {}, found),)
    training = {key: tensor for key, tensor in held.training.items() if key not in held.late}
    return (
        _set(AVERAGED, held.places[1], held.averaged, held.late, found),
        _set(TRAINING, held.places[0], training, held.late, found),
    )


def _set(name: str, place: str, tensors: Tensors, late: Tensors, found: Detection | None) -> WeightSet:
    copies = {**tensors, **late}
    twins = {} if found is None else _twins(copies, found)
    count = len(tensors.keys() - twins.keys())
    return WeightSet(name, place, count, len(twins), _differing(copies, twins, tensors))


def _differing(copies: Tensors, twins: Mapping[str, str], originals: Tensors) -> tuple[str, ...]:
    """Return the duplicates that do not repeat their twin bit by bit."""
    return tuple(
        key for key, twin in twins.items() if twin not in originals or not same_bits(copies[key], originals[twin])
    )


def _twins(tensors: Tensors, found: Detection) -> dict[str, str]:
    """Pair each duplicate with the key that it repeats."""
    mapping = found.port.mapping
    matches = ((key, mapping.match(key)) for key in sorted(tensors))
    return {
        key: match.twin
        for key, match in matches
        if match is not None and match.action == DROP_DUPLICATE and match.twin is not None
    }
