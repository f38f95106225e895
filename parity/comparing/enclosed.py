"""Records within modules that one side computes in another way: what is compared in their place.

A port may compute what a module gives without the calls within, or with other ones. A family says so by exclusions with
``by``. They hold only where the module around those calls was compared, by its output and by the gradient of that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from converters.rules.mapping import Mapping as NameMapping
from legacy_adapters.correspondence import Exclusion
from legacy_adapters.ground.names import LEGACY, NEW
from legacy_adapters.recording.trace_writer import Record

from ..traces.kinds import OF_MODULES, OUTPUTS, Kind
from .pairing import Pair, Unpaired

#: Phase and path of a module, as the new side has it.
_Place = tuple[str, str]


def has_no_twin(one: Record, two: Record, exclusions: Iterable[Exclusion]) -> bool:
    """Tell of two records of one name whether they are of calls within a module that both sides compute otherwise.

    Args:
        one: of the legacy side.
        two: of the new side.
        exclusions: of the family.
    """
    if one.kind not in OF_MODULES:
        return False
    enclosed = [exclusion for exclusion in exclusions if exclusion.by]
    ours, theirs = (
        [exclusion for exclusion in enclosed if exclusion.covers(side, record)]
        for side, record in ((LEGACY, one), (NEW, two))
    )
    if not ours or not theirs:
        return False
    return one.shape != two.shape or (ours[0].apart and theirs[0].apart)


@dataclass(frozen=True)
class Enclosing:
    """Modules that were compared, as the new side names them.

    Attributes:
        outputs: of which an output was compared.
        gradients: of which the gradient of an output was compared.
        expected: that have a gradient of an output on the legacy side.
        mapping: gives names on the new side.
    """

    outputs: Collection[_Place]
    gradients: Collection[_Place]
    expected: Collection[_Place]
    mapping: NameMapping

    @classmethod
    def of(cls, pairs: Iterable[Pair], legacy: Iterable[Record], mapping: NameMapping) -> Enclosing:
        """Look at what was compared.

        Args:
            pairs: with a twin.
            legacy: all records of the legacy side.
            mapping: gives names on the new side.
        """
        seen: dict[str, set[_Place]] = {kind: set() for kind in OUTPUTS}
        for pair in pairs:
            if pair.new.kind in seen:
                seen[pair.new.kind].add((pair.new.phase, pair.new.name))
        expected = {
            (record.phase, mapping.map_module(record.name) or record.name)
            for record in legacy
            if record.kind == Kind.OUT_GRAD
        }
        return cls(seen[Kind.MODULE_OUT], seen[Kind.OUT_GRAD], expected, mapping)

    def confirmed(self, item: Unpaired) -> Unpaired:
        """Take the exclusion away from a record for which nothing was compared in its place."""
        exclusion = item.exclusion
        if exclusion is None or not exclusion.by or self._is_seen(item, exclusion.by):
            return item
        return replace(item, exclusion=None)

    def _is_seen(self, item: Unpaired, by: str) -> bool:
        place = item.record.phase, self._module(item, by)
        return place in self.outputs and (place in self.gradients or place not in self.expected)

    def _module(self, item: Unpaired, by: str) -> str:
        """Return the path of the module that is compared in the place of a record."""
        record = item.record
        name = record.name
        if item.side == LEGACY:
            name = self.mapping.map_module(name) or name
        parts = name.split(".")
        # an output is not seen in itself
        longest = len(parts) - (record.kind in OUTPUTS)
        around = (".".join(parts[:length]) for length in range(longest, 0, -1))
        return next((path for path in around if _fits(by, path)), by if by != name else "")


def _fits(pattern: str, path: str) -> bool:
    """Tell whether a path fits a pattern, in which ``*`` stands for one part of it, or for a piece of one."""
    patterns, parts = pattern.split("."), path.split(".")
    return len(patterns) == len(parts) and all(map(fnmatchcase, parts, patterns))
