"""Names that several packages must spell alike."""

from __future__ import annotations

#: Packages of this toolkit.
TOOLKIT = ("converters", "ddq_port", "legacy_adapters", "parity")
#: The two sides of a comparison, and the two layouts of a conversion.
LEGACY, NEW = "legacy", "new"
