"""Questions that running both models can answer: what is open in the same way in several blocks is one question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import permutations

from converters.rules.kinds import Keep, Rename, Rule
from converters.suggesting.links import Open
from converters.suggesting.numbers import named
from converters.suggesting.tensors import Side, common_module

_MOST = 4  # keys of each side whose orders are all tried


@dataclass(frozen=True)
class Choice:
    """A question.

    Attributes:
        opens: What it is about.
        options: The answers, each the rules of all that it is about.
    """

    opens: tuple[Open, ...]
    options: tuple[tuple[Rule, ...], ...]


def choices_of(opens: Iterable[Open], sides: tuple[Side, Side] | None = None) -> tuple[Choice, ...]:
    """Return the questions, those about the same modules of several blocks put together.

    With `sides`, whether single matrices are turned is one question for all that modules of one class hold.
    """
    together: dict[Hashable, list[tuple[Open, tuple[tuple[Rule, ...], ...]]]] = defaultdict(list)
    for number, item in enumerate(opens):
        name, options = _question(item)
        name = _kind(item, sides) or name
        if options:
            together[(name, len(options)) if name is not None else number].append((item, options))
    return tuple(
        Choice(
            tuple(item for item, _ in asked),
            tuple(
                tuple(rule for rules in answers for rule in rules)
                for answers in zip(*(options for _, options in asked))
            ),
        )
        for asked in together.values()
    )


def _question(item: Open) -> tuple[Hashable, tuple[tuple[Rule, ...], ...]]:
    """Return a name that the same question in other blocks has too, and the answers in an order that goes with it."""
    if item.options:
        kinds = tuple(tuple(rule.action for rule in option) for option in item.options)
        return (
            _pattern(_above(item.a)),
            _labels(item.a),
            _pattern(_above(item.b)),
            _labels(item.b),
            kinds,
        ), item.options
    if len(item.a) != len(item.b) or not 1 < len(item.a) <= _MOST:
        return None, ()
    one, other = (dict(zip(_labels(keys), keys)) for keys in (item.a, item.b))
    if len(one) < len(item.a) or len(other) < len(item.b):
        one, other = ({key: key for key in keys} for keys in (item.a, item.b))
    names = sorted(one)
    options = tuple(
        tuple(named(one[name], other[target]) for name, target in zip(names, order))
        for order in permutations(sorted(other))
    )
    return (_pattern(_above(item.a)), tuple(names), _pattern(_above(item.b)), tuple(sorted(other))), options


def _kind(item: Open, sides: tuple[Side, Side] | None) -> Hashable:
    """Return the classes of the modules that hold what may be turned, and the orders; None for any other question."""
    if sides is None or not item.options or any(len(option) > 1 for option in item.options):
        return None
    rules = [option[0] for option in item.options]
    is_turn = all(rule.sources == item.a and rule.targets == item.b and len(item.a) == 1 for rule in rules)
    kinds = [side.kinds.get(key) for side, keys in zip(sides, (item.a, item.b)) for key in keys]
    if not is_turn or None in kinds:
        return None
    return (*kinds, *(getattr(rule, "axes", None) or type(rule) in (Keep, Rename) for rule in rules))


def _above(keys: tuple[str, ...]) -> str:
    """Return the module that holds all keys; of one key, or of tensors of one module, that module."""
    return common_module(keys)


def _labels(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return what tells keys apart behind the module that holds them all; of weights and biases the same."""
    above = common_module(keys)
    rests = [key[len(above) + 1 if above else 0 :] for key in keys]
    return tuple(rest.partition(".")[0].replace("weight", "*").replace("bias", "*") for rest in rests)


def _pattern(path: str) -> str:
    return ".".join("*" if segment.isdecimal() else segment for segment in path.split("."))
