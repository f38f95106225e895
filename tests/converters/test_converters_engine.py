"""The engine, its ledger and each of its refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from converters import errors
from converters.rules import engine, layout
from converters.rules.detect import Detection, detect
from converters.rules.ledger import Entry, Ledger
from converters.rules.mapping import Drop, Keep, Mapping, Rename
from converters.rules.ports import port
from tests.models import layout_of as stored_layout
from tests.models import mapping as mapping_of
from tests.models import variants as variants_of

StateDict = dict[str, Tensor]
MAPPING = mapping_of("ddq_detr", "tiny_r18")


def _to_new(state: StateDict, **kwargs: bool) -> engine.Conversion:
    return engine.convert(state, MAPPING, "new", stored_layout("tiny_r18"), **kwargs)


@pytest.mark.parametrize("variant", ["tiny_r18", "r50_4scale"])
def test_there_and_back_is_identical(
    make_state: Callable[..., StateDict], assert_same: Callable[..., None], variant: str
) -> None:
    mapping = mapping_of("ddq_detr", variant)
    legacy = make_state(variant=variant)
    new = engine.convert(legacy, mapping, "new", stored_layout(variant)).state_dict
    back = engine.convert(new, mapping, "legacy", stored_layout(variant, side="legacy")).state_dict
    assert_same(dict(back), legacy)
    assert list(new) == sorted(new)


def test_ledger_accounts_for_every_key(make_state: Callable[..., StateDict]) -> None:
    legacy = make_state(duplicates=True)
    done = _to_new(legacy)
    assert [entry.source for entry in done.ledger.entries] == sorted(legacy)
    assert sorted(entry.target for entry in done.ledger.entries if entry.target) == list(done.state_dict)
    counts = {action: done.ledger.count(action) for action in ("keep", "rename", "drop", "drop_duplicate", "unmapped")}
    assert counts == {"keep": 300, "rename": 8, "drop": 0, "drop_duplicate": 18, "unmapped": 0}


def _canonical(state: StateDict, side: str = "legacy", **kwargs: bool) -> engine.Conversion:
    return engine.canonicalise(state, MAPPING, side, stored_layout("tiny_r18", side=side), **kwargs)


def test_canonical_legacy_is_what_a_way_there_and_back_gives(
    make_state: Callable[..., StateDict], assert_same: Callable[..., None]
) -> None:
    legacy = make_state(duplicates=True)
    done = _canonical(legacy)
    assert_same(dict(done.state_dict), make_state())
    assert [entry.source for entry in done.ledger.entries] == sorted(legacy)
    assert [entry.target for entry in done.ledger.entries if entry.target] == list(done.state_dict)
    assert {entry.action for entry in done.ledger.entries} == {"keep", "drop_duplicate"}
    assert len(done.ledger.of("drop_duplicate")) == 18 and not done.ledger.changes_nothing


@pytest.mark.parametrize("side", ["legacy", "new"])
def test_canonical_source_is_not_changed(
    make_state: Callable[..., StateDict], assert_same: Callable[..., None], side: str
) -> None:
    done = _canonical(make_state(side), side)
    assert_same(dict(done.state_dict), make_state(side))
    assert done.ledger.changes_nothing


def test_conversion_that_renames_changes_something(make_state: Callable[..., StateDict]) -> None:
    assert not _to_new(make_state()).ledger.changes_nothing


def test_duplicates_do_not_belong_to_the_new_layout(make_state: Callable[..., StateDict]) -> None:
    with pytest.raises(errors.UnmappedKeyError, match="`decoder.aux_reg_branches.0.0.bias` .* no rule"):
        _canonical(make_state("new") | {"decoder.aux_reg_branches.0.0.bias": torch.zeros(64)}, "new")


@pytest.mark.parametrize(
    "change, error",
    [
        ({"decoder.aux_reg_branches.1.2.weight": torch.zeros(64, 64)}, errors.DuplicateDiffersError),
        ({"ema.step": torch.zeros(())}, errors.UnmappedKeyError),
        ({"level_embed": None}, errors.MissingKeyError),
        ({"level_embed": torch.zeros(5, 64)}, errors.ShapeMismatchError),
        ({"level_embed": torch.zeros(4, 64).half()}, errors.DtypeMismatchError),
        ({"backbone.layer9.weight": torch.zeros(1)}, errors.UnexpectedKeyError),
        ({"dn_query_generator.label_embedding.weight": torch.zeros(4, 64)}, errors.ClassCountError),
    ],
)
def test_what_cannot_be_converted_is_not_canonicalised_either(
    make_state: Callable[..., StateDict], change: dict[str, Tensor | None], error: type[Exception]
) -> None:
    changed = make_state(duplicates=True) | change
    with pytest.raises(error):
        _canonical({key: tensor for key, tensor in changed.items() if tensor is not None})


def test_the_source_is_left_alone(make_state: Callable[..., StateDict], assert_same: Callable[..., None]) -> None:
    legacy = make_state(duplicates=True)
    before = {key: tensor.clone() for key, tensor in legacy.items()}
    _to_new(legacy)
    assert_same(legacy, before)


def test_duplicate_that_differs_is_refused_by_name(make_state: Callable[..., StateDict]) -> None:
    legacy = make_state(duplicates=True)
    key = "decoder.aux_reg_branches.1.2.weight"
    legacy[key] = legacy[key].clone()
    legacy[key][0, 0] = torch.nextafter(legacy[key][0, 0], torch.tensor(9.0))
    with pytest.raises(
        errors.DuplicateDiffersError,
        match=f"Key `{key}` should repeat `bbox_head.aux_reg_branches.1.2.weight` bit by bit but differs from it;",
    ):
        _to_new(legacy)


def test_duplicate_without_twin_is_refused(make_state: Callable[..., StateDict]) -> None:
    legacy = make_state(duplicates=True)
    legacy["decoder.aux_reg_branches.9.0.bias"] = torch.zeros(64)
    with pytest.raises(errors.DuplicateDiffersError, match="9.0.bias` bit by bit but has no such twin"):
        _to_new(legacy)


def test_unmapped_keys_are_refused_unless_allowed(make_state: Callable[..., StateDict]) -> None:
    legacy = make_state()
    legacy["ema.step"] = torch.zeros(())
    with pytest.raises(errors.UnmappedKeyError) as caught:
        _to_new(legacy)
    assert str(caught.value) == (
        "Key `ema.step` of the source is matched by no rule of mapping `ddq_detr`; add a rule or pass --allow-unmapped "
        "to `ddq-convert convert`."
    )
    done = _to_new(legacy, allow_unmapped=True)
    assert done.ledger.of("unmapped") == (Entry("ema.step", None, None, "unmapped"),)
    assert "ema.step" not in done.state_dict


def test_many_unmapped_keys_are_counted(make_state: Callable[..., StateDict]) -> None:
    legacy = make_state() | {f"x.{i}": torch.zeros(1) for i in range(5)}
    with pytest.raises(errors.UnmappedKeyError, match="5 keys .* `x.0`, `x.1`, `x.2` and 2 more; add rules"):
        _to_new(legacy)


def test_missing_keys_are_named(make_state: Callable[..., StateDict]) -> None:
    legacy = make_state()
    del legacy["bbox_head.cls_branches.4.weight"], legacy["level_embed"]
    with pytest.raises(errors.MissingKeyError, match="2 key.*`bbox_head.aux_cls_branches.3.weight`, `level_embed`;"):
        _to_new(legacy)


def test_key_outside_the_layout_is_refused(make_state: Callable[..., StateDict]) -> None:
    legacy = make_state() | {"backbone.layer9.weight": torch.zeros(1)}
    with pytest.raises(errors.UnexpectedKeyError, match="layout of `tiny_r18`: `backbone.layer9.weight`;"):
        _to_new(legacy)


def test_shape_mismatch_is_refused(make_state: Callable[..., StateDict]) -> None:
    legacy = make_state()
    legacy["query_map.weight"] = legacy["query_map.weight"][:, :32]
    with pytest.raises(errors.ShapeMismatchError, match=r"query_map.weight \(expected \[64, 64\], found \[64, 32\]\)"):
        _to_new(legacy)


def test_dtype_mismatch_is_refused(make_state: Callable[..., StateDict]) -> None:
    legacy = make_state()
    legacy["query_map.weight"] = legacy["query_map.weight"].half()
    with pytest.raises(errors.DtypeMismatchError, match=r"query_map.weight \(expected float32, found float16\)"):
        _to_new(legacy)


def _with_classes(state: StateDict, count: int, only: str = "") -> StateDict:
    def is_class_key(key: str) -> bool:
        return ("cls_branches" in key or "label_embedding" in key) and only in key

    return {
        key: torch.zeros(count, *tensor.shape[1:]) if is_class_key(key) else tensor for key, tensor in state.items()
    }


def test_wrong_class_count_has_its_own_line(make_state: Callable[..., StateDict]) -> None:
    with pytest.raises(errors.ClassCountError, match="The source has 5 classes, variant `tiny_r18` has 3 "):
        _to_new(_with_classes(make_state(), 5))


def test_branches_that_disagree_about_classes(make_state: Callable[..., StateDict]) -> None:
    with pytest.raises(errors.ClassCountError, match="disagrees about its number of classes .* 4 in `dn_query"):
        _to_new(_with_classes(make_state(), 4, only="label_embedding"))


def test_drop_rule_leaves_the_key_out() -> None:
    mapping = Mapping("f", (Keep("a"), Drop("b", "unused"), Rename("c", "d")))
    target = layout.Layout("v", {key: layout.TensorSpec("float32", (1,)) for key in "ad"})
    done = engine.convert({key: torch.ones(1) for key in "abc"}, mapping, "new", target)
    assert list(done.state_dict) == ["a", "d"] and done.ledger.count("drop") == 1


def test_unknown_direction_is_refused(make_state: Callable[..., StateDict]) -> None:
    for step in (engine.convert, engine.canonicalise):
        with pytest.raises(ValueError, match="There is no side `up`, expected `new` or `legacy`."):
            step(make_state(), MAPPING, "up", stored_layout("tiny_r18"))


def test_ledger_refuses_a_key_produced_or_used_twice() -> None:
    with pytest.raises(errors.CollisionError, match=r"1 key\(s\) produced more than once, .*: `z`;"):
        Ledger((Entry("a", "z", 0, "keep"), Entry("b", "z", 1, "rename")))
    with pytest.raises(errors.CollisionError, match=r"used more than once, .*: `a`;"):
        Ledger((Entry("a", "y", 0, "keep"), Entry("a", "z", 1, "rename")))


@pytest.mark.parametrize(
    "first, second, expected",
    [
        (torch.tensor([float("nan")]), torch.tensor([float("nan")]), True),
        (torch.tensor([0.0]), torch.tensor([-0.0]), False),
        (torch.ones(2), torch.ones(2, dtype=torch.float64), False),
        (torch.ones(2), torch.ones(1, 2), False),
        (torch.arange(6).reshape(2, 3).t(), torch.arange(6).reshape(2, 3).t().contiguous(), True),
        (torch.tensor(3), torch.tensor(3), True),
        (torch.zeros(0), torch.zeros(0), True),
    ],
)
def test_same_bits(first: Tensor, second: Tensor, expected: bool) -> None:
    assert engine.same_bits(first, second) is expected


@pytest.mark.parametrize("variant", variants_of("ddq_detr"))
@pytest.mark.parametrize("side", ["legacy", "new"])
def test_detect(make_state: Callable[..., StateDict], variant: str, side: str) -> None:
    state = make_state(side, variant, duplicates=side == "legacy")
    assert detect(state) == Detection(port("ddq_detr", variant), side)
    assert detect(state, family="mmdet_ddq") == Detection(port("mmdet_ddq", variant), side)


@pytest.mark.parametrize("variant", [name for name in variants_of("ddq_detr") if name != "tiny_1class"])
def test_detect_ignores_the_class_count(make_state: Callable[..., StateDict], variant: str) -> None:
    assert detect(_with_classes(make_state(variant=variant), 11)) == Detection(port("ddq_detr", variant), "legacy")


def test_detect_tells_tiny_variants_apart_by_their_class_count(make_state: Callable[..., StateDict]) -> None:
    three, one = make_state(variant="tiny_4scale"), make_state(variant="tiny_1class")
    assert three.keys() == one.keys()
    assert detect(_with_classes(three, 1)) == Detection(port("ddq_detr", "tiny_1class"), "legacy")
    assert detect(_with_classes(one, 3)) == Detection(port("ddq_detr", "tiny_4scale"), "legacy")


def test_a_relative_without_the_markers_is_not_detected(make_state: Callable[..., StateDict]) -> None:
    dino = {key: tensor for key, tensor in make_state().items() if "aux_" not in key and "query_map" not in key}
    with pytest.raises(errors.DetectionError, match="fit no known layout .*`query_map.weight`"):
        detect(dino)
    assert detect(dino, "ddq_detr", "tiny_r18").side == "legacy"


def test_markers_alone_are_not_enough(make_state: Callable[..., StateDict]) -> None:
    narrow = {key: tensor[..., :1] if tensor.dim() else tensor for key, tensor in make_state().items()}
    with pytest.raises(errors.DetectionError, match="fit no known layout"):
        detect(narrow)
