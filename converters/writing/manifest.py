"""The manifest of a converted file: which source it comes from, and what became of every tensor, with digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from converters import __version__
from converters.carrying.parts import Line as PartLine
from converters.errors import VerificationError
from converters.formats.plain import copied
from converters.formats.stored import StoredTensor
from converters.reading.checkpoint import MANIFEST_KEY
from converters.rules.mapping import Mapping as KeyMapping
from converters.rules.mapping import Rule
from converters.typed import misfit

if TYPE_CHECKING:
    from converters.carrying.plans import Plan

KEY = MANIFEST_KEY
SIDE_SUFFIX = ".manifest.json"
EDITED = "it was edited after the conversion: its content has another digest than it says"
_FORMAT, _VERSION = "ddq-manifest", 1


@dataclass(frozen=True)
class FileDigest:
    """A file by its name (no folder), its size in bytes and a SHA-256.

    Attributes:
        name, size: As said.
        sha256: In hexadecimal.
        of: What it is of: the whole `file`; or the `header` of a `.safetensors` with the length in front of it, behind
            which there is nothing but tensors that have digests of their own.
    """

    name: str
    size: int
    sha256: str
    of: str = "file"


@dataclass(frozen=True)
class Line:
    """One tensor that was written.

    Attributes:
        target: Its key in the output.
        source: Its key in the source; of what was joined the keys of all parts, in their order.
        action: `keep`, `rename` or what its rule does to tensors, such as `split`.
        rule: Index of the rule that was applied; `Manifest.rules` has the texts.
        dtype: As torch writes it, less the `torch.`.
        shape: Of the tensor in the output.
        sha256: Of its bytes in the output, contiguous and little-endian.
        changes: What was done to its values, in words; nothing where they are those of the source.
    """

    target: str
    source: str | tuple[str, ...]
    action: str
    rule: int
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    changes: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """All keys in the source that it was made of."""
        return (self.source,) if isinstance(self.source, str) else self.source


@dataclass(frozen=True)
class Left:
    """One tensor of the source that was left out: by which rule (None: no rule matched), and why."""

    source: str
    action: str
    rule: int | None
    reason: str


@dataclass(frozen=True)
class Part:
    """One tensor beside the state dict, such as an optimizer's average.

    Attributes:
        path: Where it stands in the output.
        source: Where it stood in the source; None if it was made, or read out of an object.
        dtype: As torch writes it, less the `torch.`.
        shape: Of the tensor.
        sha256: Of its bytes, contiguous and little-endian.
    """

    path: str
    source: str | None
    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that a conversion did.

    Attributes:
        source: The source file; of shards the index, then every shard.
        family: Family of the source.
        variant: Variant of the source.
        source_layout: `legacy` or `new`.
        target_layout: `legacy` or `new`.
        mapping_version: Digest of the rule table that the rules come from.
        rules: The rules that were applied, each as a line of text.
        options: What was asked for.
        tool_version: Version of the converter.
        tensors: One line per tensor of the output's state dict, sorted by key.
        left_out: One line per tensor of the source that is not in the output, sorted by key.
        parts: One line per tensor beside the state dict.
        carried: What became of every part of the source beside the state dict and `meta`, in words.
        rest_sha256: Digest of everything plain beside the tensors: metadata, numbers and texts.
    """

    source: tuple[FileDigest, ...]
    family: str
    variant: str
    source_layout: Literal["legacy", "new"]
    target_layout: Literal["legacy", "new"]
    mapping_version: str
    rules: tuple[str, ...]
    options: Mapping[str, Any]
    tool_version: str
    tensors: tuple[Line, ...]
    left_out: tuple[Left, ...]
    parts: tuple[Part, ...]
    carried: tuple[PartLine, ...]
    rest_sha256: str

    def to_json(self) -> str:
        """Write the manifest, one tensor per line; the same manifest gives the same bytes."""
        return _lined({"format": _FORMAT, "version": _VERSION, **_plain(self), "digest": self.digest})

    @property
    def digest(self) -> str:
        """The SHA-256 of the content, by which an edited manifest is told."""
        return digest_of(_plain(self))

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            VerificationError: If it is not a manifest of this version, or was edited.
        """
        with _reading():
            read = cls.from_dict(json.loads(text))
            if read.to_json() != text:
                raise VerificationError(EDITED)
            return read

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """Read the fields of a manifest out of plain data.

        Raises:
            VerificationError: If they are not there, or were edited.
        """
        with _reading():
            if data["format"] != _FORMAT:
                raise ValueError("another format")
            if data["version"] != _VERSION:
                raise VerificationError("it was written by another version of ddq-convert; verify it with that")
            found = {field.name: data[field.name] for field in fields(cls)}
            if data["digest"] != digest_of(found):
                raise VerificationError(EDITED)
            records = {name: tuple(_record(kind, item) for item in found[name]) for name, kind in _RECORDS.items()}
            found |= {"rules": tuple(found["rules"]), **records}
            if misfit(cls, found) or not found["source"]:
                raise ValueError(f"a field is wrong: {misfit(cls, found) or 'source'}")
            if len({line.target for line in found["tensors"]}) < len(found["tensors"]):
                raise ValueError("a tensor is recorded twice")
            return cls(**found)


@dataclass(frozen=True)
class SideManifest:
    """What stands beside a converted file: its manifest, and the files as a whole, in the order of their names."""

    manifest: Manifest
    files: tuple[FileDigest, ...]

    def to_json(self) -> str:
        """Write both; the same content gives the same bytes."""
        files = [asdict(file) for file in self.files]
        return _lined({**json.loads(self.manifest.to_json()), "files": files, "files_digest": digest_of(files)})

    @classmethod
    def from_json(cls, text: str) -> SideManifest:
        """Read what `to_json` wrote.

        Raises:
            VerificationError: As `Manifest.from_json` does.
        """
        with _reading():
            data = json.loads(text)
            side = cls(Manifest.from_dict(data), tuple(_record(FileDigest, item) for item in data["files"]))
            if side.to_json() != text:
                raise VerificationError(EDITED)
            return side


#: The fields of a manifest that hold records, and the kind of these.
_RECORDS = {"source": FileDigest, "tensors": Line, "left_out": Left, "parts": Part, "carried": PartLine}


def build(planned: Plan, source: Iterable[FileDigest], digests: Mapping[str, str]) -> Manifest:
    """Write down a plan.

    Args:
        planned: What is done.
        source: The source's files.
        digests: SHA-256 of every tensor that `written_tensors` names.
    """
    origins = {entry.target: entry for entry in planned.ledger.entries if entry.target is not None}
    sources = {key: planned.sources_of(key) for key in planned.state_dict}
    lines = (
        Line(
            target=key,
            source=sources[key][0] if len(sources[key]) == 1 else sources[key],
            action=origins[key].action,
            rule=origins[key].rule,
            dtype=tensor.dtype,
            shape=tensor.shape,
            sha256=digests[key],
            changes=tuple(planned.changes.get(key, ())),
        )
        for key, tensor in sorted(planned.state_dict.items())
    )
    left = (
        Left(planned.in_file(entry), entry.action, entry.rule, _reason(planned.rules, entry.rule))
        for entry in planned.ledger.entries
        if entry.target not in planned.state_dict
    )
    places = {id(tensor): key for taken in planned.taken for key, tensor in taken.items()}
    beside = {name: copied(part).value for name, part in planned.source.content.items() if name in planned.parts}
    places |= {id(tensor): path for path, tensor in part_tensors(beside).items()}
    parts = (
        Part(path, places.get(id(tensor)), tensor.dtype, tensor.shape, digests[path])
        for path, tensor in sorted(part_tensors(planned.parts).items())
    )
    return Manifest(
        source=tuple(source),
        family=planned.detection.family,
        variant=planned.detection.variant,
        source_layout=planned.detection.side,
        target_layout=planned.options.to,
        mapping_version=mapping_version(planned.detection.port.mapping),
        rules=tuple(rule_text(rule) for rule in planned.rules.rules),
        options=planned.options.as_dict(),
        tool_version=__version__,
        tensors=tuple(lines),
        left_out=tuple(left),
        parts=tuple(parts),
        carried=planned.part_lines,
        rest_sha256=rest_digest(planned.meta, planned.parts),
    )


def part_tensors(parts: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """Return the tensors beside the state dict by the path at which each stands: `/optimizer/state/0/exp_avg`."""
    return dict(_tensors(parts, ""))


def rest_digest(meta: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    """Return a digest of all that is no tensor; it is the same for `.pth` and `.safetensors`."""
    kept = {name: text for name, text in meta_text(meta).items() if name not in (KEY, "format")}
    return digest_of([kept, _skeleton(parts)])


def meta_text(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as safetensors keeps it: text as it is, everything else as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in meta.items()}


def digest_of(data: Any) -> str:
    """Return the SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def mapping_version(mapping: KeyMapping) -> str:
    """Return a digest of a rule table: two tables with the same digest convert alike."""
    rules = [[type(rule).__name__, *asdict(rule).values()] for rule in mapping.rules]
    return digest_of([mapping.family, rules, mapping.class_keys])[:16]


def rule_text(rule: Rule) -> str:
    """Write a rule as one line."""
    return rule.text


def first_difference(recorded: Manifest, found: Manifest) -> str | None:
    """Name the first thing in which two manifests differ, in words; the tool's version does not count."""
    for name in (field.name for field in fields(Manifest) if field.name != "tool_version"):
        one, two = getattr(recorded, name), getattr(found, name)
        if one != two:
            return _difference(name.replace("_", " "), one, two)
    return None


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise VerificationError(f"it is not a manifest of ddq-convert ({type(error).__name__})") from error


def _reason(rules: KeyMapping, index: int | None) -> str:
    return "no rule matched, and that was allowed" if index is None else rules.rules[index].reason


def _tensors(tree: Any, path: str) -> Iterator[tuple[str, StoredTensor]]:
    if isinstance(tree, StoredTensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _tensors(value, f"{path}/{key}")
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree):
            yield from _tensors(value, f"{path}/{index}")


def _skeleton(tree: Any) -> Any:
    """Return a tree as JSON can tell it, its order and its types included, without the tensors."""
    if isinstance(tree, StoredTensor):
        return ["tensor"]
    if isinstance(tree, Mapping):
        return ["dict", [[_skeleton(key), _skeleton(value)] for key, value in tree.items()]]
    if isinstance(tree, (list, tuple)):
        return [type(tree).__name__, [_skeleton(value) for value in tree]]
    return [type(tree).__name__, repr(tree)]


def _difference(name: str, one: Any, two: Any) -> str:
    if isinstance(one, tuple) and isinstance(two, tuple):
        pair = next(((a, b) for a, b in zip(one, two) if a != b), None)
        if pair is None:
            return f"{name} ({len(one)} against {len(two)})"
        one, two = pair
        name = f"{name} `{getattr(one, 'target', None) or getattr(one, 'source', None) or getattr(one, 'path', one)}`"
    return name


def _plain(manifest: Manifest) -> dict[str, Any]:
    """Return the fields as JSON has them after reading: records as dicts, tuples as lists."""
    return {name: _jsonable(value) for name, value in vars(manifest).items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, tuple(_RECORDS.values())):
        return {name: list(item) if isinstance(item, tuple) else item for name, item in vars(value).items()}
    return value


def _record(kind: type, item: Mapping[str, Any]) -> Any:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in item.items()}
    if misfit(kind, values):
        raise ValueError(f"a field is wrong: {misfit(kind, values)}")
    return kind(**values)


def _lined(data: Mapping[str, Any]) -> str:
    """Write JSON with sorted keys, the items of each list on lines of their own."""
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {_value(data[name])}" for name in sorted(data)) + "\n}\n"


def _value(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(json.dumps(item, sort_keys=True) for item in value) + "\n]"
    return json.dumps(value, sort_keys=True)
