"""The rules from the official layout of DDQ R-CNN to this toolkit's, which is the same.

To read beside a state_dict listing.
"""

from __future__ import annotations

from converters.rules.mapping import Keep

RULES = (
    Keep("backbone.**"),
    Keep("neck.**"),
    Keep("rpn_head.**"),
    Keep("roi_head.bbox_head.**"),
)
