"""Refuse a model whose packages are not installed, before anything of it is imported or made. Imports no torch."""

from __future__ import annotations

from ddq_port import requirements
from legacy_adapters.family import Family

from .settings import Sources


def check_packages(family: Family, sources: Sources) -> None:
    """Refuse a family that needs packages which this interpreter lacks, see :class:`legacy_adapters.family.Side`.

    A side that has an interpreter of its own is not looked at, and of an adapter of one's own nothing is known: what
    such a one lacks is told when it is imported.

    Raises:
        ddq_port.requirements.RequirementError: saying what to install.
    """
    legacy = () if sources.legacy_python else family.legacy.needs
    requirements.check(dict.fromkeys((*sources.new_side(family).needs, *legacy)))
