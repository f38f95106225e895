"""Other classes: which rows are picked, how new ones are made, and what the port makes of them."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from converters.carrying import classes
from converters.carrying.classes import Selection
from converters.errors import ClassMapError, ConversionError
from converters.formats.stored import StoredTensor
from converters.rules.pattern import Pattern
from legacy_adapters import registry
from parity.sides.prepare import seeded_batch
from tests.models import layout_of as stored_layout
from tests.models import variants as variants_of
from tests.models import weights_of

StateDict = dict[str, Tensor]
CLASS_ROWS = registry.get("ddq_detr").class_rows
NAMES = ("person", "car", "truck", "dog", "cat")


def _select(num_classes: int, pairs: dict[str, int | str | None] | None = None, **kwargs: object) -> Selection:
    given = {"source_classes": 5, "source_names": NAMES, "seed": 0, **kwargs}
    return classes.select(num_classes, None if pairs is None else json.dumps(pairs), **given)


@pytest.mark.parametrize(
    "num_classes, pairs, rows, names",
    [
        (5, None, (0, 1, 2, 3, 4), None),
        (3, None, (None, None, None), None),
        (2, {"0": 4, "1": None}, (4, None), None),
        (2, {"1": 4, "0": None}, (None, 4), None),
        (3, {"bike": None, "taxi": "car", "bus": "car"}, (None, 1, 1), ("bike", "taxi", "bus")),
        (2, {"1": 0, "x": "dog"}, (0, 3), ("1", "x")),
        (5, {name: name for name in NAMES}, (0, 1, 2, 3, 4), NAMES),
        (1, {"01": 2}, (2,), ("01",)),
    ],
)
def test_selection(
    num_classes: int, pairs: dict[str, int | str | None] | None, rows: tuple[int | None, ...], names: tuple[str] | None
) -> None:
    assert _select(num_classes, pairs) == Selection(rows, names, 5, 0)


@pytest.mark.parametrize(
    "num_classes, pairs, given, message",
    [
        (2, {"0": 1}, {}, "The class map lacks class 1, expected 2 (--num-classes); list every class once, null for"),
        (2, {"0": 1, "2": 1}, {}, "lacks class 1, expected 2"),
        (2, {"0": 1, "1": 1, "2": 1}, {}, "has 3 classes, expected 2"),
        (2, {"a": 1, "b": 1, "c": 1}, {}, "has 3 classes, expected 2"),
        (1, {"a": 5}, {}, "asks for class 5 of the source, which has 0 to 4."),
        (1, {"a": -1}, {}, "asks for class -1 of the source"),
        (1, {"a": "trucks"}, {}, "The source has no class called `trucks`, expected one, such as `truck`."),
        (1, {"a": "car"}, {"source_names": ("car", "car"), "source_classes": 2}, "has 2 classes called `car`"),
        (1, {"a": "car"}, {"source_names": None}, "has no class names, so `car` cannot be found; give indices"),
        (1, {"a": "car"}, {"source_names": ("car",)}, "has 1 class names for 5 classes, so `car`"),
        (0, None, {}, "The number of classes is 0, expected 1 to 100000."),
        (100_001, None, {}, "expected 1 to 100000."),
    ],
)
def test_what_does_not_fit_is_refused(
    num_classes: int, pairs: dict[str, int | str | None] | None, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ClassMapError) as caught:
        _select(num_classes, pairs, **given)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "it is not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("{", "it is not JSON"),
        ('[["a", 1]]', "it is not a JSON object with classes in it"),
        ("{}", "it is not a JSON object with classes in it"),
        ("7", "it is not a JSON object"),
        ('{"a": 1, "b": 2, "a": 3}', "it names `a` more than once"),
        ('{"a": 1.5}', "it gives class `a` 1.5, expected the index or name of a class of the source, or null"),
        ('{"a": true}', "it gives class `a` true"),
        ('{"a": ["b"]}', 'it gives class `a` ["b"]'),
        ('{"a": ' + "9" * 5000 + "}", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_what_is_no_class_map_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(ClassMapError) as caught:
        classes.read_map(tmp_path / "map.json")
    assert (
        message in str(caught.value) and str(caught.value).startswith("Cannot take `") and len(str(caught.value)) < 400
    )


def test_bytes_that_are_no_text_are_no_class_map(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(ClassMapError, match="codec can't decode"):
        classes.read_map(tmp_path / "map.json")


def test_map_keeps_its_order(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{\n "z": "car",\n "ä": null, "a": 2\n}')
    text = classes.read_map(tmp_path / "map.json")
    assert text == '{"z": "car", "\\u00e4": null, "a": 2}'
    assert classes.select(3, text, 5, NAMES, 0).names == ("z", "ä", "a")


def test_description_is_short() -> None:
    assert Selection((*range(80), None, None), None, 80, 3).describe() == "rows 0-79, 2 initialised of 80, seed 3"
    assert Selection((4, 3, 3, None, 0, 1), None, 5, 0).describe() == "rows 4, 3, 3, 1 initialised, 0-1 of 5, seed 0"
    assert Selection((4,), None, 5, 0).describe() == "rows 4 of 5"


@pytest.mark.parametrize("variant", variants_of("ddq_detr"))
@pytest.mark.parametrize("side", ["legacy", "new"])
def test_every_tensor_with_a_row_per_class_has_one_way_to_start(variant: str, side: str) -> None:
    tensors = stored_layout(variant, side=side).tensors
    keys = {key for key in tensors if ".cls_branches." in key or "aux_cls_branches" in key or "label_embedding" in key}
    assert {tensors[key].shape[0] for key in keys} == {
        stored_layout(variant).tensors["bbox_head.cls_branches.0.bias"].shape[0]
    }
    matched = {key: [text for text in CLASS_ROWS if Pattern(text).match(key) is not None] for key in tensors}
    assert {key for key, texts in matched.items() if texts} == keys
    assert all(len(matched[key]) == 1 for key in keys)


def _stored(state: StateDict) -> dict[str, StoredTensor]:
    return {key: StoredTensor.from_torch(tensor) for key, tensor in state.items()}


def _with_classes(state: StateDict, selection: Selection) -> tuple[StateDict, dict[str, tuple[str, ...]]]:
    done, changes = classes.apply(_stored(state), CLASS_ROWS, selection)
    return {key: tensor.to_torch() for key, tensor in done.items()}, changes


def test_rows_are_picked_bit_by_bit_and_nothing_else_changes(
    make_state: Callable[..., StateDict], assert_same: Callable[..., None]
) -> None:
    state = make_state("new")
    done, changes = _with_classes(state, Selection((2, None, 0, 2), None, 3, 0))
    assert len(changes) == 17 and set(changes.values()) == {("rows 2, 1 initialised, 0, 2 of 3, seed 0",)}
    assert_same(
        {key: done[key] for key in state if key not in changes}, {k: v for k, v in state.items() if k not in changes}
    )
    for key in changes:
        assert done[key].shape == (4, *state[key].shape[1:])
        assert torch.equal(done[key][[0, 2, 3]], state[key][[2, 0, 2]]) and not torch.equal(done[key][1], state[key][1])


def test_transposed_tensors_give_their_rows() -> None:
    weight = torch.arange(6.0).reshape(2, 3).t()
    stored = StoredTensor("float32", (3, 2), StoredTensor.from_torch(weight.t().contiguous()).storage, stride=(1, 3))
    done, _ = classes.apply({"bbox_head.cls_branches.0.weight": stored}, CLASS_ROWS, Selection((2, 0), None, 3, 0))
    assert torch.equal(done["bbox_head.cls_branches.0.weight"].to_torch(), weight[[2, 0]])


def test_same_classes_change_nothing(make_state: Callable[..., StateDict]) -> None:
    state = _stored(make_state("new"))
    done, changes = classes.apply(state, CLASS_ROWS, _select(3, None, source_classes=3))
    assert changes == {} and all(done[key] is state[key] for key in state)


def _new_rows(dtype: str = "float32", seed: int = 0, count: int = 7) -> dict[str, StoredTensor]:
    shapes = {
        "bbox_head.cls_branches.0.weight": (3, 64),
        "bbox_head.aux_cls_branches.2.weight": (3, 64),
        "bbox_head.cls_branches.0.bias": (3,),
        "dn_query_generator.label_embedding.weight": (3, 64),
    }
    size = {"float64": 8, "float32": 4}.get(dtype, 2)
    state = {key: StoredTensor.of(dtype, shape, bytes(size * math.prod(shape))) for key, shape in shapes.items()}
    return classes.apply(state, CLASS_ROWS, Selection((None,) * count, None, 3, seed))[0]


@pytest.mark.parametrize(
    "dtype, digest",
    [
        ("float64", "8e4155b7d510947c"),
        ("float32", "523d0150678d938d"),
        ("float16", "bedd585930fb5f0a"),
        ("bfloat16", "49680074a909fe6f"),
    ],
)
def test_new_rows_have_the_same_bits_on_every_machine(dtype: str, digest: str) -> None:
    made = _new_rows(dtype)
    assert hashlib.sha256(b"".join(made[key].data() for key in sorted(made))).hexdigest()[:16] == digest


def test_new_rows_depend_on_seed_and_class_alone() -> None:
    few, many, other = (
        {key: tensor.to_torch() for key, tensor in _new_rows(seed=seed, count=count).items()}
        for seed, count in ((0, 2), (0, 7), (1, 7))
    )
    for key in (key for key in many if key.endswith("weight")):
        assert torch.equal(few[key], many[key][:2])
        assert len({tuple(row.tolist()) for row in [*many[key], *other[key]]}) == 14


def test_new_rows_in_narrow_dtypes_are_the_rounded_ones() -> None:
    exact = _new_rows("float64")
    for dtype in ("float32", "float16", "bfloat16"):
        for key, tensor in _new_rows(dtype).items():
            expected = exact[key].to_torch().to(torch.float32).to(getattr(torch, dtype))
            assert (tensor.to_torch() - expected).abs().max() <= expected.abs().max() * torch.finfo(expected.dtype).eps
            assert dtype == "float16" or torch.equal(tensor.to_torch(), expected)


def test_new_rows_are_distributed_as_the_models_own() -> None:
    made = {key: tensor.to_torch().flatten().tolist() for key, tensor in _new_rows(count=500).items()}
    weight, label = made["bbox_head.cls_branches.0.weight"], made["dn_query_generator.label_embedding.weight"]
    assert max(map(abs, weight)) <= 1 / 8 and statistics.pstdev(weight) == pytest.approx(1 / 8 / math.sqrt(3), rel=0.02)
    assert made["bbox_head.aux_cls_branches.2.weight"] == weight
    normal = statistics.NormalDist()
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        below = sum(number < normal.inv_cdf(share) for number in label) / len(label)
        assert below == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / len(label)))
    logs = [abs(classes._log(x) - math.log(x)) for x in (1e-300, 0.1, 0.5, 0.7071067811865475, 0.9999999, 1.5)]
    assert max(logs) < 1e-13


def test_dtypes_without_an_encoding_are_picked_but_not_initialised() -> None:
    state = {"bbox_head.cls_branches.0.bias": StoredTensor.of("float8_e5m2", (3,), b"abc")}
    done, _ = classes.apply(state, CLASS_ROWS, Selection((2, 0), None, 3, 0))
    assert done["bbox_head.cls_branches.0.bias"].data() == b"ca"
    with pytest.raises(ConversionError, match="dtype float8_e5m2, whose rows cannot be initialised"):
        classes.apply(state, CLASS_ROWS, Selection((2, None), None, 3, 0))


@pytest.mark.parametrize(
    "meta, expected",
    [
        ({"dataset_meta": {"classes": ("a", "b")}}, ("a", "b")),
        ({"dataset_meta": {"CLASSES": ["a", "b"], "PALETTE": []}}, ("a", "b")),
        ({"CLASSES": ["a"]}, ("a",)),
        ({"dataset_meta": {"classes": [1, 2]}}, None),
        ({"dataset_meta": "person, car"}, None),
        ({"CLASSES": "abc"}, None),
        ({}, None),
    ],
)
def test_names_of_classes_are_read_in_every_form(meta: dict[str, object], expected: tuple[str, ...] | None) -> None:
    assert classes.class_names(meta) == expected


def test_metadata_name_the_new_classes_or_none() -> None:
    meta = {"dataset_meta": {"classes": NAMES, "palette": [1]}, "CLASSES": NAMES, "PALETTE": [1], "epoch": 12}
    assert classes.with_names(meta, _select(5)) == meta
    assert classes.with_names(meta, _select(2, {"0": 1, "1": 2})) == {"epoch": 12}
    named = classes.with_names(meta, _select(2, {"taxi": "car", "b": None}))
    assert named == {"epoch": 12, "dataset_meta": {"classes": ["taxi", "b"]}}


@pytest.fixture
def build() -> Callable[..., nn.Module]:
    """Return a function that builds the port's tiny model with a number of classes."""
    import ddq_port.models  # noqa: F401  # isort: skip
    from mmengine.registry import DefaultScope

    from ddq_port import configs
    from ddq_port.registry import MODELS

    def make(num_classes: int, state: StateDict | None = None) -> nn.Module:
        config = copy.deepcopy(configs.load(configs.VARIANTS["tiny_r18"]))
        config.merge_from_dict(dict(model=dict(bbox_head=dict(num_classes=num_classes))))
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(config.model)
        if state is not None:
            model.load_state_dict(state, strict=True)
        return model.eval()

    return make


def test_new_rows_are_those_of_a_fresh_model(build: Callable[..., nn.Module]) -> None:
    fresh = build(400)
    fresh.bbox_head.init_weights()
    own = {key: tensor for key, tensor in fresh.state_dict().items()}
    made, changes = _with_classes(own, Selection((None,) * 400, None, 400, 0))
    for key in changes:
        if key.endswith("bias"):
            assert torch.equal(made[key], own[key])
        else:
            assert made[key].std().item() == pytest.approx(own[key].std().item(), rel=0.03), key
            assert made[key].abs().max() <= max(own[key].abs().max() * 1.01, 5 * ("label" in key)), key
    branches = [key for key in changes if key.endswith("weight") and "branches" in key]
    for state in (own, made):  # all branches are copies of one
        assert all(torch.equal(state[key], state[branches[0]]) for key in branches)


def _exact(state: StateDict) -> StateDict:
    """Round the class branches so that sums of products are exact, whatever the order in which they are taken."""
    return {key: (tensor * 64).round() / 64 if "cls_branches" in key else tensor for key, tensor in state.items()}


def test_picked_classes_have_the_scores_of_their_rows(build: Callable[..., nn.Module]) -> None:
    rows = (2, None, 0)
    state = _exact(weights_of("tiny_r18", 0))
    source = build(3, state)
    target = build(3, _with_classes(state, Selection(rows, None, 3, 0))[0])
    seen: list[tuple[Tensor, ...]] = []
    source.bbox_head.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    batch = seeded_batch([(128, 160)], seed=0, num_classes=3)
    from legacy_adapters import mmdet3

    with torch.no_grad():
        mmdet3.predict(source, batch)
        ((args, kwargs),) = seen
        hidden, *rest = args
        hidden = (hidden * 64).round() / 64
        logits, boxes = source.bbox_head(hidden, *rest, **kwargs)
        picked, same_boxes = target.bbox_head(hidden, *rest, **kwargs)
    assert torch.equal(boxes, same_boxes) and logits.shape[-1] == 3
    assert torch.equal(picked[..., 0], logits[..., 2]) and torch.equal(picked[..., 2], logits[..., 0])
    assert not torch.equal(picked[..., 1], logits[..., 1])


def test_classes_in_another_order_give_the_same_detections(build: Callable[..., nn.Module]) -> None:
    from legacy_adapters import mmdet3

    state = weights_of("tiny_r18", 0)
    batch = seeded_batch([(128, 160), (96, 128)], seed=0, num_classes=3)
    with torch.no_grad():
        before = mmdet3.predict(build(3, state), batch)
        after = mmdet3.predict(build(3, _with_classes(state, Selection((2, 0, 1), None, 3, 0))[0]), batch)
    for one, other in zip(before, after):
        assert torch.allclose(one["scores"], other["scores"], rtol=1e-4)
        assert torch.equal(one["labels"], torch.tensor([2, 0, 1])[other["labels"]])
