"""Pair and compare two recordings, and account for what has no twin: what a verdict is then made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from converters.rules.mapping import Mapping as NameMapping
from legacy_adapters.ground.words import capital, sentence
from legacy_adapters.recording.trace_writer import Key, Record, zeros_digest
from legacy_adapters.tasks import probes

from ..comparing.compare import EXACT, Comparison, Tolerance, compare_all
from ..comparing.coverage import Coverage, cover, with_weights
from ..comparing.enclosed import Enclosing, has_no_twin
from ..comparing.evidence import Evidence, likeness_of
from ..comparing.pairing import LEGACY, NEW, Exclusion, Pairing, Unpaired, pair
from ..comparing.regrouped import changed_modules, is_turned, regroupings
from ..decisions.kinds import is_draw
from ..sides.stopped import Stop, judged_part, until_stop, without_rest
from ..traces.kinds import FLOW, OF_METHODS, OF_OPTIMIZERS, Kind
from ..traces.trace import Recording, Trace
from .blame import NotFinite
from .counterparts import Counterparts
from .draws import comparable, without
from .echoes import Known, excusable, explained
from .handing_on import with_givers
from .harmless import harmless, with_harmless
from .initial import drawn_alike


@dataclass(frozen=True)
class Case:
    """Two recordings, paired and compared.

    Attributes:
        legacy: what of the legacy side is judged.
        new: what of the new side is judged.
        orders: records of both sides that were paired, in recording order.
        comparisons: every pair.
        assumed: the same; what is harmless if all else of its phase matches is taken as such.
        coverage: what was left out.
        stop: why a side did not come to its end; None if both did.
        cut_off: missing gradients whose tensors need none on the new side.
        not_finite: results that are not finite on the new side alone, where that says anything.
        counterparts: what the modules of one side are on the other.
        excusable: side and key of records without a twin that would need none if all else were equal.
    """

    legacy: Recording
    new: Trace
    orders: tuple[Sequence[Record], Sequence[Record]]
    comparisons: tuple[Comparison, ...]
    assumed: tuple[Comparison, ...]
    coverage: Coverage
    stop: Stop | None
    cut_off: Sequence[Record]
    not_finite: Sequence[NotFinite]
    counterparts: Counterparts
    excusable: frozenset[tuple[str, Key]] = frozenset()

    @property
    def telling(self) -> list[Comparison]:
        """Return the pairs of what is computed; how methods pass values on is a side's own affair."""
        return [comparison for comparison in self.comparisons if comparison.pair.new.kind not in OF_METHODS]

    @property
    def rejected(self) -> int:
        return sum(not comparison.accepted for comparison in self.telling)

    def lone(self, side: str) -> list[Record]:
        """Return the records of one side that are unaccounted for."""
        return [item.record for item in self.coverage.unaccounted if item.side == side]

    @property
    def lone_options(self) -> bool:
        """Tell whether one side alone sets something of a training, or asks for something of a draw that both make."""
        drawn = {of.key[:4] for c in self.comparisons for of in (c.pair.legacy, c.pair.new) if of.kind == Kind.TAP}
        return any(
            (item.record.phase, Kind.TAP, item.record.name, item.record.call) in drawn
            if is_draw(item.record)
            else item.record.kind in OF_OPTIMIZERS
            and not (item.side == LEGACY and self.counterparts.is_dropped(item.record))
            for item in self.coverage.unaccounted
        )

    @property
    def stopped(self) -> tuple[str, ...]:
        return (capital(sentence(str(self.stop))),) if self.stop is not None else ()


def case_of(
    legacy: Recording,
    new: Trace,
    mapping: NameMapping,
    exclusions: tuple[Exclusion, ...],
    tolerance: Tolerance,
    evidence: Evidence | None,
    keys: Mapping[Key, Key] | None,
    known: dict[tuple, Comparison],
) -> Case:
    """Pair and compare what can be judged of two recordings.

    Arguments as of :func:`.verdict.judge`, the legacy side in the new side's form; ``known`` as of :func:`~parity.comparing.compare.compare_all`.
    """
    legacy = _as_probed(legacy, new)
    new, stop = judged_part(new, evidence.new_reference if evidence is not None else None)
    stop = Stop.of(legacy, LEGACY) or stop
    near = likeness_of(legacy, new, evidence)
    likeness = None if tolerance.name == EXACT else near
    ours, theirs = legacy.records, new.records
    if not comparable(legacy, new):
        ours, theirs = without(ours), without(theirs)
    regrouped, changed = regroupings(legacy, new, mapping), changed_modules(legacy, mapping)
    turned = (lambda one, two: False) if near is None else partial(is_turned, likeness=near)
    enclosed = partial(has_no_twin, exclusions=tuple(exclusion for exclusion in exclusions if exclusion.by))
    pairing = pair(ours, theirs, mapping, exclusions, likeness, keys, changed, turned, enclosed)
    if stop is not None:
        pairing = until_stop(pairing, new)
    compared = compare_all(legacy, new, pairing.pairs, tolerance, evidence, known)
    counterparts = Counterparts.of(legacy, new, mapping)
    comparisons = counterparts.with_own_scopes(drawn_alike(compared, legacy.coverage, new.coverage, mapping))
    comparisons = with_givers(comparisons, ours, theirs)
    lone = [item.record for item in pairing.unpaired if item.side == LEGACY]
    cut_off = {record.key for record in _cut_off(new, lone, pairing)}
    modules = {side: {path for one in regrouped for path in one.lone[side]} for side in (LEGACY, NEW)}
    modules[LEGACY] |= changed
    modules[NEW] |= {mapping.map_module(path) for path in changed}
    enclosing = Enclosing.of(pairing.pairs, ours, mapping)
    confirmed = [enclosing.confirmed(_confirmed(item)) for item in pairing.unpaired]
    weights = {side: with_weights(of) for side, of in ((LEGACY, legacy), (NEW, new))}
    # of a side that stopped, what uses the rest may not have come yet
    unused = {} if stop is not None else harmless(comparisons, legacy, new, tolerance, evidence, keys is not None)
    assumed = tuple(unused.get(id(comparison), comparison) for comparison in comparisons)
    known_of_both = Known(pairing.keys, cut_off, modules, new.coverage.get("parameters") or {}, weights)
    unpaired = explained(confirmed, assumed, known_of_both)
    is_equal = all(comparison.accepted for comparison in assumed)
    doubtful = frozenset() if is_equal else excusable(unpaired, assumed, known_of_both)
    compared = {pair.legacy.key for pair in pairing.pairs}
    coverage = cover(legacy, new, mapping, unpaired, regrouped, compared)
    if stop is not None:
        coverage = without_rest(coverage)
    comparisons = with_harmless(comparisons, unused, (item.record.phase for item in coverage.unaccounted))
    case = Case(legacy, new, (ours, theirs), comparisons, assumed, coverage, stop, (), (), counterparts, doubtful)
    not_finite = _not_finite(legacy, new, mapping) if case.rejected or stop is not None else ()
    return replace(case, cut_off=_cut_off(new, case.lone(LEGACY), pairing), not_finite=not_finite)


def _as_probed(legacy: Recording, new: Trace) -> Recording:
    """Leave out the legacy side's further calls of tapped functions, where the new side's adapter knows none."""
    if new.provenance.get("probed", True):
        return legacy
    return replace(legacy, records=tuple(record for record in legacy.records if record.phase != probes.PHASE))


def _confirmed(item: Unpaired) -> Unpaired:
    """Take the exclusion away from a record that is not all zero, where the exclusion asks for that."""
    record = item.record
    needs_zeros = item.exclusion is not None and item.exclusion.zeros_only
    if needs_zeros and record.digest != zeros_digest(record.dtype, record.shape):
        return replace(item, exclusion=None)
    return item


def _cut_off(new: Trace, missing: Sequence[Record], pairing: Pairing) -> list[Record]:
    """Return the missing gradients whose tensors need none on the new side, in the order in which these came up."""
    lost = {pairing.keys[record.key]: record for record in missing if record.kind in FLOW}
    return [lost[key] for key in map(tuple, new.coverage.get("cut_off", ())) if key in lost]


def _not_finite(legacy: Recording, new: Trace, mapping: NameMapping) -> list[NotFinite]:
    """Return the results that are not finite on the new side alone, of module calls that are not recorded."""
    ours = {
        (phase, mapping.map_module(name) or name, call, what)
        for phase, _, name, call, what in legacy.coverage.get("not_finite", ())
    }
    results = (NotFinite(*entry) for entry in new.coverage.get("not_finite", ()))
    return [one for one in results if (one.phase, one.name, one.call, one.what) not in ours]
