"""What a comparison can come to, and the exit codes that tell it."""

from __future__ import annotations

MATCH, MISMATCH, INCOMPARABLE = "MATCH", "MISMATCH", "INCOMPARABLE"
EXIT_CODES = {MATCH: 0, MISMATCH: 1, INCOMPARABLE: 3}
