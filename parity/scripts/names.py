"""Make a whole mapping of a few rules: what no rule takes has the same name on both sides."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from converters.errors import MappingError, listed
from converters.rules import rule_file
from converters.rules.mapping import Keep, Rule
from converters.rules.mapping import Mapping as Rules
from converters.rules.pattern import Pattern, intersect
from legacy_adapters.correspondence import Alias
from legacy_adapters.ground.names import LEGACY, NEW

from ..sides.settings import SettingsError

#: What a mapping is called in messages.
NAME = "the script"
#: Rules as a user gives them: a file, the rules themselves, or none.
GivenRules = str | Path | Rule | Sequence[Rule] | None
#: Paths of modules that are one, by side.
Shared = Mapping[str, Sequence[Sequence[str]]]


def rules_of(given: GivenRules) -> tuple[Rule, ...]:
    """Return rules, read from their file if one is given.

    Raises:
        converters.errors.RuleFileError: if the file holds something else.
        OSError: if it cannot be read.
        SettingsError: if it is neither a file nor rules.
    """
    if given is None:
        return ()
    if isinstance(given, str | Path):
        return rule_file.load(given)
    rules = (given,) if isinstance(given, Rule) else tuple(given)
    for number, rule in enumerate(rules):
        if not isinstance(rule, Rule):
            raise SettingsError(
                f"Rule {number} is {rule!r:.60}; expected one of converters.rules.mapping, such as "
                'Rename("old.*", "new.*"), or the path of a rule file.'
            )
    return rules


def whole_mapping(rules: Sequence[Rule], legacy: Collection[str], new: Collection[str], shared: Shared | None = None) -> Rules:
    """Return a mapping that takes every key of the old side.

    Args:
        rules: of which every one must take a key.
        legacy: keys of the old side's state dict.
        new: keys of the new side's.
        shared: modules that have several paths.

    Raises:
        converters.errors.MappingError: if the rules contradict each other.
        SettingsError: if a rule takes no key, or gives a key that another one keeps.
    """
    given = Rules(NAME, tuple(rules))
    taken = {key: match for key in legacy if (match := given.match(key)) is not None}
    _check_used(given, taken.values(), legacy)
    rest = [key for key in legacy if key not in taken]
    produced = {target: match for match in taken.values() for target in match.targets}
    for key in rest:
        if key in produced:
            rule = produced[key].rule
            raise SettingsError(
                f"Rule {rule} (`{rules[rule].text}`) gives `{key}`, and the old side has a `{key}` of its own that no rule "
                "takes; add a rule for that, or correct this one."
            )
    patterns = [Pattern(text) for rule in rules for text in (*rule.sources, *rule.targets)]
    try:
        whole = Rules(NAME, (*rules, *_kept(rest, legacy, patterns)))
    except MappingError as error:
        raise SettingsError(
            f"The rules and the keys that keep their names cannot be told apart: {error} Write the rule's names out."
        ) from error
    return replace(whole, aliases=_aliases(whole, shared or {}))


def _check_used(rules: Rules, matches: Iterable, legacy: Collection[str]) -> None:
    used = {match.rule for match in matches}
    idle = [(number, rule) for number, rule in enumerate(rules.rules) if number not in used]
    if idle:
        number, rule = idle[0]
        raise SettingsError(
            f"Rule {number} (`{rule.text}`) takes no key of the old side, whose keys are {listed(sorted(legacy))}; correct "
            "it or leave it out."
        )


def _kept(rest: Sequence[str], legacy: Iterable[str], patterns: Sequence[Pattern]) -> list[Keep]:
    """Return rules that keep ``rest``, one for each part of the model that no other rule touches."""
    others = set(legacy) - set(rest)

    def below(prefix: str, keys: Sequence[str]) -> list[Keep]:
        whole = Pattern(f"{prefix}**")
        touched = any(key.startswith(prefix) for key in others) or any(intersect(whole, one) for one in patterns)
        if not touched:
            return [Keep(whole.text)]
        groups: dict[str, list[str]] = {}
        for key in keys:
            groups.setdefault(key[len(prefix) :].partition(".")[0], []).append(key)
        made = []
        for head, of_head in groups.items():
            path = prefix + head
            made += [Keep(path)] if of_head == [path] else below(f"{path}.", [key for key in of_head if key != path])
        return made

    return below("", rest) if rest else []


def _aliases(rules: Rules, shared: Shared) -> tuple[Alias, ...]:
    """Return aliases by which calls of a module pair that one side shares among several places and the other does not."""
    own = {side: [list(paths) for paths in shared.get(side, ())] for side in (LEGACY, NEW)}
    aliases, taken = [], set()

    def together(paths: Sequence[str], groups: Sequence[Sequence[str]]) -> bool:
        return any(set(paths) <= set(group) for group in groups)

    for paths in own[LEGACY]:
        names = tuple(dict.fromkeys(name for path in paths if (name := rules.map_module(path)) is not None))
        if len(names) > 1 and not together(names, own[NEW]) and not taken & {paths[0], *names}:
            aliases.append(Alias(paths[0], names))
            taken |= {paths[0], *names}
    back = {rules.map_module(path): path for path in _paths(rules, own[NEW])}
    for paths in own[NEW]:
        olds = tuple(back[path] for path in paths if path in back)
        if len(olds) > 1 and not together(olds, own[LEGACY]) and not taken & {paths[0], *olds}:
            aliases.append(Alias(olds, paths[0]))
            taken |= {paths[0], *olds}
    return tuple(aliases)


def _paths(rules: Rules, groups: Iterable[Sequence[str]]) -> list[str]:
    """Return paths of the old side that may be those of the new side's shared modules."""
    turned = rules.inverse()
    return [path for paths in groups for name in paths if (path := turned.map_module(name)) is not None]
