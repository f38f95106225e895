"""The kinds of rules, and what is wrong with one by itself.

A rule has one or several patterns of source keys and none, one or several of target keys. `Keep`, `Rename`, `Drop` and
`DropDuplicateOf` leave tensors as they are; the others change them.
"""

from __future__ import annotations

from collections.abc import Sequence

from converters.rules.changing import Concat, Pad, Permute, Reshape, Slice, Split
from converters.rules.pattern import Pattern
from converters.rules.renaming import Drop, DropDuplicateOf, Keep, Rename

Rule = Keep | Rename | Drop | DropDuplicateOf | Split | Concat | Permute | Reshape | Slice | Pad


def fault_of(rule: Rule, index: int) -> str | None:
    """Say what is wrong with the rule number `index` by itself, in a sentence; None if it is sound."""
    patterns = {**_named("source", rule.sources), **_named("target", rule.targets)}
    patterns |= {"twin": rule.twin} if isinstance(rule, DropDuplicateOf) else {}
    for text in patterns.values():
        problem = Pattern(text).problem
        if problem is not None:
            return f"Pattern `{text}` in rule {index} {problem}."
    if isinstance(rule, (Drop, DropDuplicateOf)) and not rule.reason.strip():
        return f"Rule {index} drops `{rule.source}` without a reason; write one."
    if rule.fault is not None:
        return f"Rule {index} ({rule.action} `{rule.sources[0] if rule.sources else ''}`) {rule.fault}."
    (name, first), *others = patterns.items()
    wildcards = Pattern(first).wildcards
    for other, text in others:
        more = Pattern(text).wildcards
        if len(more) != len(wildcards):
            return (
                f"Wildcard count mismatch in rule {index}: {name} has {len(wildcards)}, {other} has {len(more)}."
            )
        if more != wildcards:
            return (
                f"Wildcard kind mismatch in rule {index}: {name} has {' '.join(wildcards)}, {other} has "
                f"{' '.join(more)}."
            )
    return None


def _named(side: str, patterns: Sequence[str]) -> dict[str, str]:
    return {side if len(patterns) == 1 else f"{side} {number}": text for number, text in enumerate(patterns, 1)}
