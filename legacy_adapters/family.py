"""What a family is: a legacy code base, the models of it that are carried over, and how both sides of one are run.

Plain data. Imports the standard library only: the command lines read it before they load anything heavy, and adapters of
old code bases read their checkout's description with the interpreter of that code base.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .correspondence import Alias, Exclusion, Form, Hint, Padding
from .ground.names import LEGACY, NEW
from .provenance import originals

SIDES = (LEGACY, NEW)
#: How a model initialises the rows of a tensor that has some per class; ``converters.carrying.classes`` knows each.
LINEAR, PRIOR, NORMAL, ZERO = "linear", "prior", "normal", "zero"
NORMAL_001, NORMAL_0001 = "normal, 0.01", "normal, 0.001"


class FamilyError(Exception):
    """A family cannot be used, or there is none of that name; the message is one line."""


class RepoError(Exception):
    """A path is not the checkout that a family needs; the message is one line."""


@dataclass(frozen=True)
class Checkout:
    """A code base that is run from a checkout.

    Attributes:
        files: that a checkout must have, in the order they are looked for.
        hint: what to check out.
        code: folders of a checkout whose Python files tell its commit.
        commits: known commits by the fingerprint of that code, for checkouts without git's own folder.
        or_installed: the code base may be installed in the interpreter of ``--legacy-python`` instead.
    """

    files: Tuple[str, ...]
    hint: str
    code: Tuple[str, ...] = ()
    commits: Mapping[str, str] = field(default_factory=dict)
    or_installed: bool = False

    def check(self, repo: Path) -> None:
        """Refuse a path that is not a checkout of this code base.

        Raises:
            RepoError: naming what is missing.
        """
        if not repo.is_dir():
            raise RepoError(f"The legacy repo {repo} is not a folder; expected {self.hint}.")
        for name in self.files:
            if not (repo / name).exists():
                raise RepoError(f"The legacy repo {repo} has no {name}; expected {self.hint}.")

    def check_known(self, repo: Path) -> None:
        """Refuse a checkout of no known commit.

        Raises:
            RepoError: naming those that are known.
        """
        fingerprint = originals.fingerprint(str(repo), self.code)
        if fingerprint not in self.commits:
            known = ", ".join(self.commits.values())
            raise RepoError(
                f"The legacy repo {repo} is of no known commit (its code is {fingerprint[:12]}...); expected {known} of "
                f"{self.hint}, or leave --require-known-commit out."
            )

    def commit(self, fingerprint: str) -> str:
        """Return the commit of code by its fingerprint."""
        return self.commits.get(fingerprint, originals.UNKNOWN)


@dataclass(frozen=True)
class Side:
    """How one side of a family is run.

    Attributes:
        title: what its code base is called in messages.
        adapter: file of its adapter, see :mod:`legacy_adapters.adapter`; a relative path is of the family's folder.
        packages: that its code is in, where it is installed. Of the legacy side it is known how they were published; those
            of the new side must not be loaded by the legacy one.
        checkout: of a legacy side that is not installed.
        frozen_groups: it makes groups of an optimizer for frozen parameters, too (mmcv 1.x and mmengine 0.6.0 do, 0.10.7
            does not).
        needs: packages that its adapter imports and an install of this toolkit may lack, as they are imported; told
            before anything runs where the side has the current interpreter.
    """

    title: str
    adapter: Path
    packages: Tuple[str, ...] = ()
    checkout: Optional[Checkout] = None
    frozen_groups: bool = False
    needs: Tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Variant:
    """One model of a family.

    Attributes:
        name: of it, within the family.
        legacy: options that the legacy adapter builds it from, plain data.
        new: options that the new adapter builds it from.
        sizes: (h, w) in pixels of each image of the default batch; none for the smallest.
        settings: what the family's own rules want to know of it.
        title: what it is called in messages; empty for its name.
        classes: how many classes a detector tells apart; None to count the rows of the family's ``class_rows``.
        seeding: of its weights; None for the family's.
    """

    name: str
    legacy: Mapping[str, Any] = field(default_factory=dict)
    new: Mapping[str, Any] = field(default_factory=dict)
    sizes: Tuple[Tuple[int, int], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    classes: Optional[int] = None
    seeding: Optional[Seeding] = None

    def options(self, side: str) -> Mapping[str, Any]:
        """Return the options of a side's adapter."""
        return self.legacy if side == LEGACY else self.new


#: Stands between the two configs that a model is made of, in its name.
_BETWEEN = "="


def of_configs(legacy: str, new: str) -> str:
    """Return the name that a model of two configs has in a family with ``configured``.

    Args:
        legacy: path of the legacy side's config, or its name among those of the code base; empty if it is not needed.
        new: the same of the new side.
    """
    return _BETWEEN.join(os.path.abspath(path) if os.path.isfile(path) else path for path in (legacy, new))


@dataclass(frozen=True)
class Draw:
    """How seeded weights of some names are drawn: uniform noise of unit variance times ``spread``, plus ``mean``.

    Attributes:
        pattern: glob of names.
        spread: standard deviation.
        mean: one number, or one for each element.
        shape: of the tensor; None for any.
    """

    pattern: str
    spread: float
    mean: Union[float, Tuple[float, ...]] = 0.0
    shape: Optional[Tuple[int, ...]] = None


@dataclass(frozen=True)
class Seeding:
    """What seeded weights of a family need beyond the general rules, so that every class and branch is exercised.

    Attributes:
        draws: the first whose pattern and shape fit decides.
        gains: glob of names -> factor of a weight matrix, the first decides.
    """

    draws: Tuple[Draw, ...] = ()
    gains: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rehearsal:
    """How both sides train one model to the end in minutes, for `ddq-parity rehearse`.

    Attributes:
        name: of it, for ``--config``.
        variant: that is trained; known by its name, but not looked for in checkpoints. The new side's config is one of a
            whole training; the legacy side's adapter makes its own of the variant's options.
        steps: of the training.
        settings: returns ``key=value`` texts that make a training of so many steps of a side's config, with checkpoints
            at a half of them at least: ``settings(side, steps)``.
        expected_ap: box AP that a training of ``steps`` reaches, in [0, 1].
    """

    name: str
    variant: Variant
    steps: int
    settings: Callable[[str, int], Tuple[str, ...]]
    expected_ap: float


@dataclass(frozen=True, eq=False)
class Family:
    """A legacy code base and what carries its models over.

    Attributes:
        name: of the family.
        variants: its models; the first is the default.
        legacy: the old side.
        new: the port.
        rules: how weights are renamed: a table of ``converters.rules.mapping``, a function that makes one for a variant,
            or the path of a file of rules.
        exclusions: records that one side has and the other has no use for; or a function that makes them for a variant.
        aliases: other names of modules without parameters, loss terms and taps; or a function that makes them for a
            variant.
        forms: of what the legacy side records in another form; or a function that makes them for a variant.
        paddings: places of a batch that hold no image; or a function that tells them for a variant.
        hints: what is known of differences and errors that come from the two code bases themselves.
        former: names of weights that older versions of the legacy code base saved, and it renames itself when it loads
            them: ``Rename`` rules to the names it has now; or a function that makes them for a variant.
        class_rows: glob of the tensors with one row per class -> how the model initialises such a row; behind the glob
            stands ``x4`` where a class has four rows, ``+1`` where one of the background comes last.
        versions: module of the legacy side -> version of its layout. Some code renames what it loads without one, as the
            weights of files older than it; a ``.pth`` of the legacy layout tells it as torch does.
        markers: keys that every checkpoint of the family has, and that no related model has together.
        seeding: of weights.
        inputs: makes the named tensors of a phase, ``inputs(phase, seed)``, with torch; None for a batch of images with
            objects.
        batch_divisor: of the height and width that images of a batch are padded to, in pixels.
        configured: makes a model of two configs, ``configured(legacy, new)``, each a path or a name among those of its code
            base, for a family of any number of models; None for one whose models are all listed.
        configs: returns what carries configs of the legacy side over and compares them (``converters.configs.kinds``);
            None if nothing does.
        resumption: returns what goes on with trainings of the legacy side's runner, mmcv 1.x, in the new one
            (``converters.mmcv1.taken_up``); None if nothing does.
        zoo: returns the configs that come with the legacy side (``converters.configs.zoo``); None if none do.
        layouts: folder of stored layouts; None if they are taken from the models.
        demo: golden file of ``ddq-parity demo``, if the family has it.
        rehearsals: whole trainings that both sides can do; the first is the default.
        folder: that it was read from.
        installed: it is found by its name.
    """

    name: str
    variants: Tuple[Variant, ...]
    legacy: Side
    new: Side
    rules: Union[Sequence[Any], Callable[[Variant], Sequence[Any]], str, Path]
    exclusions: Union[Sequence[Exclusion], Callable[[Variant], Sequence[Exclusion]]] = ()
    aliases: Union[Sequence[Alias], Callable[[Variant], Sequence[Alias]]] = ()
    forms: Union[Sequence[Form], Callable[[Variant], Sequence[Form]]] = ()
    paddings: Union[Sequence[Padding], Callable[[Variant], Sequence[Padding]]] = ()
    hints: Union[Sequence[Hint], Callable[[Variant], Sequence[Hint]]] = ()
    former: Union[Sequence[Any], Callable[[Variant], Sequence[Any]]] = ()
    class_rows: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    markers: Tuple[str, ...] = ()
    seeding: Seeding = field(default_factory=Seeding)
    inputs: Optional[Callable[[str, int], Dict[str, Any]]] = None
    batch_divisor: int = 1
    configured: Optional[Callable[[str, str], Variant]] = None
    configs: Optional[Callable[[], Any]] = None
    resumption: Optional[Callable[[], Any]] = None
    zoo: Optional[Callable[[], Any]] = None
    layouts: Optional[Path] = None
    demo: Optional[Path] = None
    rehearsals: Tuple[Rehearsal, ...] = ()
    folder: Optional[Path] = None
    installed: bool = False

    @property
    def reference(self) -> str:
        """What ``--family`` is given to find it again: its name or, of one that is not installed, its folder."""
        return self.name if self.installed else str(self.folder)

    @property
    def class_keys(self) -> Tuple[str, ...]:
        """Patterns of the tensors that have one row per class."""
        return tuple(self.class_rows)

    def side(self, name: str) -> Side:
        """Return the side ``legacy`` or ``new``."""
        return self.legacy if name == LEGACY else self.new

    @property
    def named(self) -> Tuple[Variant, ...]:
        """All models that have a name: the variants, and those of rehearsals."""
        return (*self.variants, *(rehearsal.variant for rehearsal in self.rehearsals))

    def variant(self, name: Optional[str] = None) -> Variant:
        """Return a variant by its name, which may be that of two configs, see :func:`of_configs`; the first without one.

        Raises:
            FamilyError: if there is none.
        """
        for variant in self.named:
            if name in (None, variant.name):
                return variant
        legacy, between, new = (name or "").partition(_BETWEEN)
        if self.configured is not None and between:
            return replace(self.configured(legacy, new), name=name)
        known = ", ".join(variant.name for variant in self.variants)
        raise FamilyError(f"Family `{self.name}` has no variant `{name}`; known are {known}.")

    def check_repo(self, repo: Optional[Path], python: Optional[str] = None) -> None:
        """Refuse a path that is not a checkout of the legacy code, or none where one is needed.

        Args:
            repo: the path.
            python: interpreter that may have the code base installed; None for the current one.

        Raises:
            RepoError: saying what is expected.
        """
        checkout = self.legacy.checkout
        if checkout is None:
            if repo is not None:
                raise RepoError(f"Family {self.name} needs no checkout; leave --legacy-repo out.")
        elif repo is None and checkout.or_installed:
            if python is None:
                raise RepoError(f"Family {self.name} needs --legacy-repo, {checkout.hint}, or --legacy-python.")
        elif repo is None:
            raise RepoError(f"Family {self.name} needs --legacy-repo: {checkout.hint}.")
        else:
            checkout.check(repo)

    def check_known(self, repo: Optional[Path], python: Optional[str]) -> None:
        """Refuse legacy code that is not as it was published.

        Args:
            repo: checkout, for a family that needs one.
            python: interpreter whose packages are looked at; None for the current one.

        Raises:
            RepoError: naming what is not.
        """
        if self.legacy.checkout is not None and repo is not None:
            self.legacy.checkout.check_known(repo)
        elif changed := _altered(self.legacy.packages, python):
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


def variant_of_configs(family: Family, variant: Optional[str], legacy: str = "", new: str = "") -> str:
    """Return the name of the variant that two configs make, see :func:`of_configs`.

    Args:
        family: that the model is of.
        variant: that was named as well, which is one thing too many.
        legacy: as in :func:`of_configs`, like the next one.
        new: see there.

    Raises:
        FamilyError: if the family has no models of configs, or a variant is given as well.
    """
    if family.configured is None:
        raise FamilyError(f"Family {family.name} has no models of configs; name one of its models with --variant.")
    if variant is not None:
        raise FamilyError(f"Both --variant {variant} and configs are given; leave one of them out.")
    return of_configs(legacy, new)


def _altered(packages: Tuple[str, ...], python: Optional[str]) -> Dict[str, List[str]]:
    if python is None:
        return originals.altered(packages)
    command = [python, originals.__file__, *packages]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if asked.returncode:
        raise RepoError(f"{python} does not say which files its packages were installed with: {asked.stderr!r:.200}")
    return json.loads(asked.stdout)
