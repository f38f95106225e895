"""What family `mmdet2` knows of configs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from converters.configs.differing import Gap, count, gaps
from converters.configs.kinds import ABSENT, Comparison, Context, Difference, Remark, Translation

from . import whole
from .canonical import COMPARED, aside, canonical
from .effects import effect, group, place
from .implied import implied
from .reading import read
from .toolkit import REQUIRED, known, parameters


class MMDet2Migration:
    """Carry configs of MMDetection 2.x over, and compare them with configs of 3.x."""

    def translate(self, old: str) -> Translation:
        """Carry a config over and note what 3.x does not take.

        Raises:
            FamilyError: if it cannot be read, or is none of 2.x.
        """
        return translated(read(old, "2.x"))

    def compare(self, old: str, new: str) -> Comparison:
        """Compare two configs by what they mean.

        Raises:
            FamilyError: if one cannot be read, or is for the other version.
        """
        return compared(read(old, "2.x"), read(new, "3.x"))

    def vet(self, config: str) -> tuple[str, ...]:
        """Read a config with mmengine and build its model; say what is wrong."""
        from legacy_adapters.mmdet3 import build_from

        known("model", "")
        try:
            from mmengine.config import Config

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of mmdet about its own names
                build_from(Config.fromfile(os.path.abspath(config)))
        except Exception as error:  # whatever a class raises
            return (f"{type(error).__name__}: {' '.join(str(error).split())}",)
        return ()


def translated(old: Mapping[str, Any]) -> Translation:
    """Return a config of 2.x, as plain data, in the words of 3.x, with a remark for all that 3.x does not take."""
    made = whole.translate(old)
    return Translation(made.config, made.origins, (*made.remarks, *_strange(made.config, made)))


def compared(raw: Mapping[str, Any], theirs: Mapping[str, Any]) -> Comparison:
    """Return what a config of 2.x and one of 3.x, both plain data, differ in."""
    made = translated(raw)
    mine, other = canonical(made.config), canonical(theirs)
    found = [_difference(gap, made, raw) for gap in gaps(mine, other, Context(_defaults, implied))]
    skipped = aside(theirs)
    own = tuple(name for name in theirs if name not in (*skipped, *COMPARED))
    remarks = list(made.remarks)
    if own:
        remarks.append(
            Remark(", ".join(own), ABSENT, "variables of the new file, which mmdet 3.x does not read itself")
        )
    if skipped:
        why = "not compared; of these only seeds, kernels and `tta_model` (a test with --tta) could change a result"
        remarks.append(Remark(", ".join(skipped), ABSENT, why))
    found.sort(key=lambda one: place(one.group))
    return Comparison(tuple(_merged(found)), tuple(remarks), count(mine))


def _defaults(path: str, kind: str) -> dict[str, Any]:
    """Return what a class of 3.x takes for what a config does not say."""
    found = known(path, kind)
    if found is None:
        return {}
    usual = parameters(found)[0]
    return {name: _as_config(value) for name, value in usual.items() if value is not REQUIRED}


def _as_config(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_config(item) for key, item in value.items()}
    return [_as_config(item) for item in value] if isinstance(value, (list, tuple)) else value


def _difference(gap: Gap, made: Translation, raw: Mapping[str, Any]) -> Difference:
    origin, written = _there(made.origin(gap.path), raw)
    told = effect(gap.path, gap.old.value, gap.new.value)
    return Difference(gap.path, origin, gap.old, gap.new, told, group(gap.path), written=written)


def _there(path: str, raw: Any) -> tuple[str, Any]:
    """Return as much of a path as there is in a config, and the value if all of it is and holds no others."""
    words = path.split(".") if path else []
    there: list[str] = []
    for word in words:
        if isinstance(raw, Mapping) and word in raw:
            raw = raw[word]
        elif isinstance(raw, (list, tuple)) and word.isdigit() and int(word) < len(raw):
            raw = raw[int(word)]
        else:
            break
        there.append(word)
    is_value = words and len(there) == len(words) and not isinstance(raw, (Mapping, list, tuple))
    return ".".join(there), raw if is_value else ABSENT


def _merged(found: list[Difference]) -> Iterator[Difference]:
    """Tell once what the validation and the test have both."""

    def same(one: Difference, part: str) -> tuple[str, str, str] | None:
        return (one.key[len(part) :], str(one.old), str(one.new)) if one.key.startswith(part) else None

    of_test, of_validation = ({same(one, part) for one in found} - {None} for part in ("test", "val"))
    for one in found:
        if same(one, "val") in of_test:
            continue
        if same(one, "test") in of_validation:
            one = replace(one, also=("val" + one.key[len("test") :],))
        yield one


def _strange(value: Any, made: Translation, path: str = "") -> Iterator[Remark]:
    """Note classes that 3.x does not have, and settings that a class of it does not take."""
    if isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _strange(item, made, f"{path}.{number}")
        return
    if not isinstance(value, Mapping):
        return
    kind = value.get("type")
    top = path.partition(".")[0]
    if kind == "Albu":
        return  # what it holds is of another library
    if isinstance(kind, str) and top in COMPARED:
        found = known(path, kind)
        if found is None and kind.rpartition(".")[2][:1].isupper():  # others are words that a class itself understands
            yield Remark(
                made.origin(f"{path}.type"),
                kind,
                "MMDetection 3.3.0 has no class of that name; import yours with `custom_imports`",
            )
        elif found is not None:
            takes, more = parameters(found)
            for name in () if more else value:
                if (
                    name != "type"
                    and name not in takes
                    and name not in implied(path)
                    and not _is_handed_on(path, kind, name)
                ):
                    yield Remark(made.origin(f"{path}.{name}"), value[name], f"`{kind}` of 3.3.0 takes no `{name}`")
    for key, item in value.items():
        yield from _strange(item, made, f"{path}.{key}" if path else str(key))


def _is_handed_on(path: str, kind: str, name: str) -> bool:
    """Tell whether somebody else takes a setting out of the dict before the class is made of it."""
    return (
        path.endswith(("norm_cfg", "act_cfg", "conv_cfg", "upsample_cfg", "nms", "roi_layer", "plugins.cfg"))
        or name == "init_cfg"
    )


MIGRATION = MMDet2Migration()
