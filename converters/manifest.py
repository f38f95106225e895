"""The manifest of a converted file: which source it comes from, and what became of every tensor, with digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from converters.errors import VerificationError
from converters.mapping import DropDuplicateOf, Rename, Rule
from converters.mapping import Mapping as KeyMapping

KEY = "ddq_manifest"  # where a file keeps it: in the metadata of .safetensors, in `meta` of .pth
SIDE_SUFFIX = ".manifest.json"
_VERSION = 1


@dataclass(frozen=True)
class FileDigest:
    """A file by its name (no folder), its size in bytes and the SHA-256 of its bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Line:
    """One tensor that was written.

    Attributes:
        target: Its key in the output.
        source: Its key in the source.
        action: `keep` or `rename`.
        rule: Index of the rule that was applied; `Manifest.rules` has the texts.
        dtype: As torch writes it, less the `torch.`.
        shape: Of the tensor in the output.
        sha256: Of its bytes in the output, contiguous and little-endian.
        changes: What was done to its values, in words; nothing where they are those of the source.
    """

    target: str
    source: str
    action: str
    rule: int
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Left:
    """One tensor of the source that was left out: by which rule (None: no rule matched), and why."""

    source: str
    action: str
    rule: int | None
    reason: str


@dataclass(frozen=True)
class Part:
    """One tensor beside the state dict, such as an optimizer's average: where it stands, and its bytes."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that a conversion did.

    Attributes:
        source: The source file.
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
        rest_sha256: Digest of everything plain beside the tensors: metadata, numbers and texts.
    """

    source: FileDigest
    family: str
    variant: str
    source_layout: str
    target_layout: str
    mapping_version: str
    rules: tuple[str, ...]
    options: Mapping[str, Any]
    tool_version: str
    tensors: tuple[Line, ...]
    left_out: tuple[Left, ...]
    parts: tuple[Part, ...]
    rest_sha256: str

    def to_json(self) -> str:
        """Write the manifest, one tensor per line; the same manifest gives the same bytes."""
        return _lined({"format": "ddq-manifest", "version": _VERSION, **_plain(self), "digest": self.digest})

    @property
    def digest(self) -> str:
        """The SHA-256 of the content, by which an edited manifest is told."""
        return digest_of(_plain(self))

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            VerificationError: If it is no manifest of this version, or was edited.
        """
        try:
            data = json.loads(text)
            if data.pop("format") != "ddq-manifest":
                raise ValueError("format")
            if data.pop("version") != _VERSION:
                raise VerificationError("it was written by another version of ddq-convert")
            digest = data.pop("digest")
            if digest != digest_of(data):
                raise VerificationError("it was edited: its content does not have its own digest")
            return cls(
                **{
                    **data,
                    "source": _record(FileDigest, data["source"]),
                    "rules": tuple(data["rules"]),
                    "tensors": tuple(_record(Line, item) for item in data["tensors"]),
                    "left_out": tuple(_record(Left, item) for item in data["left_out"]),
                    "parts": tuple(_record(Part, item) for item in data["parts"]),
                }
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise VerificationError(f"it is no manifest of ddq-convert ({type(error).__name__})") from error


def digest_of(data: Any) -> str:
    """Return the SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def mapping_version(mapping: KeyMapping) -> str:
    """Return a digest of a rule table: two tables with the same digest convert alike."""
    rules = [[type(rule).__name__, *asdict(rule).values()] for rule in mapping.rules]
    return digest_of([mapping.family, rules, mapping.class_keys])[:16]


def rule_text(rule: Rule) -> str:
    """Write a rule as one line."""
    if isinstance(rule, Rename):
        return f"{rule.action} {rule.source} -> {rule.target}"
    if isinstance(rule, DropDuplicateOf):
        return f"{rule.action} {rule.source} of {rule.twin}"
    return f"{rule.action} {rule.source}"


def first_difference(recorded: Manifest, found: Manifest) -> str | None:
    """Name the first thing in which two manifests differ, in words; the tool's version does not count."""
    for name in (field.name for field in fields(Manifest) if field.name != "tool_version"):
        one, two = getattr(recorded, name), getattr(found, name)
        if one != two:
            return _difference(name.replace("_", " "), one, two)
    return None


def _difference(name: str, one: Any, two: Any) -> str:
    if isinstance(one, tuple) and isinstance(two, tuple):
        pair = next(((a, b) for a, b in zip(one, two) if a != b), None)
        if pair is None:
            return f"{name} ({len(one)} against {len(two)})"
        one, two = pair
        name = f"{name} `{getattr(one, 'target', None) or getattr(one, 'source', None) or getattr(one, 'path', one)}`"
    return name


def _plain(manifest: Manifest) -> dict[str, Any]:
    # through JSON, so that tuples are lists as they are after reading
    return json.loads(json.dumps(asdict(manifest)))


def _record(kind: type, item: Mapping[str, Any]) -> Any:
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in item.items()})


def _lined(data: Mapping[str, Any]) -> str:
    """Write JSON with sorted keys, the items of each list on lines of their own."""
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {_value(data[name])}" for name in sorted(data)) + "\n}\n"


def _value(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(json.dumps(item, sort_keys=True) for item in value) + "\n]"
    return json.dumps(value, sort_keys=True)
