"""What a mistake of a migration is: what somebody changes by accident who carries a detector from 2.x to 3.x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Where it shows: in one forward and backward pass, in steps of a training, from image files on.
PASS, STEPS, IMAGES = "pass", "steps", "images"
#: What it must end in; what only one side trains is not comparable.
MISMATCH, INCOMPARABLE, REFUSED = "MISMATCH", "INCOMPARABLE", "REFUSED"
#: Environment variable that tells ``adapter.py`` which mistake to make.
VARIABLE = "DDQ_MISTAKE"


@dataclass(frozen=True)
class Mistake:
    """A mistake that is made on purpose, on the new side.

    Attributes:
        name: of this mistake; unique.
        detector: variant of family ``mmdet2``.
        where: what must be named: the module that the changed setting belongs to, the optimizer, the key of a weight.
        says: what the sentence that names it must hold besides.
        change: changes the new side's config, in place.
        adapt: changes the adapter instead, in place.
        setting: where it shows.
        outcome: what it must end in.
    """

    name: str
    detector: str
    where: str
    change: Callable[[Any], None] | None = None
    says: str = ""
    adapt: Callable[[Any], None] | None = None
    setting: str = PASS
    outcome: str = MISMATCH


def setting(path: str, value: Any) -> Callable[[Any], None]:
    """Return what sets one value of a config, at a dotted path of keys and indices."""

    def change(config: Any) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        holder = config
        for part in parents:
            holder = holder[part]
        holder[last] = value

    return change
