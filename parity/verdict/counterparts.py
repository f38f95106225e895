"""What the modules of one side are on the other, for messages that name places of the new side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from converters.rules.mapping import Mapping
from legacy_adapters.recording.trace_writer import Record

from ..comparing.compare import Comparison
from ..comparing.converted import own_names, twin_name
from ..traces.kinds import OF_MODULES, OF_PARAMETERS, Kind
from ..traces.trace import Recording


@dataclass(frozen=True)
class Counterparts:
    """The modules of both sides, as far as they were recorded.

    Attributes:
        mapping: gives what is the legacy side's its name on the new side.
        new: paths of the new side's modules; empty if they are not known.
        of_legacy: what the legacy side's modules are called on the new side, whether or not they are there.
        callers: by phase, module and number of a call on the new side the module whose code makes it.
    """

    mapping: Mapping
    new: frozenset[str]
    of_legacy: frozenset[str]
    callers: dict[tuple[str, str, int], str] = field(default_factory=dict)

    @classmethod
    def of(cls, legacy: Recording, new: Recording, mapping: Mapping) -> Counterparts:
        """Read the modules of two recordings."""
        ours, theirs = (recording.coverage.get("classes", {}) for recording in (legacy, new))
        names = (mapping.map_module(path) for path in ours)
        of_legacy = frozenset(name for name in names if name is not None)
        callers = {(r.phase, r.name, r.call): r.scope for r in new.records if r.kind == Kind.MODULE_IN}
        return cls(mapping, frozenset(theirs), of_legacy, callers)

    def of_module(self, path: str) -> str | None:
        """Return what a module of the legacy side is on the new side; None if it is not there."""
        name = self.mapping.map_module(path)
        return name if not name or not self.new or name in self.new else None

    def is_of_both(self, path: str) -> bool:
        """Tell whether a module of the new side is there on the legacy side, as far as that is known."""
        return not self.of_legacy or path in self.of_legacy

    def around(self, path: str) -> str:
        """Return the innermost module around ``path`` of the legacy side that is there on the new side, or itself."""
        while (name := self.of_module(path)) is None:
            path = path.rpartition(".")[0]
        return name

    def renamed(self, record: Record) -> Record:
        """Return a record of the legacy side with the new side's names, as far as there are such.

        Its caller is the new side's own where code is divided otherwise there.
        """
        name, scope = record.name, self.around(record.scope)
        if record.kind in OF_MODULES:
            name = self.of_module(name) or name
            own = self.callers.get((record.phase, name, record.call), scope)
            scope = scope if not self.new or {scope, own} <= self._of_both else own
        elif record.kind in OF_PARAMETERS:
            name = twin_name(record, self.mapping) or name
        return replace(record, name=name, scope=scope)

    @property
    def _of_both(self) -> frozenset[str]:
        return (self.new & self.of_legacy) | {""}

    def is_lone(self, record: Record) -> bool:
        """Tell whether a record of the legacy side is of a module that is not there on the new side."""
        return record.kind in OF_MODULES and self.of_module(record.name) is None

    def is_dropped(self, record: Record) -> bool:
        """Tell whether a record of the legacy side is of a parameter or a module that the rules drop."""
        if record.kind in OF_PARAMETERS:
            return not any(self.mapping.targets_of(name) for name in own_names(record.name))
        return any(map(self.mapping.drops_module, (record.scope, *((record.name,) * (record.kind in OF_MODULES)))))

    def with_own_scopes(self, comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
        """Take callers for each other of which one is not there on the other side: code is divided otherwise there."""
        if not self.new or not self.of_legacy:
            return tuple(comparisons)
        both = self._of_both

        def with_own_scope(comparison: Comparison) -> Comparison:
            pair = comparison.pair
            if pair.scope == pair.new.scope or {pair.scope, pair.new.scope} <= both:
                return comparison
            return replace(comparison, pair=replace(pair, scope=pair.new.scope))

        return tuple(map(with_own_scope, comparisons))
