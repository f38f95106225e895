"""Say more of a source that does not fit: what it was taken for, and what its strange keys have in common."""

from __future__ import annotations

from converters.errors import ConversionError, UnmappedKeyError, listed
from converters.options import Options
from converters.reading.checkpoint import Checkpoint
from converters.rules import engine
from converters.rules.detect import Detection


def with_variant(error: ConversionError, found: Detection, options: Options) -> ConversionError:
    """Say of a source that does not fit which variant it was taken for, if that was not said and there are others."""
    variants = [variant.name for variant in found.port.family.variants]
    if options.variant is not None or len(variants) == 1:
        return error
    return type(error)(
        f"{str(error).rstrip('.')} (the source was taken for variant `{found.variant}`, {found.side} side; if that is "
        f"wrong, pass --variant, one of {', '.join(variants)})."
    )


def with_prefix(error: ConversionError, loaded: Checkpoint, found: Detection) -> ConversionError:
    """Say of keys without a rule, where all others have a prefix, that this is what they lack."""
    prefix, mapping = loaded.wrapping.prefix, found.port.mapping
    rules = engine.rules_between(mapping, found.side, found.side)
    strays = [key for key in sorted(loaded.state_dict) if rules.match(key) is None]
    if not isinstance(error, UnmappedKeyError):
        return error
    before = _before(strays, rules)
    if before is not None:
        twice = sum(key.removeprefix(before) in loaded.state_dict for key in strays)
        way = (
            f"pass --prefix {before} to convert those alone, or --allow-unmapped to leave them out"
            if twice
            else "take it away where the file was made"
        )
        return UnmappedKeyError(
            f"{len(strays)} key(s) of the source begin with `{before}`, and the others do not"
            f"{f' ({twice} stand in it twice, with it and without)' if twice else ''}: {listed(strays)}; {way}."
        )
    if not prefix or any(key in loaded.wrapping.names for key in strays):
        return error
    return UnmappedKeyError(
        f"{len(strays)} key(s) of the source do not begin with `{prefix}`, as those of the model do: {listed(strays)}; "
        f"pass --prefix {prefix} to leave them out."
    )


def _before(strays: list[str], rules: engine.Rules) -> str | None:
    """Return what stands before the names of the model in all keys without a rule; None where it is no one thing."""
    first = strays[0] if strays else ""
    ends = [number + 1 for number, letter in enumerate(first) if letter == "."]
    begins = [first[:end] for end in ends if all(key.startswith(first[:end]) for key in strays)]
    fitting = (begin for begin in begins if all(rules.match(key.removeprefix(begin)) for key in strays))
    return next(fitting, None)
