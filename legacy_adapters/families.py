"""The legacy code bases that can be run: where their adapter is, which config makes which variant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple

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
    """

    name: str
    adapter: Path
    configs: Dict[str, str]
    repo_files: Tuple[str, ...] = ()
    repo_hint: str = ""

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
        repo_files=("projects/models/ddq_detr.py", "mmdet/__init__.py", "mmengine/__init__.py", "mmcv-2.0.0rc4/mmcv"),
        repo_hint="a checkout of github.com/jshilong/DDQ, branch ddq_detr",
    ),
    "mmdet_ddq": LegacyFamily(
        name="mmdet_ddq",
        adapter=_ADAPTERS / "mmdet_ddq.py",
        configs={variant: f"ddq/{name}" for variant, name in _DDQ_DETR_CONFIGS.items()},
    ),
}


def names() -> Tuple[str, ...]:
    """Return the names of all families."""
    return tuple(_FAMILIES)


def get(name: str) -> LegacyFamily:
    """Return the family ``name``; KeyError if there is none."""
    return _FAMILIES[name]
