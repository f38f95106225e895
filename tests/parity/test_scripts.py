"""Models of anybody's own: recorded in a block, compared without a family, and checked in one call."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional

import parity
from converters.rules.mapping import Rename, Split
from legacy_adapters.scripting import CaptureError
from parity.cli.main import cli

ROOT = Path(__file__).parents[2]
X = torch.linspace(-1, 1, 2 * 5 * 8).reshape(2, 5, 8)


class Small(nn.Module):
    """A model with one of each: in-place ReLU, norm, dropout, a module called several times, its own code in between."""

    def __init__(self, eps=1e-5, p=0.0, factor=1.0, cut=False):
        super().__init__()
        self.first, self.norm = nn.Linear(8, 8), nn.LayerNorm(8, eps=eps)
        self.act, self.drop, self.last = nn.ReLU(inplace=True), nn.Dropout(p), nn.Linear(8, 3)
        self.factor, self.cut = factor, cut

    def forward(self, x, scale=1.0):
        for _ in range(2):
            x = self.act(self.norm(self.first(x)))
        y = self.drop(x) * self.factor
        return {"out": self.last(y.detach() if self.cut else y), "hidden": [x * scale]}


class Other(nn.Module):
    """The same model under other names, as a tuple."""

    def __init__(self):
        super().__init__()
        self.stem, self.ln = nn.Linear(8, 8), nn.LayerNorm(8)
        self.classify, self.p = nn.Linear(8, 3), 0.0

    def forward(self, x):
        for _ in range(2):
            x = functional.relu(self.ln(self.stem(x)))
        return [x], self.classify(x)


RENAMES = [Rename("first.*", "stem.*"), Rename("norm.*", "ln.*"), Rename("last.*", "classify.*")]


def record(model, folder, times=1, change=None, seed=None, given=X, learn=0.0):
    optimizer = torch.optim.SGD(model.parameters(), lr=learn) if learn else None
    model.zero_grad()
    with parity.capture(model, folder, seed=seed) as recording:
        for number in range(times):
            if change is not None and number:
                change(model)
            out = model(given)
            loss = recording.loss("sum", (out["out"] if isinstance(out, dict) else out[1]).square().sum())
            loss.backward()
            if optimizer is not None:
                optimizer.step()
    return folder


def both(old, new, tmp_path, **only_new):
    shared = {name: only_new.pop(name) for name in ("times", "seed", "learn") if name in only_new and name != "learn"}
    old_learn, new_learn = only_new.pop("learn", (0.0, 0.0))
    record(old, tmp_path / "old", learn=old_learn, **shared)
    record(new, tmp_path / "new", learn=new_learn, **shared, **only_new)
    return parity.compare(tmp_path / "old", tmp_path / "new")


def twins(**changes):
    torch.manual_seed(0)
    old, new = Small(), Small(**changes)
    new.load_state_dict(old.state_dict())
    return old, new


def test_two_recordings_of_one_model_match_and_leave_it_as_it_was(tmp_path):
    old, new = twins()
    verdict = both(old, new, tmp_path, times=2, learn=(0.1, 0.1))
    assert (verdict.outcome, verdict.exit_code) == (parity.MATCH, 0), verdict.reasons
    kinds = {comparison.pair.new.kind for comparison in verdict.comparisons}
    assert {"module_in", "module_out", "in_grad", "out_grad", "grad", "loss", "param", "state"} <= kinds
    assert not any("forward" in vars(module) for module in old.modules())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


@pytest.mark.parametrize(
    ("changes", "where", "says"),
    [
        (dict(eps=1e-4), "norm", "`norm` (call 0) gives another output for equal inputs"),
        (dict(factor=1.0001), "the model", "The code of the model calls `last` (call 0) with another `input`"),
        (dict(cut=True), "the model", "cut off: no gradient can come back"),
    ],
    ids=["norm", "own code", "detach"],
)
def test_a_planted_error_is_named(tmp_path, changes, where, says):
    verdict = both(*twins(**changes), tmp_path)
    assert verdict.outcome != parity.MATCH and verdict.divergence.where == where
    assert says in verdict.divergence.message.replace("`x`", "`input`")
    text = parity.summary(verdict)
    assert len(text.splitlines()) <= 5 and text.splitlines()[-1].startswith(verdict.outcome)


def test_weights_that_only_the_optimizer_makes_different_are_not_blamed_on_a_module(tmp_path):
    verdict = both(*twins(), tmp_path, times=2, learn=(0.1, 0.11))
    assert verdict.outcome == parity.MISMATCH
    assert "differs before the script's call 1" in verdict.divergence.message


def test_gradients_that_were_there_before_are_no_mismatch(tmp_path):
    old, new = twins()
    new(X)["out"].sum().backward()
    for model, name in ((old, "old"), (new, "new")):
        with parity.capture(model, tmp_path / name):
            model(X)["out"].sum().backward()
    verdict = parity.compare(tmp_path / "old", tmp_path / "new")
    assert verdict.outcome == parity.INCOMPARABLE and "zero_grad()" in verdict.reasons[0]


@pytest.mark.parametrize("side", ["old", "new"])
def test_weights_that_one_script_changes_are_named(tmp_path, side):
    def change(model):
        model.first.weight.data.add_(1.0)

    old, new = twins()
    record(old, tmp_path / "old", times=2, change=change if side == "old" else None)
    record(new, tmp_path / "new", times=2, change=change if side == "new" else None)
    verdict = parity.compare(tmp_path / "old", tmp_path / "new")
    word = {"old": "legacy", "new": "new"}[side]
    assert verdict.divergence.message == f"`first.weight` is changed before the script's call 1 on the {word} side only."


def test_rules_pair_a_model_under_other_names(tmp_path):
    old, new = Small(), Other()
    new.load_state_dict(OrderedDict(zip(new.state_dict(), old.state_dict().values())))
    record(old, tmp_path / "old")
    record(new, tmp_path / "new")
    without = parity.compare(tmp_path / "old", tmp_path / "new")
    assert without.outcome == parity.INCOMPARABLE and "`first.bias`" in " ".join(without.reasons)
    (tmp_path / "rules.py").write_text(
        "from converters.rules.mapping import Rename\n"
        "RULES = (Rename('first.*', 'stem.*'), Rename('norm.*', 'ln.*'), Rename('last.*', 'classify.*'))\n"
    )
    assert parity.compare(tmp_path / "old", tmp_path / "new", rules=RENAMES).outcome == parity.MATCH
    arguments = ["compare", str(tmp_path / "old"), str(tmp_path / "new"), "--rules", str(tmp_path / "rules.py"), "-q"]
    done = CliRunner().invoke(cli, [*arguments, "--html", str(tmp_path / "verdict.html")])
    assert done.exit_code == 0 and done.output.startswith("MATCH"), done.output
    assert "MATCH" in (tmp_path / "verdict.html").read_text()


def test_what_scripts_do_not_do_alike_is_no_mismatch(tmp_path):
    old, new = twins()
    record(old, tmp_path / "old")
    record(new, tmp_path / "other", given=X + 1)
    record(new.eval(), tmp_path / "eval")
    record(new.train(), tmp_path / "twice", times=2)
    for name, says in (("other", "are given other inputs: `x`"), ("eval", "in eval mode"), ("twice", "1 time, the new one 2")):
        verdict = parity.compare(tmp_path / "old", tmp_path / name)
        assert (verdict.outcome, verdict.exit_code) == (parity.INCOMPARABLE, 3)
        assert says in " ".join(verdict.reasons), verdict.reasons


def test_draws_need_generators_in_equal_states(tmp_path):
    old, new = Small(p=0.5), Small(p=0.5)
    new.load_state_dict(old.state_dict())
    unseeded = both(old, new, tmp_path)
    assert unseeded.outcome == parity.INCOMPARABLE and "seed both alike" in unseeded.reasons[0]
    (tmp_path / "seeded").mkdir()
    assert both(old, new, tmp_path / "seeded", seed=1).outcome == parity.MATCH


def test_a_block_that_fails_leaves_nothing(tmp_path):
    model = Small()
    with pytest.raises(ZeroDivisionError), parity.capture(model, tmp_path / "t"):
        model(X)
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == [] and "forward" not in vars(model.first)
    with pytest.raises(CaptureError, match="calls no module"), parity.capture(model, tmp_path / "t"):
        pass
    assert list(tmp_path.iterdir()) == []
    with parity.capture(model, tmp_path / "t") as recording:
        model(X)
    with pytest.raises(CaptureError, match="after the block"):
        recording.tap("x", X)
    with pytest.raises(FileExistsError, match="force=True"), parity.capture(model, tmp_path / "t"):
        pass
    with parity.capture(model, tmp_path / "t", force=True):
        model(X)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(torch.jit.script(nn.Linear(2, 2))), "Module `0` is scripted"),
        (nn.Sequential(nn.DataParallel(nn.Linear(2, 2))), "give its `.module`"),
        (nn.LazyLinear(2), "`weight` has no shape"),
        (nn.Linear(2, 2, device="meta"), "`bias` is on the meta device|`weight` is on the meta device"),
        ("model.pth", "Expected a torch.nn.Module, found 'model.pth'"),
    ],
    ids=["scripted", "wrapped", "lazy", "meta", "path"],
)
def test_what_cannot_be_recorded_is_refused(tmp_path, model, says):
    with pytest.raises(parity.INPUT_ERRORS, match=says), parity.capture(model, tmp_path / "t"):
        pass


def test_the_old_side_needs_torch_and_numpy_alone(tmp_path):
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(name)
MISSING = ("safetensors", "scipy", "click", "rich", "mmengine", "mmdet", "mmcv", "converters", "parity", "ddq_port")
sys.meta_path.insert(0, Missing())
import torch
from legacy_adapters.scripting import capture
model = torch.nn.Linear(3, 2)
with capture(model, sys.argv[1]):
    model(torch.ones(1, 3))
"""
    shutil.copytree(ROOT / "legacy_adapters", tmp_path / "legacy_adapters", ignore=shutil.ignore_patterns("goldens", "*.pyc"))
    (tmp_path / "old.py").write_text(code)
    done = subprocess.run([sys.executable, tmp_path / "old.py", tmp_path / "t"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert parity.compare(tmp_path / "t", tmp_path / "t").outcome == parity.MATCH


@dataclass
class Result:
    logits: torch.Tensor
    text: str


class Giving(nn.Module):
    def __init__(self, kind, error=0.0):
        super().__init__()
        self.layer, self.kind, self.error = nn.Linear(8, 3), kind, error

    def forward(self, x):
        y = self.layer(x)
        z = y.softmax(-1) + self.error
        if self.kind == "object":
            holder = type("Holder", (), {})()
            holder.values = [y, {"z": z}]
            return holder
        return {
            "tuple": (y, z), "dataclass": Result(z, "a"), "text": Result(y, f"{self.error}"), "complex": torch.complex(y, z),
            "array": z.detach().numpy(), "sparse": z.to_sparse(), "nothing": iter((y, z)),
        }[self.kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["tuple", "dataclass", "object", "text", "complex", "array", "sparse"])
def test_whatever_a_model_gives_is_compared(kind):
    assert parity.check(Giving(kind), Giving(kind), X).outcome == parity.MATCH
    verdict = parity.check(Giving(kind), Giving(kind, 0.01), X, tolerance="exact")
    assert (verdict.outcome, verdict.divergence.where) == (parity.MISMATCH, "the model")


def test_what_a_model_gives_that_cannot_be_seen_is_no_match():
    verdict = parity.check(Giving("nothing"), Giving("nothing"), X)
    assert verdict.outcome == parity.INCOMPARABLE and "recording.tap" in verdict.reasons[0]


class Apart(nn.Module):
    """Attention with its query, key and value apart."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.factor = factor

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2) * (self.factor / 2)).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).flatten(2))


class Around(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attn = attention

    def forward(self, x):
        if isinstance(self.attn, nn.MultiheadAttention):
            return self.attn(x, x, x, need_weights=False)[0]
        return self.attn(x)


SPLIT = [
    Split("attn.in_proj_weight", ("attn.q.weight", "attn.k.weight", "attn.v.weight")),
    Split("attn.in_proj_bias", ("attn.q.bias", "attn.k.bias", "attn.v.bias")), Rename("attn.out_proj.*", "attn.o.*"),
]  # fmt: skip


def test_a_fused_projection_matches_its_parts_by_the_old_sides_own_rounding():
    old = Around(nn.MultiheadAttention(8, 2, batch_first=True))
    assert parity.check(old, Around(Apart()), X, rules=SPLIT).outcome == parity.MATCH
    verdict = parity.check(old, Around(Apart(1.001)), X, rules=SPLIT)
    assert (verdict.outcome, verdict.divergence.where) == (parity.MISMATCH, "attn")


def test_what_hooks_make_of_the_output_is_compared():
    old, new = twins()
    old.register_forward_hook(lambda module, args, out: {**out, "out": out["out"] * 2})
    assert parity.check(old, new, X, tolerance="exact").outcome != parity.MATCH
    assert parity.check(old, old, X, tolerance="exact").outcome == parity.MATCH


def test_check_leaves_modules_inputs_and_generators_alone():
    old, new = Small(p=0.5), Small(p=0.5)
    before = [copy.deepcopy(model.state_dict()) for model in (old, new)]
    given, state = X.clone(), torch.get_rng_state()
    assert parity.check(old, new, (given,)).outcome == parity.MATCH
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(given, X)
    for model, was in zip((old, new), before):
        assert all(torch.equal(value, was[key]) for key, value in model.state_dict().items())
        assert all(param.grad is None for param in model.parameters())


@pytest.mark.parametrize(
    ("new", "options", "says"),
    [
        (Other(), {}, "`first.bias`, `first.weight`, `last.bias` and 3 more of the old side go nowhere"),
        (Small().double(), {}, "bring both to one type"),
        (Small(), dict(rules=[Rename("firts.*", "x.*")]), "takes no key of the old side"),
        (Small(), dict(rules=["first.*"]), "Rule 0 is 'first.*'"),
        (Small(), dict(weights="load"), "weights is 'load'"),
        (Small(), dict(rtol=1e-3), "--rtol goes with --tolerance fixed"),
        (nn.Linear(8, 8), dict(rules=RENAMES[:1] + [Rename("last.*", "first.*")]), "of the new side"),
    ],
    ids=["names", "dtype", "idle rule", "no rule", "weights", "bounds", "gap"],
)
def test_check_says_what_it_cannot_use(new, options, says):
    with pytest.raises(parity.INPUT_ERRORS) as raised:
        parity.check(Small(), new, X, **options)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_a_side_that_raises_is_told_by_its_place():
    with pytest.raises(parity.SideError, match="The legacy side crashed in `first`: RuntimeError"):
        parity.check(Small(), Small(), X[..., :7])


def test_modules_shared_on_one_side_pair_call_by_call():
    class Twice(nn.Module):
        def __init__(self, shares):
            super().__init__()
            self.a = nn.Linear(8, 8)
            self.b = self.a if shares else nn.Linear(8, 8)

        def forward(self, x):
            return self.b(self.a(x).relu())

    shared, apart = Twice(True), Twice(False)
    apart.b.load_state_dict(shared.a.state_dict())
    apart.a.load_state_dict(shared.a.state_dict())
    for old, new in ((shared, apart), (apart, shared)):
        verdict = parity.check(old, new, X, gradients=False)
        assert verdict.outcome == parity.MATCH, verdict.reasons
        with_gradients = parity.check(old, new, X, tolerance="exact")
        assert with_gradients.outcome == parity.MISMATCH  # they add up in shared weights only
