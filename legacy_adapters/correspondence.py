"""What a family says of records that its rules do not tell: what else is called otherwise, or laid out otherwise, or lone.

Plain data; imports the standard library only, as :mod:`.family` does, which has these names, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Dict, Optional, Tuple, Union

from .ground.names import LEGACY, NEW

#: What names are of that an :class:`Alias` gives.
MODULE, LOSS, TAP = "module", "loss", "tap"


@dataclass(frozen=True)
class Exclusion:
    """A kind of record that one side has and the other has no use for.

    A pair is always compared: an exclusion only accounts for records that have no twin. One with ``by`` is for a module
    that the other side computes in another way, without the calls within: these are then seen in what it gives.

    Attributes:
        side: ``legacy`` or ``new``.
        kind: glob of kinds.
        name: glob of names.
        slot: glob of slots.
        reason: for the report.
        zeros_only: exclude only what is zero or False everywhere.
        by: path of the module, as the new side names it, that is compared in their place; ``*`` stands for one part of
            a path. It is the innermost one that fits around such a record, or the one of this very path elsewhere. Its
            output must have been compared in the same phase, and the gradient of its output where the legacy side has
            one; else nothing is excluded. What has another shape on the two sides has no twin then.
        apart: with ``by``: such calls are on other things on the two sides, and never pair.
    """

    side: str
    kind: str
    name: str
    slot: str
    reason: str
    zeros_only: bool = False
    by: str = ""
    apart: bool = False

    def covers(self, side: str, record: Any) -> bool:
        """Tell whether a record of a side is of this kind."""
        return (
            side == self.side
            and fnmatchcase(record.kind, self.kind)
            and fnmatchcase(record.name, self.name)
            and fnmatchcase(record.slot, self.slot)
        )


@dataclass(frozen=True)
class Alias:
    """What is called otherwise on the new side, and holds no parameters by which the rules would tell it.

    An alias only says what pairs; pairs are compared like all others.

    Attributes:
        legacy: pattern of names on the legacy side: ``*`` is one part of a dotted name, ``**`` one part or more.
        new: pattern of the names on the new side, with the same wildcards.
        of: what the names are of: ``module``, ``loss`` (terms) or ``tap``. What a module holds goes with it. Of modules
            either side may have several patterns: the calls of all of them together pair, by what they are given and
            then by their order.
    """

    legacy: Union[str, Tuple[str, ...]]
    new: Union[str, Tuple[str, ...]]
    of: str = MODULE

    @property
    def patterns(self) -> Dict[str, Tuple[str, ...]]:
        """The patterns of each side."""
        return {
            side: (names,) if isinstance(names, str) else tuple(names)
            for side, names in ((LEGACY, self.legacy), (NEW, self.new))
        }


@dataclass(frozen=True)
class Padding:
    """Places of a batch that hold no image, where a model computes what nothing uses.

    What is computed there may be nothing but rounding. It is compared all the same; but under a derived tolerance rounding
    is measured by itself where there are images, and there alone it must be small enough to show an error.

    Attributes:
        name: glob of legacy modules whose tensors begin with the dimensions of the mask, in the new side's form.
        mask: glob of the legacy modules that are given the mask, True where there is no image.
        slot: glob of the mask's name among their arguments.
        reason: why nothing uses what is computed at such places.
    """

    name: str
    mask: str
    slot: str
    reason: str

    def covers(self, record: Any) -> bool:
        """Tell whether a record of the legacy side is of such a module."""
        return fnmatchcase(record.name, self.name)

    def tells(self, record: Any) -> bool:
        """Tell whether an argument on the legacy side is the mask."""
        return fnmatchcase(record.name, self.mask) and fnmatchcase(record.slot, self.slot)


@dataclass(frozen=True)
class Hint:
    """What a family knows of a difference or an error that comes from the two code bases themselves.

    It is told beside the first place where the sides part, or the error by which the new side ends, and changes no
    verdict. It fits a record by its name, or an error.

    Attributes:
        text: what it may be, and what to do; one or two sentences.
        name: glob of names of records of the new side; empty for none.
        kind: glob of their kinds.
        slot: glob of their slots.
        fewer: only where the new side's tensor has fewer elements.
        error: glob of the error's line; empty for none.
    """

    text: str
    name: str = ""
    kind: str = "*"
    slot: str = "*"
    fewer: bool = False
    error: str = ""

    def covers(self, record: Any) -> bool:
        """Tell whether a record of the new side has the names this hint is for."""
        named = bool(self.name) and fnmatchcase(record.name, self.name)
        return named and fnmatchcase(record.kind, self.kind) and fnmatchcase(record.slot, self.slot)

    def covers_error(self, line: str) -> bool:
        """Tell whether this hint is for an error."""
        return bool(self.error) and fnmatchcase(line, self.error)


@dataclass(frozen=True)
class Form:
    """What the legacy side records in another form than the new one: other dimensions first, or more of it.

    Such a record is brought to the new side's form and compared then. The report counts these records, and one of which
    a part is left out counts as excluded. The first form that fits a record decides; one that neither permutes nor
    selects leaves the record as it is.

    Attributes:
        name: glob of names on the legacy side, of modules and taps.
        slot: glob of slots.
        kind: glob of kinds.
        phase: glob of phases.
        scope: glob of the modules whose code was running, which tells the draws of one module from those of others.
        permute: which dimension of the legacy side each of the new side's is, as ``torch.permute`` has it; it fits
            tensors of as many dimensions only, and goes for the shape that a draw was asked for, too.
        select: ``(dim, index)`` for one element of a dimension, which is then gone, or ``(dim, start, stop)`` for
            some; after ``permute``. It fits tensors that have these elements only.
        reason: why the new side does without what a selection leaves out.
        call: number of the module's call in its phase, from 0, where one module is called in several forms; None for all.
    """

    name: str
    slot: str = "*"
    kind: str = "*"
    phase: str = "*"
    scope: str = "*"
    permute: Tuple[int, ...] = ()
    select: Tuple[int, ...] = ()
    reason: str = ""
    call: Optional[int] = None

    @property
    def text(self) -> str:
        """What is compared, in words."""
        parts = []
        if self.permute:
            parts.append("dimensions in the order {}".format(", ".join(map(str, self.permute))))
        if self.select:
            dim, first, *stop = self.select
            several = bool(stop) and stop[0] > first + 1
            which = "elements {} to {}".format(first, stop[0] - 1) if several else "element {}".format(first)
            parts.append("only {} of dimension {} ({})".format(which, dim, self.reason))
        return " and ".join(parts)

    def covers(self, record: Any) -> bool:
        """Tell whether a record of the legacy side has the names this form is for."""
        return (
            fnmatchcase(record.name, self.name)
            and fnmatchcase(record.slot, self.slot)
            and fnmatchcase(record.kind, self.kind)
            and fnmatchcase(record.phase, self.phase)
            and fnmatchcase(record.scope, self.scope)
            and self.call in (None, record.call)
        )
