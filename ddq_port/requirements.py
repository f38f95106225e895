"""Whether the packages that the models need are installed, told before one of them fails to import.

mmcv comes in two forms, of which an installation has one; pip installs neither unless an extra asks for it.
"""

import importlib.util
import re
from pathlib import Path

from legacy_adapters.ground.names import TOOLKIT

#: What mmdet 3.3.0 accepts, from and below; it asserts this when it is imported.
_VERSIONS = {"mmcv": ("2.0.0", "2.2.0"), "mmengine": ("0.7.1", "1.0.0"), "mmdet": ("3.3.0", "3.4.0")}
_VERSION = re.compile(r"""^(?:__version__|version)\s*=\s*['"]([0-9][^'"]*)['"]""", re.MULTILINE)
_BOTH = "mmcv mmcv-lite"  # one folder is of both
_EXTRAS = "`pip install 'ddq-port[lite]'` (mmcv without compiled operators) or `pip install 'ddq-port[mmcv]'`"


class RequirementError(ImportError):
    """A package is missing, or of a version that does not fit; the message is one line."""


def check() -> None:
    """Refuse an installation in which mmdet cannot be imported.

    Nothing of the packages is executed: they are looked for, and their versions are read from their files.

    Raises:
        RequirementError: saying what to install.
    """
    for name, (least, below) in _VERSIONS.items():
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # of a finder, or of a module that was put in its place
            spec = None
        if spec is None or spec.origin is None:
            raise RequirementError(f"{name} is not installed; install it with {_EXTRAS}.", name=name)
        found = _version(Path(spec.origin).parent)
        if found is not None and not _numbers(least) <= _numbers(found) < _numbers(below):
            raise RequirementError(
                f"{name} {found} is installed; ddq-port needs {name} from {least} on and below {below}: run "
                f"`pip uninstall {_BOTH if name == 'mmcv' else name}`, then {_EXTRAS}.",
                name=name,
            )


def told(error: ImportError) -> str | None:
    """Say in a line that an installed package is missing or broken; None if the fault is in ddq-port."""
    if isinstance(error, RequirementError):
        return str(error)
    if (error.name or "").partition(".")[0] in TOOLKIT:
        return None
    return (
        f"Cannot import: {error}; is it installed here? What ddq-port needs is installed by {_EXTRAS}."
    )


def _version(folder: Path) -> str | None:
    """Return the version that a package's files state; None if they do not."""
    for file in ("version.py", "__init__.py"):
        try:
            stated = _VERSION.search((folder / file).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if stated is not None:
            return stated[1]
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
