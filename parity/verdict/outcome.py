"""What a comparison can come to, and the exit codes that tell it."""

from __future__ import annotations

MATCH, MISMATCH, INCOMPARABLE = "MATCH", "MISMATCH", "INCOMPARABLE"
#: What both sides must have alike of a machine before their bits can be compared.
CONDITIONS = ("threads", "cpu_capability", "device", "gpu", "torch")
EXIT_CODES = {MATCH: 0, MISMATCH: 1, INCOMPARABLE: 3}
