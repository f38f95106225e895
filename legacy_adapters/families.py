"""The legacy code bases that can be run: where their adapter is, which config makes which variant."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from . import originals

_ADAPTERS = Path(__file__).with_name("adapters")


class RepoError(Exception):
    """A path is not the checkout that an adapter needs; the message is one line."""


@dataclass(frozen=True)
class LegacyFamily:
    """How to run one legacy code base.

    Attributes:
        name: of the family.
        adapter: file of the adapter.
        configs: variant -> config the adapter builds it from.
        repo_files: files a checkout must have, in the order they are looked for; empty if none is needed.
        repo_hint: what to check out.
        code: folders of a checkout whose Python files tell its commit.
        commits: known commits by the fingerprint of that code, for checkouts without git's own folder.
        packages: of a family that is installed with pip, the packages that its code is in.
    """

    name: str
    adapter: Path
    configs: Dict[str, str]
    repo_files: Tuple[str, ...] = ()
    repo_hint: str = ""
    code: Tuple[str, ...] = ()
    commits: Dict[str, str] = field(default_factory=dict)
    packages: Tuple[str, ...] = ()

    @property
    def needs_repo(self) -> bool:
        return bool(self.repo_files)

    def check_repo(self, repo: Optional[Path]) -> None:
        """Refuse a path that is not a checkout of this code base.

        Raises:
            RepoError: naming what is missing.
        """
        if not self.needs_repo:
            if repo is not None:
                raise RepoError(f"Family {self.name} is installed with pip; leave --legacy-repo out.")
            return
        if repo is None:
            raise RepoError(f"Family {self.name} needs --legacy-repo: {self.repo_hint}.")
        if not repo.is_dir():
            raise RepoError(f"The legacy repo {repo} is not a folder; expected {self.repo_hint}.")
        for name in self.repo_files:
            if not (repo / name).exists():
                raise RepoError(f"The legacy repo {repo} has no {name}; expected {self.repo_hint}.")

    def check_known(self, repo: Optional[Path], python: Optional[str]) -> None:
        """Refuse code that is not as it was published.

        Args:
            repo: checkout, for a family that needs one.
            python: interpreter whose packages are looked at; None for the current one.

        Raises:
            RepoError: naming what is not.
        """
        if repo is not None:
            found = originals.fingerprint(str(repo), self.code)
            if found not in self.commits:
                known = ", ".join(self.commits.values())
                raise RepoError(
                    f"The legacy repo {repo} is of no known commit (its code is {found[:12]}...); expected {known} of "
                    f"{self.repo_hint}, or leave --require-known-commit out."
                )
        elif changed := self._altered(python):
            first = next((files[0] for files in changed.values() if files), None)
            if first is None:
                raise RepoError(
                    f"Of {', '.join(changed)} no record tells how its files were published; install it from a wheel, or "
                    "leave --require-known-commit out."
                )
            count = sum(map(len, changed.values()))
            files = "1 file is not as it was" if count == 1 else "{} files are not as they were".format(count)
            raise RepoError(
                f"Installed {', '.join(changed)}: {files} published, the first is {first}; install anew, or leave "
                "--require-known-commit out."
            )

    def _altered(self, python: Optional[str]) -> Dict[str, List[str]]:
        if python is None:
            return originals.altered(self.packages)
        command = [python, originals.__file__, *self.packages]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if asked.returncode:
            raise RepoError(f"{python} does not say which files its packages were installed with: {asked.stderr!r:.200}")
        return json.loads(asked.stdout)


MMCV_FOLDER = "mmcv-2.0.0rc4"
_DDQ_DETR_CONFIGS = {
    "r50_4scale": "ddq-detr-4scale_r50_8xb2-12e_coco.py",
    "r50_5scale": "ddq-detr-5scale_r50_8xb2-12e_coco.py",
    "swinl_4scale": "ddq-detr-4scale_swinl_8xb2-30e_coco.py",
    "tiny_4scale": "ddq-detr-4scale_r50_8xb2-12e_coco.py",
    "tiny_5scale": "ddq-detr-5scale_r50_8xb2-12e_coco.py",
    "tiny_swinl": "ddq-detr-4scale_swinl_8xb2-30e_coco.py",
    "tiny_r18": "ddq-detr-4scale_r50_8xb2-12e_coco.py",
    "tiny_1class": "ddq-detr-4scale_r50_8xb2-12e_coco.py",
}
_FAMILIES = {
    "ddq_detr": LegacyFamily(
        name="ddq_detr",
        adapter=_ADAPTERS / "ddq_detr.py",
        configs={variant: f"projects/configs/ddq_detr/{name}" for variant, name in _DDQ_DETR_CONFIGS.items()},
        repo_files=("projects/models/ddq_detr.py", "mmdet/__init__.py", "mmengine/__init__.py", f"{MMCV_FOLDER}/mmcv"),
        repo_hint="a checkout of github.com/jshilong/DDQ, branch ddq_detr",
        code=("projects", "mmdet", "mmengine", f"{MMCV_FOLDER}/mmcv"),
        commits={"1017f9d84b89d08c90b8b73e7a54ebb6177fb16afb23d90a57b4f46eedb87237": "80c7d5f"},
    ),
    "mmdet_ddq": LegacyFamily(
        name="mmdet_ddq",
        adapter=_ADAPTERS / "mmdet_ddq.py",
        configs={variant: f"ddq/{name}" for variant, name in _DDQ_DETR_CONFIGS.items()},
        packages=("mmdet", "mmcv", "mmengine"),
    ),
}


def names() -> Tuple[str, ...]:
    """Return the names of all families."""
    return tuple(_FAMILIES)


def get(name: str) -> LegacyFamily:
    """Return the family ``name``; KeyError if there is none."""
    return _FAMILIES[name]
