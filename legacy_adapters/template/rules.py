"""How the weights of the old model are called in the new one, to read beside a listing of both state dicts.

A pattern is a key with wildcards: `*` is one part of a key, `**` is one part or more. Every key of the old model must be
taken by exactly one rule, and every key of the new one must come from exactly one: anything else ends in an error.
"""

from converters.rules.mapping import Keep, Rename

RULES = (
    Rename("conv1.*", "stem.conv.*"),
    Rename("bn1.*", "stem.norm.*"),
    Rename("layers.*.*", "blocks.*.*"),
    Keep("head.*"),
)
