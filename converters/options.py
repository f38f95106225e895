"""What is asked of a conversion, as plain data: the manifest records it, and `verify` asks the same again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from converters.errors import ConversionError
from converters.typed import misfit

NEW = "new"


@dataclass(frozen=True)
class Options:
    """Everything beside the source that decides what a conversion writes; plain values only.

    Attributes:
        to: Layout to write, `new` or `legacy`; a source of that layout is rid of what the mapping drops.
        family: Take the source for this family instead of detecting it.
        variant: Take the source for this variant instead of detecting it.
        allow_unmapped: Leave out source keys that no rule matches.
        keep: Which parts to write, `model`, `ema` or `all`; None means everything, or the weights alone where nothing
            else can be written.
        num_classes: Number of classes of the output; None means those of the variant, which the source must have.
        class_map: Text of the JSON object that says where the classes come from, as `classes.read_map` returns it.
        seed: Of the rows of classes that are initialised.
        dtype: One of `casting.DTYPES`, for every floating tensor.
        strip: Write weights and class names alone: what inference needs.
        shard_size: Largest number of bytes of tensors in one file; None writes one file.
        key: The key of the source that the state dict stands under, dotted where keys are nested; None finds it.
        prefix: What the keys of the state dict begin with, which is taken away; None finds it.
        rules: File of rules to convert by, in place of a family.
        like: Checkpoint that has the tensors that the output has to have; with `rules` only.
    """

    to: Literal["new", "legacy"] = NEW
    family: str | None = None
    variant: str | None = None
    allow_unmapped: bool = False
    keep: Literal["model", "ema", "all"] | None = None
    num_classes: int | None = None
    class_map: str | None = None
    seed: int = 0
    dtype: Literal["fp16", "bf16", "fp32"] | None = None
    strip: bool = False
    shard_size: int | None = None
    key: str | None = None
    prefix: str | None = None
    rules: str | None = None
    like: str | None = None

    @property
    def changes_more_than_names(self) -> bool:
        """Tell whether something is asked for that also makes sense where every key keeps its name."""
        return self.keep is not None or self.strip or self.shard_size is not None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Options:
        """Undo `as_dict`.

        Raises:
            ConversionError: If an option is asked for that this version does not know, or has no value for it.
        """
        unknown = sorted(data.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ConversionError(f"Option `{unknown[0]}` is unknown to this version of ddq-convert; use a newer one.")
        wrong = misfit(cls, data)
        if wrong:
            raise ConversionError(f"Option `{wrong}` is {data[wrong]!r}, which it cannot be.")
        return cls(**data)


DEFAULTS = Options()
