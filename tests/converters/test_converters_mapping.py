"""Patterns, rules, validation, and the pairing of modules."""

from __future__ import annotations

import itertools

import pytest

from converters.errors import MappingError, UnmappedKeyError
from converters.rules.mapping import Drop, DropDuplicateOf, Keep, Mapping, Rename, Rule
from converters.rules.pattern import Pattern, intersect


@pytest.mark.parametrize(
    "pattern, key, bindings",
    [
        ("a.*", "a.b", ("b",)),
        ("a.*", "a", None),
        ("a.*", "a.b.c", None),
        ("a.**", "a.b.c", ("b.c",)),
        ("a.**", "a", None),
        ("a.**.w", "a.b.c.w", ("b.c",)),
        ("a.**.w", "a.w", None),
        ("*.x.*", "p.x.q", ("p", "q")),
        ("a.*.**", "a.b.c.d", ("b", "c.d")),
        ("a", "a", ()),
        ("a.b", "axb", None),
    ],
)
def test_match(pattern: str, key: str, bindings: tuple[str, ...] | None) -> None:
    assert Pattern(pattern).match(key) == bindings


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ("a.*", "a.b", True),
        ("a.*", "b.*", False),
        ("a.*", "a.b.c", False),
        ("a.**", "a.b.c", True),
        ("a.**", "a", False),
        ("a.**.w", "a.*.w", True),
        ("a.**.w", "a.*.b", False),
        ("**.w", "a.**", True),
        ("**.w", "w", False),
        ("*.*", "**", True),
        ("a.**.b", "**.c.*", True),
        ("*", "*.*", False),
    ],
)
def test_intersect(first: str, second: str, expected: bool) -> None:
    assert intersect(Pattern(first), Pattern(second)) is expected
    assert intersect(Pattern(second), Pattern(first)) is expected


def test_intersect_agrees_with_enumeration() -> None:
    keys = [".".join(k) for n in range(1, 6) for k in itertools.product("ab", repeat=n)]
    patterns = [p for n in range(1, 4) for p in itertools.product(("a", "b", "*", "**"), repeat=n) if p.count("**") < 2]
    matched = {p: {key for key in keys if Pattern(".".join(p)).match(key) is not None} for p in patterns}
    # keys of five segments suffice: two patterns of three, one `**` each, meet in four if they meet at all
    for first, second in itertools.product(patterns, patterns):
        assert intersect(Pattern(".".join(first)), Pattern(".".join(second))) is bool(matched[first] & matched[second])


@pytest.mark.parametrize(
    "rule, key, target",
    [
        (Keep("a.**"), "a.b.c", "a.b.c"),
        (Keep("a"), "a", "a"),
        (Rename("a.*.*", "z.*.y.*"), "a.1.2", "z.1.y.2"),
        (Rename("a.*.**", "b.*.**"), "a.1.2.3", "b.1.2.3"),
        (Rename("a.b", "c"), "a.b", "c"),
    ],
)
def test_rule_round_trip(rule: Rule, key: str, target: str) -> None:
    mapping = Mapping("f", (rule,))
    assert mapping.target_of(key) == target
    assert mapping.inverse().target_of(target) == key
    assert mapping.inverse().inverse() == mapping
    with pytest.raises(UnmappedKeyError, match="Key `other.key` of the source is matched by no rule of mapping `f`"):
        mapping.target_of("other.key")


@pytest.mark.parametrize("rule", [Drop("a.*", "unused"), DropDuplicateOf("a.*", "b.*", "saved twice")])
def test_dropped_keys_have_no_target_and_no_inverse(rule: Rule) -> None:
    mapping = Mapping("f", (rule,))
    assert mapping.target_of("a.x") is None
    assert mapping.inverse().rules == ()
    with pytest.raises(UnmappedKeyError):
        mapping.target_of("b.x")


def test_canonical_mapping_drops_and_renames_nothing() -> None:
    drops = (Drop("x.*", "unused"), DropDuplicateOf("c.*", "b.*", "saved twice"))
    mapping = Mapping("f", (Rename("a.*", "z.*"), Keep("b.*"), *drops), ("b.*",))
    assert mapping.canonical() == Mapping("f", (Keep("a.*"), Keep("b.*"), *drops), ("b.*",))
    assert mapping.canonical().canonical() == mapping.canonical()


def test_duplicate_names_its_twin() -> None:
    match = Mapping("f", (DropDuplicateOf("a.*.*", "b.c.*.*", "saved twice"),)).match("a.1.w")
    assert match is not None and match.twin == "b.c.1.w"


@pytest.mark.parametrize(
    "rules, message",
    [
        ((Rename("a.*.*", "b.*"),), "Wildcard count mismatch in rule 0: source has 2, target has 1."),
        (
            (Keep("x"), Rename("a.*.**", "b.**.*")),
            "Wildcard kind mismatch in rule 1: source has * **, target has ** *.",
        ),
        ((DropDuplicateOf("a.*", "b", "r"),), "Wildcard count mismatch in rule 0: source has 1, twin has 0."),
        ((Keep("a.*"), Keep("a.*")), "Duplicate rule 1: its source `a.*` already stands in rule 0."),
        (
            (Keep("a.**"), Rename("a.b.*", "c.*")),
            "Rules 0 and 1 overlap: their sources `a.**` and `a.b.*` have keys in common.",
        ),
        ((Keep("a.*"), Rename("b.*", "a.*")), "Duplicate rule 1: its target `a.*` already stands in rule 0."),
        (
            (Keep("a.*"), Rename("b", "a.c")),
            "Rules 0 and 1 overlap: their targets `a.*` and `a.c` have keys in common.",
        ),
        ((Keep("a.**.b.**"),), "Pattern `a.**.b.**` in rule 0 has more than one `**`, so a match would be ambiguous."),
        ((Keep("a..b"),), "Pattern `a..b` in rule 0 has an empty segment."),
        ((Keep("a.x*"),), "Pattern `a.x*` in rule 0 has a wildcard inside a segment."),
        ((Drop("a", " "),), "Rule 0 drops `a` without a reason; write one."),
        (
            (DropDuplicateOf("a.*", "b.*", "saved twice"), Drop("b.c", "unused")),
            "Rule 0 drops `a.*` as a duplicate of `b.*`, which rule 1 drops; name the key that is kept.",
        ),
        (
            (DropDuplicateOf("a.*", "a.*", "saved twice"),),
            "Rule 0 drops `a.*` as a duplicate of `a.*`, which rule 0 drops; name the key that is kept.",
        ),
    ],
)
def test_contradictory_mapping_is_refused(rules: tuple[Rule, ...], message: str) -> None:
    with pytest.raises(MappingError) as caught:
        Mapping("f", rules)
    assert str(caught.value) == message


MODULES = Mapping(
    "f",
    (
        Keep("body.**"),
        Keep("head.cls.0.*"),
        Rename("head.cls.1.*", "head.aux.0.*"),
        Rename("head.reg.1.*.*", "head.aux_reg.0.*.*"),
        Rename("old.**.w", "new.**.w"),
        Rename("solo.inner.*", "solo.deep.*"),
        Keep("nest.a.*"),
        Rename("nest.b.*", "nest.z.b.*"),
        Rename("pair.a.*", "p.a.*"),
        Rename("pair.b.*", "q.b.*"),
        Drop("gone.**", "unused"),
        DropDuplicateOf("copy.cls.*.*", "head.cls.*.*", "saved twice"),
    ),
)


@pytest.mark.parametrize(
    "path, expected",
    [
        ("", ""),
        ("body", "body"),
        ("body.layers.0.ffn", "body.layers.0.ffn"),
        ("head", "head"),
        ("head.cls", None),  # its branches part ways
        ("head.cls.0", "head.cls.0"),
        ("head.cls.1", "head.aux.0"),
        ("head.cls.1.relu", "head.aux.0.relu"),  # no keys of its own: follows its parent
        ("head.reg.1", "head.aux_reg.0"),
        ("head.reg.1.4", "head.aux_reg.0.4"),
        ("head.loss", "head.loss"),
        ("untouched.by.rules", "untouched.by.rules"),
        ("old", "new"),
        ("old.a.b", "new.a.b"),
        ("solo", "solo"),
        ("solo.inner", "solo.deep"),
        ("nest", "nest"),
        ("nest.b", "nest.z.b"),
        ("pair", None),
        ("gone", None),
        ("gone.part", None),
        ("copy.cls.0", "head.cls.0"),
        ("copy.cls.1", "head.aux.0"),
    ],
)
def test_map_module(path: str, expected: str | None) -> None:
    assert MODULES.map_module(path) == expected


@pytest.mark.parametrize(
    "rule, path",
    [
        (Rename("*.a", "*"), "x"),  # x.a becomes the key x, which is no module
        (Rename("**.a", "**.a.a"), "x"),  # x.a becomes x.a.a, but x.y.a becomes x.y.a.a
    ],
)
def test_a_module_that_only_seems_to_go_somewhere(rule: Rule, path: str) -> None:
    assert Mapping("f", (rule,)).map_module(path) is None
