"""Rules that are proposed for two checkpoints: right where something tells, open where nothing does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from converters.cli.main import cli
from converters.errors import ConversionError
from converters.formats.stored import StoredTensor
from converters.rules import rule_file
from converters.rules.mapping import Concat, DropDuplicateOf, Keep, Pad, Permute, Rename, Reshape, Rule, Slice, Split
from converters.suggesting import suggestion, telling, tokens
from converters.suggesting.compressing import Proposal
from converters.suggesting.flows import changed_results
from converters.suggesting.gaps import gap_of
from converters.suggesting.links import NAMES, Findings, Link
from converters.suggesting.process import Run
from converters.suggesting.suggestion import Suggestion, suggest
from converters.suggesting.tensors import Side

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


ROLLED = torch.stack(
    [W[0, :5].roll(shift) for shift in range(5)]
)  # its rows in another order are its columns in another
SAME_ORDERS = "the same numbers, and several orders fit"


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (
            {"x.w": W},
            {"x.w": W.reshape(-1).flip(0)[[0, 2, 1, *range(3, 24)]].reshape(4, 6)},
            "the same numbers in another order, which no single rule makes",
        ),
        ({"x.w": ROLLED}, {"y.w": ROLLED.roll(1, 0)}, SAME_ORDERS),
        (
            {"x.w": BIG},
            {"x.w": BIG[[0, 2, 4]]},
            "the rows of the one stand in the other, but not one after the other, which no single rule makes",
        ),
        ({"x.w": BIG}, {"y.w": BIG[:5], "z.w": BIG[:, 1:3]}, "parts of it stand in it along several axes"),
        (
            {"x.w": BIG},
            {"y.w": BIG[:5], "z.w": BIG[6:]},
            "its parts do not cover it, and no single rule takes several parts of a tensor",
        ),
        ({"x.w": BIG[2:7]}, {"x.w": BIG}, "it has numbers beside those of the other side"),
        (
            {"x.w": BIG, "y.w": torch.cat([BIG, BIG[:2] + 1])},
            {"z.w": BIG[:5]},
            "the same numbers stand in several tensors",
        ),
    ],
    ids=["mixed", "by rows or columns", "single rows", "along both axes", "with a gap", "a part of more", "in two"],
)
def test_equal_numbers_that_no_one_rule_makes_are_open(a: State, b: State, reason: str) -> None:
    found = told(a, b)
    assert {item.reason for item in found.opens} == {reason} and not found.rules
    assert {key for item in found.opens for key in (*item.a, *item.b)} == {*a, *b}
    options = {rule for item in found.opens for option in item.options for rule in option}
    by_rows = [
        Permute("x.w", "y.w", index=index, axis=axis) for axis, index in ((0, (4, 0, 1, 2, 3)), (1, (1, 2, 3, 4, 0)))
    ]
    assert options == (set(by_rows) if reason == SAME_ORDERS else set())


@pytest.mark.parametrize(
    ("a", "b", "rule"),
    [
        ({"x.weight": BIG}, dict(zip(("q.weight", "k.weight"), BIG.chunk(2))), Split("x.bias", ("q.bias", "k.bias"))),
        (dict(zip(("q.weight", "k.weight"), BIG.chunk(2))), {"x.weight": BIG}, Concat(("q.bias", "k.bias"), "x.bias")),
        (
            {"x.weight": BIG},
            {"x.weight": BIG.flip(0)},
            Permute("x.bias", "x.bias", index=tuple(range(11, -1, -1)), axis=0),
        ),
    ],
    ids=["split", "joined", "in another order"],
)
def test_biases_that_tell_nothing_go_with_their_weights(a: State, b: State, rule: Rule) -> None:
    """Of zeros, and not where theirs are other numbers."""
    for of_b in (torch.zeros, torch.ones):
        sides = [
            {**side, **{key.replace("weight", "bias"): make(len(value)) for key, value in side.items()}}
            for side, make in ((a, torch.zeros), (b, of_b))
        ]
        reasons = [link.reason for link in told(*sides).findings.links if link.rule == rule]
        assert len(reasons) == (1 if of_b is torch.zeros else 0)
        assert all(reason.startswith("as the weight beside it, the same numbers") for reason in reasons)


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


def test_a_repeated_module_is_dropped_with_what_tells_nothing() -> None:
    a = {"head.weight": W, "head.bias": torch.zeros(4)}
    found = told({**a, **{key.replace("head", "decoder.copy"): value for key, value in a.items()}}, a)
    reason = "it repeats the other bit by bit, and B has it once"
    assert found.is_complete
    assert set(found.rules) == {Keep("head.*"), DropDuplicateOf("decoder.copy.*", "head.*", reason)}


@pytest.mark.parametrize(
    ("dtypes", "numbers", "note"),
    [
        (
            (torch.float16, torch.bfloat16),
            W,
            "A is float16 and B bfloat16, of which neither is a rounded form of the other, so numbers were not "
            "compared.",
        ),
        (
            (torch.float32, torch.float16),
            1e6 * W,
            "A is float32 and B float16, and some numbers are too large for float16, so they were not compared.",
        ),
    ],
    ids=["two kinds of rounding", "too large"],
)
def test_numbers_of_dtypes_that_cannot_be_compared_tell_nothing(dtypes, numbers: Tensor, note: str) -> None:
    """So names are left, and what they do not tell is open."""
    a, b = ({key: numbers.clamp(-60000, 60000) if dtype == torch.float16 else numbers for key in keys}
            for keys, dtype in zip((("x.w", "y.w"), ("x.w", "z.w")), dtypes))  # fmt: skip
    a, b = ({key: value.to(dtype) for key, value in side.items()} for side, dtype in zip((a, b), dtypes))
    found = told(a, b)
    assert found.notes == (note,) and not any(proposal.is_certain for proposal in found.proposals)


def test_tensors_of_numbers_that_are_not_compared_are_told_by_their_names() -> None:
    turns = W.to(torch.complex128)
    found = told({"x.w": W, "turns": turns}, {"y.w": W, "turns": turns})
    assert set(found.rules) == {Rename("x.w", "y.w"), Keep("turns")}


@pytest.mark.parametrize(
    ("shapes", "rule"),
    [
        (((4, 6), (4, 6, 1, 1)), Reshape("head.fc.weight", "head.fc.weight", (4, 6, 1, 1), (4, 6))),
        (((4, 6), (6, 4)), Permute("head.fc.weight", "head.fc.weight", axes=(1, 0))),
        (((4, 6), (6, 4, 1)), None),
    ],
    ids=["ones more", "turned", "no one rule"],
)
def test_sizes_tell_the_rule_of_a_pair_by_names(shapes: tuple[tuple[int, ...], ...], rule: Rule | None) -> None:
    a, b = (drawn(head__fc__weight=shape, **{f"x{at}": (at,)}) for at, shape in enumerate(shapes, 2))
    found = told(a, {key: value + 1 for key, value in b.items()})
    assert [link.rule for link in found.findings.links] == ([] if rule is None else [rule])
    assert rule is not None or [item.a for item in found.opens] == [("head.fc.weight",)]


@pytest.mark.parametrize("sizes", [(10, 6), (11, 6), (12, 7)], ids=["of another size", "of no equal parts", "longer"])
def test_biases_that_do_not_fit_do_not_go_with_their_weights(sizes: tuple[int, int]) -> None:
    a = {"x.weight": BIG, "x.bias": torch.zeros(sizes[0])}
    b = {"q.weight": BIG[:6], "k.weight": BIG[6:], "q.bias": torch.zeros(sizes[1]), "k.bias": torch.zeros(sizes[1])}
    assert told(a, b).rules == (Split("x.weight", ("q.weight", "k.weight")),)
    (item,) = (item for item in told(a, {key: value + 1 for key, value in b.items()}).opens if "x.weight" in item.a)
    assert all(rule.sources == ("x.weight",) for option in item.options for rule in option)


def test_parts_of_other_names_have_no_biases_and_of_many_parts_no_order_is_tried() -> None:
    a, b = drawn(x__qkv__w=(12, 4)), drawn(x__q__w=(4, 4), x__k__w=(4, 4), x__v__w=(4, 4))
    (item,) = told(a, b).opens
    assert len(item.options) == 6 and all(len(option) == 1 for option in item.options)
    found = told(drawn(x__all__w=(24, 4)), drawn(**{f"x__{name}__w": (4, 4) for name in "abcdef"}))
    assert not found.opens and found.only_a == ("x.all.w",) and len(found.only_b) == 6


def test_what_has_another_number_elsewhere_tells_nothing_of_others() -> None:
    a = {"layers.0.w": W, **{f"layers.{number}.w": torch.ones(4, 6) for number in (1, 2)}}
    b = {"blocks.5.w": W, **{f"blocks.{number}.w": torch.ones(4, 6) for number in (1, 2)}}
    found = told(a, b)
    assert found.rules == (Rename("layers.0.w", "blocks.5.w"),)
    assert [item.a for item in found.opens] == [("layers.1.w", "layers.2.w")]


@pytest.mark.parametrize("rules", [(), (Rename("x.w", "z.w"),), (Concat(("x.w", "v.w"), "y.w"),)])
def test_rules_that_do_not_say_what_was_found_are_refused(
    rules: tuple[Rule, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would be an error of the package."""
    link = Link(Rename("x.w", "y.w"), NAMES, "")
    monkeypatch.setattr(suggestion, "compress", lambda links, order: tuple(Proposal(rule, (link,)) for rule in rules))
    sides = [Side.of(name, {"x.w": StoredTensor.from_torch(W)}) for name in "AB"]
    with pytest.raises(ConversionError, match="The rules that were made do not say of `x.w` what was found of it."):
        suggestion.told(*sides, Findings((link,)), "A", "B")


def test_numbers_within_names_tell_what_their_words_do_not() -> None:
    a = drawn(**{f"norm{number}__weight": (4,) for number in (1, 2)})
    b = {f"ln{number}.weight": torch.ones(4) for number in (2, 1)}
    found = told(a, b)
    assert found.rules == (Rename("norm1.weight", "ln1.weight"), Rename("norm2.weight", "ln2.weight"))
    assert found.proposals[0].evidence.endswith("the number 1 in their names")


def test_what_is_called_as_others_that_are_known_goes_with_them() -> None:
    """Weights of the third block are as they were before a training, and alike."""
    a = drawn(**{f"layers__{i}__n{j}__weight": (4,) for i in range(2) for j in (1, 2)})
    a |= {f"layers.2.n{j}.weight": torch.ones(4) for j in (1, 2)}
    b = {key.replace("layers", "blocks").replace("n1", "last").replace("n2", "attn"): value for key, value in a.items()}
    found = told(a, b)
    assert set(found.rules) == {
        Rename("layers.*.n1.weight", "blocks.*.last.weight"), Rename("layers.*.n2.weight", "blocks.*.attn.weight")
    }  # fmt: skip
    reasons = {link.rule.sources[0]: link.reason for link in found.findings.links}
    assert reasons["layers.2.n1.weight"] == "called as 2 others that are known"


def test_channels_of_four_places_are_open_though_names_pair_them() -> None:
    shapes = {"norm.weight": (8,), "norm.bias": (8,), "reduction.weight": (4, 8)}
    a, b = (
        drawn(**{f"{name}__{key.replace('.', '__')}": shape for key, shape in shapes.items()})
        for name in ("merging", "merge")
    )
    b = {key: value + 1 for key, value in b.items()}
    opens = {item.a: item for item in told(a, b).opens}
    assert opens.keys() == {(f"merging.{key}",) for key in shapes}
    for key in shapes:
        item = opens[f"merging.{key}",]
        assert item.b == (f"merge.{key}",) and "it joins the channels of four places" in item.reason
        assert item.options[0] == (Rename(*item.a, *item.b),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cls_branches", ("cls", "branch")), ("anchorBoxes", ("anchor", "box")), ("FPNLayers2", ("fpn", "layer", "2")),
        ("dashes", ("dash",)), ("classes", ("class",)), ("loss", ("loss",)), ("pos", ("pos",)),
    ],
)  # fmt: skip
def test_plurals_are_the_words_that_they_are_of(text: str, expected: tuple[str, ...]) -> None:
    assert tokens.words(text) == expected


def test_an_output_without_numbers_neither_proves_nor_contradicts() -> None:
    none, some = np.zeros((0, 3)), np.ones(2)
    assert gap_of([none, some], [none, some], True).is_equal
    assert not gap_of([none], [none], True).is_equal


def test_results_of_runs_that_call_other_modules_are_not_compared() -> None:
    before = Run((), (("a", "out", (1.0, 2.0, 3.0)), ("b", "out", (1.0, 5.0, 6.0))))
    after = Run((), (("a", "out", (1.0, 7.0, 8.0)), ("b", "out", (1.0, 5.0, 6.0))))
    assert changed_results(before, after) == [(1.0, 2.0, 3.0)]
    assert changed_results(before, Run((), after.calls[:1])) == []


@pytest.mark.parametrize(("parts", "shown", "more"), [(3, 6, 0), (4, 8, 16)])
def test_the_file_counts_orders_that_it_does_not_list(parts: int, shown: int, more: int) -> None:
    a, b = drawn(qkvo__weight=(4 * parts, 4)), drawn(**{f"{name}__weight": (4, 4) for name in "qkvo"[:parts]})
    text = telling.file_text(told(a, b), ".json")
    assert text.count("perhaps: split") == shown and text.count("or one of") == bool(more)
    assert not more or f"  or one of {more} more orders" in text


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
    rules.unlink()
    gone = run(cli, ["verify", str(out)])
    assert gone.exit_code == 1 and f"Cannot check the rules of `{out}`: The rules cannot be used: " in gone.output


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


def test_a_file_of_rules_is_not_replaced_unasked(files: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "rules.py"
    out.write_text("mine")
    done = CliRunner().invoke(cli, ["suggest", *files, "--out", str(out)])
    assert done.exit_code == 2 and out.read_text() == "mine"
    assert done.output == f"error: The file {out} exists; pass --force to replace it.\n"


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
