"""How large is what a layer computes: the measure of a record of that layer which is nothing but rounding.

What cancels to zero has no size of its own by which its rounding could be judged, and the legacy code's own runs need
not show how much there is: a port that sums in another order leaves another rest. The rest grows with what was summed,
and that is about as large as what else the layer computes: of the bias of the keys it is the gradient of their weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from legacy_adapters.recording.trace_writer import Record

from ..traces.kinds import FLOW, Kind, Subject
from .derived import only_rounding
from .evidence import Evidence, norms
from .pairing import Pair

#: Kinds whose records have one size within a layer: values, the gradients that flow, those of parameters.
_ALIKE = (frozenset((Kind.MODULE_IN, Kind.MODULE_OUT)), FLOW, frozenset((Kind.GRAD,)))


class Layers:
    """The sizes of what the layers of a model compute, measured when they are asked for.

    Args:
        pairs: of all records.
        evidence: has their values.

    Attributes:
        asked: how often a size was asked for.
    """

    def __init__(self, pairs: Iterable[Pair], evidence: Evidence) -> None:
        self.asked = 0
        self._evidence = evidence
        self._pairs: dict[tuple[str, frozenset[Kind]], list[tuple[str, Pair]]] = defaultdict(list)
        self._sizes: dict[Pair, float] = {}
        for pair in pairs:
            kinds = _alike(pair.new)
            if kinds is not None and pair.new.is_float and pair.legacy.is_float:
                self._pairs[pair.new.phase, kinds].append((_module(pair.new), pair))

    def size(self, record: Record) -> float:
        """Return the largest value of a record's like in its layer, in float64; 0 if there is none in the whole model.

        The layer is the innermost module around the record that has one of more than rounding.

        Args:
            record: of the new side; a gradient for what follows from one.
        """
        self.asked += 1
        kinds = _alike(record)
        path, candidates = _module(record), [] if kinds is None else self._pairs.get((record.phase, kinds), [])
        while candidates:
            inside = (pair for module, pair in candidates if not path or f"{module}.".startswith(f"{path}."))
            largest = max(map(self._size, inside), default=0.0)
            if largest or not path:
                return largest
            path = path.rpartition(".")[0]
        return 0.0

    def _size(self, pair: Pair) -> float:
        if pair not in self._sizes:
            sample = self._evidence.sample(pair)
            is_real = sample is not None and not only_rounding(sample)
            self._sizes[pair] = norms(sample.reference).max if is_real else 0.0
        return self._sizes[pair]


def _alike(record: Record) -> frozenset[Kind] | None:
    return next((kinds for kinds in _ALIKE if record.kind in kinds), None)


def _module(record: Record) -> str:
    is_parameter = Kind(record.kind).subject is Subject.PARAMETER
    return record.name.rpartition(".")[0] if is_parameter else record.name
