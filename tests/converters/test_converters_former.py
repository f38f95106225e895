"""Names that a code base has given up are read, and never written."""

from __future__ import annotations

import pytest
import torch

from converters.errors import MappingError
from converters.rules import engine
from converters.rules.mapping import Keep, Mapping, Rename
from converters.rules.ports import port
from legacy_adapters.family import LEGACY, NEW
from parity.sides.prepare import seeded_weights

MAPPING = Mapping(
    "f",
    (Rename("head.*", "top.*"), Keep("body.*")),
    former=(Rename("old.*", "head.*"), Rename("b.*", "body.*")),
)
#: How files of DETR before version 2 call it.
VERSION_1 = ((".attentions.0.", ".self_attn."), (".attentions.1.", ".multihead_attn."), (".ffns.0.", ".ffn."),
             (".decoder.post_norm.", ".decoder.norm."))  # fmt: skip


@pytest.mark.parametrize(
    "key, target, action",
    [
        ("head.w", "top.w", "rename"),
        ("old.w", "top.w", "rename"),
        ("body.w", "body.w", "keep"),
        ("b.w", "body.w", "rename"),
    ],
)
def test_former_name_becomes_what_the_present_one_does(key: str, target: str, action: str) -> None:
    match = MAPPING.match(key)
    assert match is not None and (match.target, match.action, match.sources) == (target, action, (key,))


@pytest.mark.parametrize("key, name", [("old.w", "head.w"), ("head.w", "head.w"), ("b.w", "body.w"), ("x", "x")])
def test_on_the_same_side_former_names_become_present_ones(key: str, name: str) -> None:
    assert MAPPING.current(key) == name
    match = MAPPING.canonical().match(key)
    assert match is None and key == "x" or match.target == name


def test_former_names_are_not_written() -> None:
    assert {MAPPING.inverse().target_of(key) for key in ("top.w", "body.w")} == {"head.w", "body.w"}


def test_former_name_that_a_rule_takes_is_refused() -> None:
    with pytest.raises(MappingError, match="overlap"):
        Mapping("f", (Keep("a.*"),), former=(Rename("a.b", "a.c"),))


def test_detr_of_version_1_is_converted_byte_for_byte() -> None:
    of = port("mmdet2", "tiny_detr")
    legacy = seeded_weights(of.layout(LEGACY), 0)
    wanted = engine.convert(legacy, of.mapping, NEW, of.layout(NEW)).state_dict
    old = dict(legacy)
    for now, before in VERSION_1:
        old = {key.replace(now, before): tensor for key, tensor in old.items()}
    assert len(old) == len(legacy) and len(old.keys() - legacy.keys()) == 122
    result = engine.convert(old, of.mapping, NEW, of.layout(NEW))
    assert all(torch.equal(result.state_dict[key], tensor) for key, tensor in wanted.items())
    assert {entry.source for entry in result.ledger.entries} == set(old)
    assert engine.canonicalise(old, of.mapping, LEGACY, of.layout(LEGACY)).state_dict.keys() == legacy.keys()
