"""The rules from the official layout of DDQ FCN to this toolkit's, which is the same.

To read beside a state_dict listing.
"""

from __future__ import annotations

from converters.rules.mapping import Keep

RULES = (
    Keep("backbone.**"),
    Keep("neck.0.**"),  # a list of one on both sides
    Keep("bbox_head.**"),
)
