"""Names that traces of scripts have: of their one phase, and of what was done in it. Imports nothing."""

from __future__ import annotations

#: The phase of everything that a block records.
PHASE = "script"
#: What a block did, as the checks of a run are named: called the model, and went backward.
CALL, BACKWARD = "call", "backward"
#: The loss term that stands for what a block goes backward from.
BACKWARD_LOSS = "backward"
