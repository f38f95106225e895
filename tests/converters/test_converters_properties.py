"""What holds for the engine whatever the rules and the state dict, tried on random ones.

Every expectation comes from `tests/converters/rule_sets.py`, which finds it by trying all keys.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from converters import errors
from converters.rules import engine
from converters.rules.layout import Layout, TensorSpec, spec_of
from converters.rules.ledger import Entry, Ledger
from converters.rules.mapping import Drop, DropDuplicateOf, Mapping, Rename, Rule
from converters.rules.pattern import Pattern, intersect
from tests.converters import rule_sets as reference

StateDict = dict[str, engine.AnyTensor]
SEGMENTS = st.text(st.characters(exclude_characters=".*"), min_size=1, max_size=3)


ANY_RULES = reference.rule_sets() | reference.rule_sets_with_a_copy()


@st.composite
def _cases(
    draw: st.DrawFn, rule_sets: st.SearchStrategy[tuple[Rule, ...]] = ANY_RULES
) -> tuple[tuple[Rule, ...], StateDict]:
    rules = draw(rule_sets)
    state = draw(reference.states(rules))
    note(f"rules {rules}, keys {list(state)}")
    return rules, state


def _converted(rules: tuple[Rule, ...], state: StateDict) -> engine.Conversion:
    expected = {target: state[key] for key, target in reference.kept(rules, state).items()}
    return engine.convert(state, Mapping("f", rules), "new", reference.layout_of(expected))


def _bytes(state: StateDict) -> dict[str, tuple[TensorSpec, bytes]]:
    return {key: (spec_of(tensor), reference.content(tensor)) for key, tensor in state.items()}


@given(reference.patterns(), st.sampled_from(reference.KEYS))
def test_match_finds_the_only_bindings_and_fill_undoes_it(pattern: str, key: str) -> None:
    found = Pattern(pattern).match(key)
    expected = reference.bindings(tuple(pattern.split(".")), tuple(key.split(".")))
    assert [found] == (expected or [None])
    assert found is None or Pattern(pattern).fill(found) == key


@given(st.lists(st.tuples(SEGMENTS, st.sampled_from(("literal", "*", "**"))), min_size=1, max_size=4))
def test_segments_are_taken_as_they_are_written(parts: list[tuple[str, str]]) -> None:
    assume([kind for _, kind in parts].count("**") < 2)
    pattern = Pattern(".".join(text if kind == "literal" else kind for text, kind in parts))
    key = ".".join(text for text, _ in parts)
    assert pattern.problem is None
    assert pattern.match(key) == tuple(text for text, kind in parts if kind != "literal")
    literals = [index for index, (_, kind) in enumerate(parts) if kind == "literal"]
    for index in literals:
        other = ".".join(text + "x" if i == index else text for i, (text, _) in enumerate(parts))
        assert "**" in pattern.wildcards or pattern.match(other) is None


@given(reference.patterns(), reference.patterns())
def test_intersect_agrees_with_trying_every_key(first: str, second: str) -> None:
    expected = reference.share_a_key(first, second)
    assert intersect(Pattern(first), Pattern(second)) is expected
    assert intersect(Pattern(second), Pattern(first)) is expected


@given(st.lists(reference.rules(), min_size=1, max_size=4))
def test_a_mapping_is_refused_if_and_only_if_two_rules_share_a_key(rules: list[Rule]) -> None:
    if reference.conflict(tuple(rules)):
        with pytest.raises(errors.MappingError, match=r"^(Duplicate rule \d|Rules \d and \d overlap)"):
            Mapping("f", tuple(rules))
    else:
        Mapping("f", tuple(rules))


@given(st.data(), reference.patterns(2), st.permutations(reference.LETTERS))
def test_rules_that_produce_one_key_are_refused(data: st.DataObject, tail: str, heads: list[str]) -> None:
    sources = [f"{head}.{tail}" for head in heads]
    targets = [data.draw(reference.with_wildcards_of(tail, 4)) for _ in heads]
    rules = tuple(Rename(source, target) for source, target in zip(sources, targets))
    if reference.share_a_key(*targets):
        with pytest.raises(errors.MappingError, match=r"^(Duplicate rule 1|Rules 0 and 1 overlap): .*target"):
            Mapping("f", rules)
    else:
        Mapping("f", rules)


@given(ANY_RULES)
def test_every_key_goes_where_its_only_rule_says(rules: tuple[Rule, ...]) -> None:
    mapping = Mapping("f", rules)
    for key in reference.STATE_KEYS:
        match, expected = mapping.match(key), reference.outcome(rules, key)
        found = None if match is None else reference.Outcome(match.rule, match.target, match.twin)
        assert found == expected
        assert match is None or match.action == rules[match.rule].action


@given(ANY_RULES)
def test_kept_keys_are_mapped_one_to_one_and_the_inverse_undoes_it(rules: tuple[Rule, ...]) -> None:
    mapping = Mapping("f", rules)
    inverse = mapping.inverse()
    targets = reference.kept(rules, reference.STATE_KEYS)
    assert len(set(targets.values())) == len(targets)
    for key, target in targets.items():
        assert mapping.target_of(key) == target and inverse.target_of(target) == key
    without_drops = tuple(rule for rule in rules if rule.target is not None)
    assert inverse.inverse() == Mapping("f", without_drops)
    for target in reference.STATE_KEYS:
        came_from = inverse.match(target)
        assert came_from is None or mapping.target_of(came_from.target) == target


@given(_cases())
def test_conversion_accounts_for_every_key_and_touches_no_byte(case: tuple[tuple[Rule, ...], StateDict]) -> None:
    rules, state = case
    before = _bytes(state)
    done = _converted(rules, state)
    assert [entry.source for entry in done.ledger.entries] == sorted(state)
    for entry in done.ledger.entries:
        expected = reference.outcome(rules, entry.source)
        assert (entry.rule, entry.target, entry.action) == (
            expected.rule,
            expected.target,
            rules[expected.rule].action,
        )
    assert list(done.state_dict) == sorted(entry.target for entry in done.ledger.entries if entry.target is not None)
    after = _bytes(done.state_dict)
    assert after == {target: before[key] for key, target in reference.kept(rules, state).items()}
    assert _bytes(state) == before


@given(_cases())
def test_the_way_back_gives_all_that_was_not_dropped(case: tuple[tuple[Rule, ...], StateDict]) -> None:
    rules, state = case
    new = _converted(rules, state).state_dict
    left = {key: state[key] for key in reference.kept(rules, state)}
    back = engine.convert(new, Mapping("f", rules), "legacy", reference.layout_of(left))
    assert _bytes(back.state_dict) == _bytes(left)
    again = engine.convert(back.state_dict, Mapping("f", rules), "new", reference.layout_of(new))
    assert _bytes(again.state_dict) == _bytes(new)


@given(_cases())
def test_canonical_form_is_that_of_the_way_back_and_final(case: tuple[tuple[Rule, ...], StateDict]) -> None:
    rules, state = case
    left = {key: state[key] for key in reference.kept(rules, state)}
    once = engine.canonicalise(state, Mapping("f", rules), "legacy", reference.layout_of(left))
    assert _bytes(once.state_dict) == _bytes(left)
    assert once.ledger.changes_nothing is (len(left) == len(state))
    twice = engine.canonicalise(once.state_dict, Mapping("f", rules), "legacy", reference.layout_of(left))
    assert twice.ledger.changes_nothing and _bytes(twice.state_dict) == _bytes(left)


@given(_cases(reference.rule_sets_with_a_copy()))
def test_no_tensor_is_lost_but_by_a_rule_that_says_so(case: tuple[tuple[Rule, ...], StateDict]) -> None:
    rules, state = case
    kept = _bytes(_converted(rules, state).state_dict).values()
    for key, content in _bytes(state).items():
        assert content in kept or isinstance(rules[reference.outcome(rules, key).rule], Drop)


@st.composite
def _copies_of_what_is_dropped(draw: st.DrawFn) -> tuple[Rule, ...]:
    dropped = draw(reference.rules(reference.LETTERS, "d"))
    copy = draw(reference.copies(dropped))
    return draw(st.permutations([dropped, copy if draw(st.booleans()) else replace(copy, twin=copy.pattern)]))


@given(_copies_of_what_is_dropped())
def test_a_duplicate_of_what_is_dropped_is_refused(rules: list[Rule]) -> None:
    """It would be gone with its twin; and of a key that repeats itself nothing would be left, either."""
    with pytest.raises(errors.MappingError, match="which rule . drops"):
        Mapping("f", tuple(rules))


@given(_cases(reference.rule_sets_with_a_copy()), st.data())
def test_a_duplicate_that_differs_in_one_bit_is_refused(
    case: tuple[tuple[Rule, ...], StateDict], data: st.DataObject
) -> None:
    rules, state = case
    changed = data.draw(st.sampled_from([key for key in state if reference.outcome(rules, key).twin is not None]))
    assume(state[changed].numel())
    bits = 8 * len(reference.content(state[changed]))
    state[changed] = reference.copied_tensor(state[changed], data.draw(st.integers(0, bits - 1)))
    with pytest.raises(errors.DuplicateDiffersError, match=f"^Key `{re.escape(changed)}` should repeat"):
        _converted(rules, state)


@given(_cases(reference.rule_sets_with_a_copy()))
def test_a_duplicate_without_its_twin_is_refused(case: tuple[tuple[Rule, ...], StateDict]) -> None:
    rules, state = case
    twins = {reference.outcome(rules, key).twin for key in state}
    with pytest.raises(errors.DuplicateDiffersError, match="has no such twin"):
        _converted(rules, {key: tensor for key, tensor in state.items() if key not in twins})


@given(_cases(reference.rule_sets_with_a_copy()))
def test_a_duplicate_is_not_dropped_for_a_twin_that_is_left_out(case: tuple[tuple[Rule, ...], StateDict]) -> None:
    """Keys without a rule may be left out where that is allowed; the weights must not go with them."""
    rules, state = case
    only_copies = (rules[1],)
    assert isinstance(rules[1], DropDuplicateOf)
    copies = {key: tensor for key, tensor in state.items() if reference.outcome(only_copies, key) is not None}
    twins = {key: state[key] for key in {reference.outcome(only_copies, key).twin for key in copies}}
    with pytest.raises(errors.DuplicateDiffersError, match="matched by no rule"):
        engine.convert(copies | twins, Mapping("f", only_copies), "new", Layout("v", {}), allow_unmapped=True)


def _without_a_key(layout: Layout, key: str) -> Layout:
    return replace(layout, tensors={name: spec for name, spec in layout.tensors.items() if name != key})


def _with_another(layout: Layout, key: str, **change: object) -> Layout:
    return replace(layout, tensors={**layout.tensors, key: replace(layout.tensors[key], **change)})


@given(_cases(), st.data())
def test_whatever_does_not_fit_the_layout_is_refused_by_name(
    case: tuple[tuple[Rule, ...], StateDict], data: st.DataObject
) -> None:
    rules, state = case
    targets = reference.kept(rules, state)
    assume(targets)
    layout = reference.layout_of({target: state[key] for key, target in targets.items()})
    key = data.draw(st.sampled_from(sorted(layout.tensors)))
    shape = layout.tensors[key].shape
    other, error = data.draw(
        st.sampled_from(
            [
                (_without_a_key(layout, key), errors.UnexpectedKeyError),
                (
                    replace(layout, tensors={**layout.tensors, key + ".z": TensorSpec("int8", ())}),
                    errors.MissingKeyError,
                ),
                (_with_another(layout, key, shape=(*shape, 1)), errors.ShapeMismatchError),
                (_with_another(layout, key, dtype="int8"), errors.DtypeMismatchError),
            ]
        )
    )
    with pytest.raises(error, match=f"`{re.escape(key)}|{re.escape(key)} "):
        engine.convert(state, Mapping("f", rules), "new", other)


@given(_cases(), st.lists(st.sampled_from(reference.STATE_KEYS), min_size=1, max_size=4))
def test_keys_without_a_rule_are_refused_or_left_out(case: tuple[tuple[Rule, ...], StateDict], keys: list[str]) -> None:
    rules, state = case
    extra = {key for key in keys if reference.outcome(rules, key) is None}
    assume(extra)
    more = state | {key: torch.zeros(1) for key in extra}
    with pytest.raises(errors.UnmappedKeyError, match=f"`{re.escape(min(extra))}`"):
        _converted(rules, more)
    layout = reference.layout_of(_converted(rules, state).state_dict)
    done = engine.convert(more, Mapping("f", rules), "new", layout, allow_unmapped=True)
    assert {entry.source for entry in done.ledger.of("unmapped")} == extra
    assert _bytes(done.state_dict) == _bytes(_converted(rules, state).state_dict)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["x", "y", "z", "w", None])), max_size=5))
def test_a_ledger_is_refused_if_and_only_if_a_key_stands_in_it_twice(pairs: list[tuple[str, str | None]]) -> None:
    sources = [source for source, _ in pairs]
    targets = [target for _, target in pairs if target is not None]
    entries = tuple(Entry(source, target, 0, "rename") for source, target in pairs)
    if len(set(sources)) < len(sources) or len(set(targets)) < len(targets):
        verb = "used" if len(set(sources)) < len(sources) else "produced"
        with pytest.raises(errors.CollisionError, match=f"{verb} more than once"):
            Ledger(entries)
    else:
        assert Ledger(entries).entries == entries


@settings(max_examples=200)
@given(ANY_RULES, st.data())
def test_a_module_goes_nowhere_but_where_all_its_keys_go(rules: tuple[Rule, ...], data: st.DataObject) -> None:
    mapping = Mapping("f", rules)
    outcomes = {key: reference.outcome(rules, key) for key in reference.STATE_KEYS}
    modules = {key.rsplit(".", cut)[0] for key, found in outcomes.items() if found is not None for cut in range(1, 4)}
    path = data.draw(st.sampled_from(sorted(modules)))
    below = [key for key in reference.STATE_KEYS if key.startswith(f"{path}.")]
    assume(any(outcomes[key] is not None for key in below))
    found = mapping.map_module(path)
    targets = reference.kept(rules, below) or _targets_of_twins(rules, below)
    note(f"{rules}: {path} -> {found}, keys {targets}")
    assert found in (None, "") or all(target.startswith(f"{found}.") for target in targets.values())
    if all(isinstance(rule, Drop) for rule in rules if reference.share_a_key(rule.source, f"{path}.**")):
        assert found is None


def _targets_of_twins(rules: tuple[Rule, ...], keys: list[str]) -> dict[str, str]:
    twins = {key: found.twin for key in keys if (found := reference.outcome(rules, key)) is not None and found.twin}
    targets = reference.kept(rules, twins.values())
    return {key: targets[twin] for key, twin in twins.items()}


@given(
    st.sampled_from(reference.KEYS[:6]),
    st.sampled_from(reference.KEYS[:6]),
    st.lists(reference.patterns(2), min_size=1, max_size=3, unique=True),
    st.lists(reference.rules(), max_size=2),
)
def test_a_module_whose_keys_all_move_together_moves(old: str, new: str, tails: list[str], others: list[Rule]) -> None:
    rules: tuple[Rule, ...] = ()
    for rule in [*(Rename(f"{old}.{tail}", f"{new}.{tail}") for tail in tails), *others]:
        rules = rules if reference.conflict((*rules, rule)) else (*rules, rule)
    assume(not any(reference.share_a_key(rule.source, f"{old}.**") for rule in rules if rule in others))
    mapping = Mapping("f", rules)
    assert mapping.map_module(old) == new
    keys = [key for key in reference.KEYS if key.startswith(f"{old}.") and mapping.match(key) is not None]
    for inner in {key.rpartition(".")[0] for key in keys}:
        assert mapping.map_module(inner) == inner.replace(old, new, 1)
        assert mapping.map_module(f"{old}.relu") == f"{new}.relu"
