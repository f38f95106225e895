"""What no rule of the weights names pairs by the family's aliases, and one module's calls with those of several."""

import pytest

from converters.errors import MappingError
from converters.rules.mapping import Keep, Mapping, Rename
from legacy_adapters.family import Alias
from parity.comparing.compare import Tolerance
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH

from .synthetic import Rec, judged
from .test_pairing import names, paired, record

RULES = (Keep("body.*.linear.*"), Rename("head.out.*", "out.*"))
ALIASES = (
    Alias("head.encoding", "encoding"),
    Alias("body.*.ffns.0.activate", "body.*.ffn.1"),
    Alias("body.*.drop", ("body.*.drop1", "body.*.drop2", "body.*.drop3")),
    Alias("stage0_loss_cls", "s0.loss_cls", of="loss"),
    Alias("draws.*", "noise.*", of="tap"),
)
MAPPING = Mapping("toy", RULES, aliases=ALIASES)


@pytest.mark.parametrize(
    ("kind", "legacy", "new"),
    [
        ("module_out", "head.encoding", "encoding"),
        ("out_grad", "head.encoding", "encoding"),
        ("module_out", "head.encoding.inner", "encoding.inner"),
        ("module_in", "body.3.ffns.0.activate", "body.3.ffn.1"),
        ("module_out", "head.out", "out"),
        ("loss", "stage0_loss_cls", "s0.loss_cls"),
        ("tap", "draws.a", "noise.a"),
        ("basis", "draws.a", "noise.a"),
    ],
)
def test_what_has_no_key_pairs_by_its_alias(kind, legacy, new):
    pairing = paired([record(kind, legacy)], [record(kind, new)], MAPPING)
    assert names(pairing) == [(legacy, new)] and pairing.unpaired == ()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("loss", "head.encoding"), ("tap", "head.encoding"), ("module_out", "stage0_loss_cls"), ("loss", "draws.a")],
)
def test_an_alias_of_one_thing_renames_no_other(kind, name):
    assert names(paired([record(kind, name)], [record(kind, name)], MAPPING)) == [(name, name)]


def calls(places):
    """Return the records of calls, each on numbers of its own; places are a path and a call."""
    return [
        Rec(kind, f"body.0.{name}", [number + part, number + part + 10.0], slot, call)
        for number, (name, call) in enumerate(places)
        for kind, slot, part in (("module_in", "input", 0.25), ("module_out", "", 0.75))
    ]


LOSS = Rec("loss", "stage0_loss_cls", 0.25), Rec("loss", "s0.loss_cls", 0.25)
OURS, THEIRS = [("drop", 0), ("drop", 1), ("drop", 2)], [("drop1", 0), ("drop2", 0), ("drop3", 0)]


def counted(places, prefix="body.0."):
    """Return how often each module was called."""
    return dict(leaf_calls={prefix + name: sum(name == other for other, _ in places) for name, _ in places})


def of_calls(folder, legacy, new, ours=OURS, theirs=THEIRS, **options):
    options = {"mapping": MAPPING, "on_legacy": counted(ours), "on_new": counted(theirs), **options}
    return judged(folder, [*legacy, LOSS[0]], [*new, LOSS[1]], **options)


@pytest.mark.parametrize("tolerance", [Tolerance(), Tolerance("fixed", rtol=1e-6)], ids=lambda one: one.name)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
def test_calls_of_one_module_pair_with_those_of_three(tmp_path, tolerance, order):
    values = calls(THEIRS)
    new = [values[2 * place + half] for place in order for half in (0, 1)]
    verdict = of_calls(tmp_path, calls(OURS), new, tolerance=tolerance)
    assert (verdict.outcome, verdict.reasons) == (MATCH, ())
    pairs = {(c.pair.legacy.call, c.pair.new.name) for c in verdict.comparisons if c.pair.new.kind == "module_out"}
    assert pairs == {(0, "body.0.drop1"), (1, "body.0.drop2"), (2, "body.0.drop3")}
    coverage = verdict.coverage
    assert (coverage.legacy_leaf_calls, coverage.paired_leaf_calls, coverage.lone_calls) == (3, 3, ())
    assert coverage.excluded_records == () and coverage.unaccounted == ()


def test_calls_of_three_modules_pair_with_those_of_one(tmp_path):
    turned = Mapping("toy", RULES, aliases=(Alias(ALIASES[2].new, ALIASES[2].legacy), ALIASES[3]))
    verdict = of_calls(tmp_path, calls(THEIRS), calls(OURS), THEIRS, OURS, mapping=turned)
    assert (verdict.outcome, verdict.reasons) == (MATCH, ())
    assert verdict.coverage.paired_leaf_calls == 3 and verdict.coverage.lone_calls == ()


@pytest.mark.parametrize("wrong", range(3))
def test_a_wrong_result_of_one_of_three_modules_is_named(tmp_path, wrong):
    new = calls(THEIRS)
    new[2 * wrong + 1] = Rec("module_out", f"body.0.drop{wrong + 1}", [0.5, 0.5])
    verdict = of_calls(tmp_path, calls(OURS), new)
    assert verdict.outcome == MISMATCH and verdict.divergence.where == f"body.0.drop{wrong + 1}"


@pytest.mark.parametrize("missing", range(3))
def test_a_call_that_one_of_three_modules_does_not_make_is_missing(tmp_path, missing):
    new = calls(THEIRS)
    del new[2 * missing : 2 * missing + 2]
    verdict = of_calls(tmp_path, calls(OURS), new, theirs=[p for i, p in enumerate(THEIRS) if i != missing])
    assert verdict.outcome in (INCOMPARABLE, MISMATCH)
    assert {item.record.name for item in verdict.coverage.unaccounted} == {"body.0.drop"}
    assert [(lone.side, lone.name, lone.calls) for lone in verdict.coverage.lone_calls] == [("legacy", "body.0.drop", 1)]


def test_a_call_that_only_the_new_side_makes_is_unaccounted_for(tmp_path):
    theirs = [*THEIRS, ("drop3", 1)]
    verdict = of_calls(tmp_path, calls(OURS), calls(theirs), theirs=theirs)
    assert verdict.outcome == INCOMPARABLE
    assert {item.record.name for item in verdict.coverage.unaccounted} == {"body.0.drop3"}


@pytest.mark.parametrize(
    ("aliases", "says"),
    [
        ([Alias("a.*", "b")], "Alias 0 has other wildcards in `a.*` than in `b`"),
        ([Alias("a", "b"), Alias("a..b", "c")], "Alias 1 has a name that cannot be used: `a..b` has an empty segment"),
        ([Alias("a", "b"), Alias("a", "c")], "Aliases 0 and 1 overlap: their legacy names `a` and `a`"),
        ([Alias("a.*", "b.*"), Alias("c", "b.d")], "Aliases 0 and 1 overlap: their new names `b.*` and `b.d`"),
        ([Alias("a", ("b", "c"), of="loss")], "Alias 0 has several names on a side, which only modules may have"),
        ([Alias("a", "b", of="parameter")], "Alias 0 is of 'parameter', expected module, loss or tap"),
        ([Alias("a", ())], "Alias 0 has no name on one side"),
        (["a"], "Alias 0 is 'a', expected a legacy_adapters.family.Alias"),
    ],
)
def test_an_alias_that_cannot_be_used_is_an_error_that_says_why(aliases, says):
    with pytest.raises(MappingError) as error:
        Mapping("toy", RULES, aliases=tuple(aliases))
    assert str(error.value).startswith(says)
