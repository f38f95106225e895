"""Rules that are proposed for two checkpoints: right where something tells, open where nothing does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from converters.cli.main import cli
from converters.formats.stored import StoredTensor
from converters.rules import rule_file
from converters.rules.mapping import Concat, DropDuplicateOf, Keep, Pad, Permute, Rename, Reshape, Rule, Slice, Split
from converters.suggesting import telling
from converters.suggesting.suggestion import Suggestion, suggest

State = dict[str, Tensor]


def drawn(**shapes: tuple[int, ...]) -> State:
    generator = torch.Generator().manual_seed(len(shapes))
    return {key.replace("__", "."): torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def told(a: State, b: State) -> Suggestion:
    return suggest(*({key: StoredTensor.from_torch(value) for key, value in state.items()} for state in (a, b)))


W, BIG = (
    torch.randn(4, 6, generator=torch.Generator().manual_seed(7)),
    torch.randn(12, 4, generator=torch.Generator().manual_seed(8)),
)
ZERO = torch.zeros(4, 6)


@pytest.mark.parametrize(
    ("a", "b", "rule"),
    [
        ({"x.w": W}, {"x.w": W}, Keep("x.w")),
        ({"x.w": W}, {"y.v": W}, Rename("x.w", "y.v")),
        ({"x.w": W}, {"x.w": W.t()}, Permute("x.w", "x.w", axes=(1, 0))),
        ({"x.w": W}, {"x.w": W[[2, 0, 3, 1]]}, Permute("x.w", "x.w", index=(2, 0, 3, 1), axis=0)),
        ({"x.w": W}, {"x.w": W[:, [1, 0, 2, 3, 5, 4]]}, Permute("x.w", "x.w", index=(1, 0, 2, 3, 5, 4), axis=1)),
        ({"x.w": W}, {"x.w": W.reshape(4, 6, 1, 1)}, Reshape("x.w", "x.w", (4, 6, 1, 1), (4, 6))),
        ({"x.w": BIG}, dict(zip(("k.w", "q.w", "v.w"), BIG.chunk(3))), Split("x.w", ("k.w", "q.w", "v.w"))),
        ({"a.w": BIG[:8], "b.w": BIG[8:]}, {"x.w": BIG}, Concat(("a.w", "b.w"), "x.w", 0, (8, 4))),
        (
            {"x.w": BIG},
            {"x.w": BIG[:9]},
            Slice("x.w", "x.w", 0, 0, 9, 12, reason="B has no more than these places along axis 0"),
        ),
        ({"x.w": torch.cat([W, ZERO])}, {"x.w": W}, Slice("x.w", "x.w", 0, 0, 4, 8, rest=0.0)),
        ({"x.w": W}, {"x.w": torch.cat([ZERO, W])}, Pad("x.w", "x.w", 0, 4, 8, 8, rest=0.0)),
    ],
    ids=lambda value: value.action if isinstance(value, tuple(rule_file.KINDS.values())) else "",
)
def test_equal_numbers_tell_every_kind_of_rule(a: State, b: State, rule: Rule) -> None:
    a, b = ({**state, key: drawn(w=(5, 5))["w"]} for state, key in ((a, "other.w"), (b, "another.w")))
    found = told(a, b)
    assert rule in found.rules and found.is_complete
    assert all(proposal.is_certain for proposal in found.proposals)


def test_numbers_go_before_names() -> None:
    one, two = drawn(x=(4,), y=(4,)).values()
    found = told({"norm1.weight": one, "norm2.weight": two}, {"norm1.weight": two, "norm2.weight": one})
    assert found.rules == (Rename("norm1.weight", "norm2.weight"), Rename("norm2.weight", "norm1.weight"))


def test_rules_are_put_together_and_no_more() -> None:
    a = drawn(**{f"layers__{i}__{name}__weight": (4, 4) for i in range(3) for name in ("q", "k")}, head__weight=(2, 4))
    b = {key.replace("layers", "blocks").replace(".q.", ".query."): value for key, value in a.items()}
    rules = told(a, b).rules
    assert set(rules) == {
        Rename("layers.*.q.weight", "blocks.*.query.weight"), Rename("layers.*.k.weight", "blocks.*.k.weight"),
        Keep("head.weight"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (drawn(x__bn1__weight=(4,), x__bn2__weight=(4,)), drawn(x__a__weight=(4,), x__b__weight=(4,), z=(1,))),
        (drawn(**{f"fc__{i}__weight": (4, 6) for i in range(2)}), drawn(**{f"fc__{i}__weight": (4, 6) for i in range(3)})),
        (drawn(qkv__weight=(12, 4)), drawn(q__weight=(4, 4), k__weight=(4, 4), v__weight=(4, 4))),
        (drawn(fc__weight=(8, 4), sq__weight=(4, 4)), {**drawn(sq__weight=(4, 4)), **drawn(fc__weight=(4, 8), x=(1,))}),
    ],
    ids=["two norms without a name", "a list that became longer", "the order of a split", "a square that may be turned"],
)  # fmt: skip
def test_what_nothing_tells_is_open(a: State, b: State) -> None:
    """Weights are unlike; names leave several possibilities."""
    found = told(a, b)
    unsure = {key for item in found.opens for key in item.a}
    assert unsure >= set(a) - {"fc.weight"} and not unsure & found.findings.linked_a


def test_a_swap_of_names_makes_names_worthless() -> None:
    """Where numbers show that names were exchanged, names do not tell what numbers leave open."""
    w = drawn(a=(4, 4), b=(4, 4))
    ones = torch.ones(4)
    a = {"x.lin.w": w["a"], "y.lin.w": w["b"], "x.norm1.w": ones, "x.norm2.w": ones}
    b = {"y.lin.w": w["a"], "x.lin.w": w["b"], "y.norm1.w": ones, "y.norm2.w": ones}
    assert {key for item in told(a, b).opens for key in item.a} == {"x.norm1.w", "x.norm2.w"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_rounded_copy_holds_the_same_weights(dtype: torch.dtype) -> None:
    a = drawn(x__weight=(8, 4), y__weight=(8, 4))
    found = told(a, {"m.weight": a["y.weight"].to(dtype), "n.weight": a["x.weight"].to(dtype)})
    assert found.rules == (Rename("x.weight", "n.weight"), Rename("y.weight", "m.weight"))
    assert found.notes[0].startswith("A is float32 and B ")


def test_duplicates_of_a_training_are_dropped() -> None:
    a = drawn(head__weight=(4, 4), other__weight=(4, 4))
    found = told({**a, "decoder.copy.weight": a["head.weight"]}, a)
    assert [rule for rule in found.rules if isinstance(rule, DropDuplicateOf)] == [
        DropDuplicateOf("decoder.copy.weight", "head.weight", "it repeats the other bit by bit, and B has it once")
    ]


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    a = drawn(**{f"old__{i}__fc__weight": (3, 4) for i in range(2)}, old__0__n1__weight=(4,), old__0__n2__weight=(4,))
    a |= {"old.0.n1.weight": torch.ones(4), "old.0.n2.weight": torch.ones(4)}
    b = {key.replace("old", "new").replace("n1", "a").replace("n2", "b"): value for key, value in a.items()}
    torch.save(a, tmp_path / "a.pth")
    torch.save({"state_dict": b}, tmp_path / "b.pth")
    return str(tmp_path / "a.pth"), str(tmp_path / "b.pth")


@pytest.mark.parametrize("suffix", [".py", ".json"])
def test_the_file_says_why_and_is_loaded(files: tuple[str, str], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"rules{suffix}"
    done = CliRunner().invoke(cli, ["suggest", *files, "--out", str(out)])
    assert done.exit_code == 1  # something is open
    assert done.output.splitlines()[-1].startswith("SUGGESTED 1 rule for 2 of 4 tensors (2 by numbers); 2 open -> ")
    assert all(len(line) < 80 for line in done.output.splitlines()[2:-1])
    assert "the same numbers" in out.read_text() and "old.*.n1.*" in out.read_text()
    assert rule_file.load(out) == (Rename("old.*.fc.weight", "new.*.fc.weight"),)


def test_rules_of_a_file_convert_and_verify(files: tuple[str, str], tmp_path: Path) -> None:
    rules, out = tmp_path / "rules.json", tmp_path / "out.pth"
    rules.write_text(
        rule_file.dump(
            [Rename("old.*.fc.*", "new.*.fc.*"), Rename("old.0.n1.*", "new.0.a.*"), Rename("old.0.n2.*", "new.0.b.*")]
        )
    )
    run = CliRunner().invoke
    done = run(cli, ["convert", files[0], str(out), "--rules", str(rules), "--like", files[1]])
    assert done.output.startswith("CONVERTED 4 tensors")
    assert torch.load(out)["state_dict"].keys() == torch.load(files[1])["state_dict"].keys()
    assert run(cli, ["verify", str(out), "--source", files[0]]).output.startswith("VERIFIED 4 tensors")
    back = run(cli, ["convert", str(out), str(tmp_path / "back.pth"), "--rules", str(rules), "--to", "legacy"])
    assert back.exit_code == 0 and torch.load(tmp_path / "back.pth")["state_dict"].keys() == torch.load(files[0]).keys()
    rules.write_text(rule_file.dump([Rename("old.*.fc.*", "new.*.fc.*")]))
    assert "matched by no rule" in run(cli, ["convert", files[0], str(out), "--rules", str(rules), "--force"]).output
    assert "other rules" in run(cli, ["verify", str(out)]).output


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--like", "{b}"], "--like says what rules of a file lead to; pass --rules, too."),
        (["--rules", "no.py"], "The rules cannot be used"),
        (["--rules", "{a}", "--family", "ddq_detr"], "pass either --rules or --family."),
    ],
)
def test_options_that_do_not_go_together(files: tuple[str, str], tmp_path: Path, options: list[str], line: str) -> None:
    options = [option.format(a=files[0], b=files[1]) for option in options]
    done = CliRunner().invoke(cli, ["convert", files[0], str(tmp_path / "x.pth"), *options])
    assert done.exit_code == 2 and line in done.output and "Traceback" not in done.output


def test_json_and_lines_agree(files: tuple[str, str]) -> None:
    done = CliRunner().invoke(cli, ["suggest", *files, "--json"])
    found = json.loads(done.output)
    assert found["rules"] == [
        {"rule": "rename old.*.fc.weight -> new.*.fc.weight", "keys": 2, "certain": True,
         "evidence": "by numbers: the same numbers, which no other tensor has"}
    ]  # fmt: skip
    assert found["open"][0]["a"] == ["old.0.n1.weight", "old.0.n2.weight"] and not found["complete"]


def test_what_is_open_alike_is_one_question() -> None:
    a = drawn(**{f"layers__{i}__{name}__w": (4,) for i in range(3) for name in ("n1", "n2")})
    b = drawn(**{f"layers__{i}__{name}__w": (4,) for i in range(3) for name in ("x", "y")}, z=(2, 2))
    (item,) = telling.open_patterns(told(a, b).opens)
    assert item.a == ("layers.*.n1.*", "layers.*.n2.*") and item.count == (6, 6)


def test_rules_of_an_earlier_run_do_not_stay(tmp_path: Path) -> None:
    torch.save({"a.w": torch.randn(4)}, tmp_path / "a.pth")
    torch.save({"b.v": torch.randn(5)}, tmp_path / "b.pth")
    out = tmp_path / "rules.py"
    out.write_text("RULES = ()\n")
    files = [str(tmp_path / name) for name in ("a.pth", "b.pth")]
    done = CliRunner().invoke(cli, ["suggest", *files, "--out", str(out), "--force"])
    assert done.exit_code == 1 and not out.exists() and f"so {out} was removed" in done.output
    assert "1 tensor\n" in done.output and "1 tensors" not in done.output


def test_a_square_matrix_without_numbers_is_open() -> None:
    """A straight matrix elsewhere, or the same names, say nothing of it."""
    a, b = (drawn(fc__weight=(4, 4), head__weight=(2, 4), **{name: (1,)}) for name in ("x", "x"))
    b = {key: value + 1 for key, value in b.items()}
    assert [item.a for item in told(a, b).opens] == [("fc.weight",)]
