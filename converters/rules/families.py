"""The rule tables of every family, as literal data to read beside a state_dict listing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from converters.errors import UnknownFamilyError
from converters.rules.mapping import DropDuplicateOf, Keep, Rename, Rule
from converters.rules.mapping import Mapping as KeyMapping

LINEAR, PRIOR, NORMAL = "linear", "prior", "normal"  # how a row is initialised; `classes` knows what that means


@dataclass(frozen=True)
class Variant:
    """One size of a family's model: its name and how many decoder layers it has."""

    name: str
    decoder_layers: int


@dataclass(frozen=True)
class Family:
    """A legacy code base whose checkpoints can be carried over.

    Attributes:
        name: The family's name.
        code: What its code base is called in messages.
        layouts: The family that holds the layout files; families with the same new model share them.
        variants: The model sizes.
        rules: The rule table as a function of the number of decoder layers.
        frozen_groups: Its mmengine makes groups of an optimizer for frozen parameters, too (0.6.0 does, 0.10.7 not).
        class_rows: Patterns of the tensors that have one row per class, and how the model initialises such a row.
        markers: Keys that every checkpoint of the family has, and that no related detector has together.
    """

    name: str
    code: str
    layouts: str
    variants: tuple[Variant, ...]
    rules: Callable[[int], tuple[Rule, ...]]
    frozen_groups: bool
    class_rows: Mapping[str, str]
    markers: tuple[str, ...]

    @property
    def class_keys(self) -> tuple[str, ...]:
        """Patterns of the tensors that have one row per class."""
        return tuple(self.class_rows)


def _ddq_detr_rules(n: int) -> tuple[Rule, ...]:
    """List the rules for `n` decoder layers.

    The legacy head keeps n + 2 prediction branches in one list: 0..n-1 decoder, n encoder (distinct queries), n+1
    encoder (dense queries). The new head has the dense branch where it belongs, last in the auxiliary list.
    """
    main, aux = range(n + 1), range(n)
    return (
        Keep("backbone.**"),
        Keep("neck.**"),
        Keep("encoder.**"),
        Keep("decoder.layers.**"),
        Keep("decoder.norm.*"),
        Keep("decoder.ref_point_head.**"),
        Keep("level_embed"),
        Keep("memory_trans_fc.*"),
        Keep("memory_trans_norm.*"),
        Keep("query_map.*"),
        Keep("dn_query_generator.label_embedding.weight"),
        *(Keep(f"bbox_head.cls_branches.{i}.*") for i in main),
        *(Keep(f"bbox_head.reg_branches.{i}.*.*") for i in main),
        *(Keep(f"bbox_head.aux_cls_branches.{i}.*") for i in aux),
        *(Keep(f"bbox_head.aux_reg_branches.{i}.*.*") for i in aux),
        Rename(f"bbox_head.cls_branches.{n + 1}.*", f"bbox_head.aux_cls_branches.{n}.*"),
        Rename(f"bbox_head.reg_branches.{n + 1}.*.*", f"bbox_head.aux_reg_branches.{n}.*.*"),
        DropDuplicateOf(
            "decoder.aux_reg_branches.*.*.*",
            twin="bbox_head.aux_reg_branches.*.*.*",
            reason="training sets the head's list as an attribute of the decoder, which saves it twice",
        ),
    )


_DDQ_DETR_VARIANTS = (
    Variant("r50_4scale", decoder_layers=6),
    Variant("r50_5scale", decoder_layers=6),
    Variant("swinl_4scale", decoder_layers=6),
    Variant("tiny_4scale", decoder_layers=3),
    Variant("tiny_5scale", decoder_layers=3),
    Variant("tiny_swinl", decoder_layers=3),
    Variant("tiny_r18", decoder_layers=3),
    # behind tiny_4scale: a checkpoint of any other number of classes fits both alike, and the first is reported
    Variant("tiny_1class", decoder_layers=3),
)
_DDQ_DETR_CLASS_ROWS = {
    "bbox_head.cls_branches.*.weight": LINEAR,
    "bbox_head.cls_branches.*.bias": PRIOR,
    "bbox_head.aux_cls_branches.*.weight": LINEAR,
    "bbox_head.aux_cls_branches.*.bias": PRIOR,
    "dn_query_generator.label_embedding.weight": NORMAL,
}
_DDQ_DETR_MARKERS = ("query_map.weight", "bbox_head.aux_cls_branches.0.weight", "decoder.norm.weight")

_FAMILIES = {
    "ddq_detr": Family(
        name="ddq_detr",
        code="the official code",
        layouts="ddq_detr",
        variants=_DDQ_DETR_VARIANTS,
        rules=_ddq_detr_rules,
        frozen_groups=True,
        class_rows=_DDQ_DETR_CLASS_ROWS,
        markers=_DDQ_DETR_MARKERS,
    ),
    "mmdet_ddq": Family(
        name="mmdet_ddq",
        code="mmdet 3.3.0",
        layouts="ddq_detr",
        variants=_DDQ_DETR_VARIANTS,
        rules=_ddq_detr_rules,
        frozen_groups=False,
        class_rows=_DDQ_DETR_CLASS_ROWS,
        markers=_DDQ_DETR_MARKERS,
    ),
}


def families() -> tuple[str, ...]:
    """Name the families, in the order in which detection prefers them."""
    return tuple(_FAMILIES)


def family(name: str) -> Family:
    """Return a family by name.

    Raises:
        UnknownFamilyError: If there is none.
    """
    if name not in _FAMILIES:
        raise UnknownFamilyError(f"There is no family `{name}`; known are {', '.join(_FAMILIES)}.")
    return _FAMILIES[name]


def variants(family_name: str) -> tuple[str, ...]:
    """Name the variants of a family."""
    return tuple(variant.name for variant in family(family_name).variants)


def variant(family_name: str, name: str) -> Variant:
    """Return a variant of a family by name.

    Raises:
        UnknownFamilyError: If there is no such family or variant.
    """
    for candidate in family(family_name).variants:
        if candidate.name == name:
            return candidate
    raise UnknownFamilyError(
        f"Family `{family_name}` has no variant `{name}`; known are {', '.join(variants(family_name))}."
    )


@cache
def mapping(family_name: str, variant_name: str) -> KeyMapping:
    """Build the mapping from a variant's legacy layout to its new one.

    Raises:
        UnknownFamilyError: If there is no such family or variant.
    """
    chosen = family(family_name)
    layers = variant(family_name, variant_name).decoder_layers
    return KeyMapping(chosen.name, chosen.rules(layers), chosen.class_keys)


def same_layout(family_name: str) -> tuple[str, ...]:
    """Name the other families whose checkpoints cannot be told apart from this family's."""
    chosen = family(family_name)
    return tuple(
        other.name
        for other in _FAMILIES.values()
        if other.name != chosen.name and (other.layouts, other.rules) == (chosen.layouts, chosen.rules)
    )
