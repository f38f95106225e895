"""What a family says of records beside the rules: names of what has no key, and other forms of what is computed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import combinations

from converters.errors import MappingError
from converters.rules.pattern import Pattern, intersect
from legacy_adapters.correspondence import LOSS, MODULE, TAP, Alias, Form, Hint, Padding
from legacy_adapters.family import SIDES
from legacy_adapters.ground.names import LEGACY, NEW


class Aliases:
    """The aliases of a model, checked.

    Args:
        aliases: of a family, see :class:`legacy_adapters.family.Alias`.

    Raises:
        MappingError: If a pattern is malformed, wildcards differ, or two aliases of one thing overlap.
    """

    def __init__(self, aliases: Sequence[Alias]) -> None:
        for index, alias in enumerate(aliases):
            fault = _fault_of(alias)
            if fault is not None:
                raise MappingError(f"Alias {index} {fault}.")
        self._patterns = [
            (alias, {side: tuple(map(Pattern, texts)) for side, texts in alias.patterns.items()}) for alias in aliases
        ]
        self._check_overlaps()
        self._joined: dict[tuple[str, str], str] = {}

    def new_name(self, of: str, name: str) -> str | None:
        """Return the new side's name for one of the legacy side's, the first if it has several; None without an alias.

        Args:
            of: what the name is of, as in :attr:`Alias.of`.
            name: on the legacy side.
        """
        for alias, patterns in self._patterns:
            if alias.of == of:
                for pattern in patterns[LEGACY]:
                    bindings = pattern.match(name)
                    if bindings is not None:
                        return patterns[NEW][0].fill(bindings)
        return None

    def joined(self, side: str, path: str) -> str:
        """Return the path of the first of the modules of a side whose calls pair together; the path itself of others."""
        if not self._joins:
            return path
        if (side, path) not in self._joined:
            self._joined[side, path] = self._join(side, path)
        return self._joined[side, path]

    def joins(self, side: str, path: str) -> bool:
        """Tell whether calls of this module of a side pair together with those of others of the same side."""
        heads = path.split(".")
        above = (".".join(heads[:length]) for length in range(1, len(heads) + 1))
        return any(
            pattern.match(head) is not None
            for head in above
            for patterns in self._joins
            if len(patterns[side]) > 1
            for pattern in patterns[side]
        )

    @cached_property
    def _joins(self) -> list[dict[str, tuple[Pattern, ...]]]:
        """The patterns of aliases with several names of a side."""
        return [patterns for _, patterns in self._patterns if sum(map(len, patterns.values())) > len(SIDES)]

    def _join(self, side: str, path: str) -> str:
        for patterns in self._joins:
            for pattern in patterns[side]:
                bindings = pattern.match(path)
                if bindings is not None:
                    return patterns[side][0].fill(bindings)
        parent, _, name = path.rpartition(".")
        return f"{self.joined(side, parent)}.{name}" if parent else path

    def _check_overlaps(self) -> None:
        for side in SIDES:
            entries = [
                (index, alias.of, pattern)
                for index, (alias, patterns) in enumerate(self._patterns)
                for pattern in patterns[side]
            ]
            for (i, one, first), (j, two, second) in combinations(entries, 2):
                if one == two and intersect(first, second):
                    raise MappingError(
                        f"Aliases {i} and {j} overlap: their {side} names `{first.text}` and `{second.text}` have "
                        f"{one} names in common."
                    )


def _fault_of(alias: Alias) -> str | None:
    """Say what is wrong with an alias by itself, as the rest of a sentence; None if it is sound."""
    if not isinstance(alias, Alias):
        return f"is {alias!r:.60}, expected a legacy_adapters.family.Alias"
    if alias.of not in (MODULE, LOSS, TAP):
        return f"is of {alias.of!r}, expected {MODULE}, {LOSS} or {TAP}"
    texts = [text for side in SIDES for text in alias.patterns[side]]
    if not all(alias.patterns.values()):
        return "has no name on one side"
    if len(texts) > len(SIDES) and alias.of != MODULE:
        return f"has several names on a side, which only modules may have; give one {alias.of} alias for each"
    for text in texts:
        problem = Pattern(text).problem
        if problem is not None:
            return f"has a name that cannot be used: `{text}` {problem}"
        if Pattern(text).wildcards != Pattern(texts[0]).wildcards:
            return f"has other wildcards in `{texts[0]}` than in `{text}`"
    return None


def checked_forms(forms: Sequence[Form]) -> None:
    """Refuse a form that cannot be used.

    Raises:
        MappingError: Saying what is wrong with the first.
    """
    for index, form in enumerate(forms):
        fault = _fault_of_form(form)
        if fault is not None:
            raise MappingError(f"Form {index} {fault}.")


def checked_paddings(paddings: Sequence[Padding]) -> None:
    """Refuse a padding that cannot be used.

    Raises:
        MappingError: Saying what is wrong with the first.
    """
    for index, padding in enumerate(paddings):
        if not isinstance(padding, Padding):
            raise MappingError(f"Padding {index} is {padding!r:.60}, expected a legacy_adapters.family.Padding.")
        if not padding.reason.strip():
            raise MappingError(f"Padding {index} of `{padding.name}` has no reason; write why nothing uses what is there.")


def checked_hints(hints: Sequence[Hint]) -> None:
    """Refuse a hint that cannot be used.

    Raises:
        MappingError: Saying what is wrong with the first.
    """
    for index, hint in enumerate(hints):
        if not isinstance(hint, Hint):
            raise MappingError(f"Hint {index} is {hint!r:.60}, expected a legacy_adapters.family.Hint.")
        if not hint.text.strip() or not (hint.name or hint.error):
            raise MappingError(f"Hint {index} has no text, or neither a name nor an error that it is for.")


def _fault_of_form(form: Form) -> str | None:
    if not isinstance(form, Form):
        return f"is {form!r:.60}, expected a legacy_adapters.family.Form"
    if sorted(form.permute) != list(range(len(form.permute))):
        return f"permutes {form.permute}, expected every dimension from 0 on once"
    if form.select and (len(form.select) not in (2, 3) or min(form.select) < 0):
        return f"selects {form.select}, expected (dim, index) or (dim, start, stop), whole numbers from 0 on"
    if len(form.select) == 3 and form.select[1] >= form.select[2]:
        return f"selects {form.select}, which is nothing; expected a stop behind the start"
    if form.select and not form.reason.strip():
        return f"leaves out a part of `{form.name}` without a reason; write one"
    return None
