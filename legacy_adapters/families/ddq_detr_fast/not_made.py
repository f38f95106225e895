"""What the fast numerics do not make, or make of other things, and what is compared in its place."""

from __future__ import annotations

NOT_MADE = ()
