"""A verdict reads well in 80 columns, ends in a line that can be grepped, and is valid JSON."""

import io
import json
import math
import re

import pytest
import torch
from rich.console import Console

from parity.comparing.compare import Tolerance
from parity.comparing.pairing import LEGACY, NEW, Exclusion
from parity.report.report import closing_line, memory_line, print_verdict
from parity.report.report_json import as_dict
from parity.report.stages import stages
from parity.verdict.verdict import with_isolation

from .synthetic import INF, NAN, Rec, judged

LOOSE = Tolerance("fixed", rtol=0.0, atol=0.5)
LONG = "bbox_head.aux_reg_branches.6." + ".".join(f"a_rather_long_submodule_{i}" for i in range(5))
COLOUR = re.compile(r"\x1b\[(\d+;)*(3|4)\dm")


def printed(verdict, quiet=False, **console):
    """Return what is printed on a terminal of 80 columns."""
    file = io.StringIO()
    print_verdict(verdict, Console(file=file, width=80, **console), quiet)
    return file.getvalue()


def strict(verdict):
    """Return the verdict read back from JSON by a reader that knows no NaN and no Infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(json.dumps(as_dict(verdict)), parse_constant=refuse)


def two_tensors(folder, legacy, new, **more):
    return judged(folder, [Rec("module_out", "m", legacy)], [Rec("module_out", "m", new)], **more)


RUN = [
    Rec("param", "backbone.conv.weight", phase="weights"),
    Rec("param", "head.weight", phase="weights"),
    Rec("module_in", "backbone.conv", slot="x", phase="predict"),
    Rec("module_out", "backbone", [1.0, 2.0], phase="predict"),
    Rec("tap", "distinct", [1, 2], slot="keep", phase="predict", scope="head"),
    Rec("tap", "result", 0.5, slot="scores", phase="predict"),
    Rec("module_out", "backbone", [1.0, 2.0]),
    Rec("tap", "noise", 0.1, "draw", scope="head"),
    Rec("loss", "total", 3.0),
    Rec("grad", "head.weight", 0.1),
]


def test_records_are_grouped_by_stage_in_the_order_the_stages_ran(tmp_path):
    new = [Rec("module_out", "backbone", [1.25, 4.0]) if i == 6 else record for i, record in enumerate(RUN)]
    verdict = judged(tmp_path, RUN, new[::-1], tolerance=LOOSE)
    found = [(s.name, s.records, s.identical, s.accepted) for s in stages(verdict.comparisons)]
    assert found == [
        ("weights", 2, 2, 2),
        ("inference: backbone", 2, 2, 2),
        ("inference: decisions", 1, 1, 1),
        ("inference: result", 1, 1, 1),
        ("training: backbone", 1, 0, 0),
        ("training: random draws", 1, 1, 1),
        ("training: losses", 1, 1, 1),
        ("training: gradients", 1, 1, 1),
    ]


@pytest.mark.parametrize(
    ("gaps", "identical", "accepted", "worst"),
    [
        ((0.0, 0.0, 0.0), 3, 3, None),
        ((0.25, 0.0, 0.5), 1, 3, 2),
        ((0.25, 2.0, 0.5), 0, 2, 1),
        ((0.0, 0.25, 0.0), 2, 3, 1),
        # another shape is worse than any number
        ((8.0, "shape", 0.5), 0, 1, 1),
    ],
    ids=str,
)
def test_stage_counts_and_names_its_worst_record(tmp_path, gaps, identical, accepted, worst):
    new = [[1.0, 1.0] if gap == "shape" else [1.0 + gap] for gap in gaps]
    verdict = judged(
        tmp_path,
        [Rec("module_out", "m", [1.0], call=i) for i in range(3)],
        [Rec("module_out", "m", values, call=i) for i, values in enumerate(new)],
        tolerance=LOOSE,
    )
    (stage,) = stages(verdict.comparisons)
    assert (stage.records, stage.identical, stage.accepted) == (3, identical, accepted)
    assert (stage.worst.pair.new.call if stage.worst else None) == worst


@pytest.mark.parametrize(
    ("legacy", "new", "tolerance", "line"),
    [
        ([1.0], [1.0], Tolerance(), "MATCH 1 of 1 record bit-identical"),
        ([1.0], [1.0], LOOSE, "MATCH 1 of 1 record bit-identical"),
        ([1.0], [1.5], LOOSE, "MATCH 0 of 1 record bit-identical, 1 within fixed tolerance (rtol 0, atol 0.5)"),
        ([1.0], [1.5], Tolerance(), "MISMATCH 1 of 1 record differs. First at m."),
    ],
    ids=str,
)
def test_closing_line(tmp_path, legacy, new, tolerance, line):
    assert closing_line(two_tensors(tmp_path, legacy, new, tolerance=tolerance)) == line


def test_closing_line_of_what_proves_nothing_gives_every_reason(tmp_path):
    verdict = judged(tmp_path, [Rec("loss", "a"), Rec("loss", "b")], [Rec("loss", "a")],
                     on_legacy=dict(leaf_calls={"neck": 1}))  # fmt: skip
    assert closing_line(verdict) == (
        "INCOMPARABLE 1 record has no twin and no written exclusion, the first is loss `b` of the legacy side. "
        "1 of 1 leaf call of the legacy side has no twin. First at b."
    )


def verdict_of(folder, word):
    if word == "INCOMPARABLE":
        return judged(folder, [Rec("module_out", LONG, slot="x" * 60)], [])
    return judged(folder, [Rec("module_out", LONG)], [Rec("module_out", LONG, 1.0 if word == "MATCH" else 2.0)])


@pytest.mark.parametrize("word", ["MATCH", "MISMATCH", "INCOMPARABLE"])
@pytest.mark.parametrize("quiet", [False, True], ids=["full", "quiet"])
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_last_line_alone_starts_with_the_verdict_and_is_not_wrapped(tmp_path, word, quiet, terminal):
    verdict = verdict_of(tmp_path, word)
    lines = printed(verdict, quiet, force_terminal=terminal).splitlines()
    assert lines[-1] == closing_line(verdict)
    assert [line for line in lines if re.match("(MATCH|MISMATCH|INCOMPARABLE) ", line)] == [lines[-1]]
    assert lines[-1].startswith(f"{word} ")


@pytest.mark.parametrize("word", ["MATCH", "MISMATCH", "INCOMPARABLE"])
def test_quiet_prints_the_verdict_line_only(tmp_path, word):
    assert len(printed(verdict_of(tmp_path, word), quiet=True).splitlines()) == 1


def test_table_keeps_to_80_columns_with_long_names(tmp_path):
    name = "very_long_stage_name_of_a_plugin_head_that_goes_on_and_on." + LONG
    reason = "left out because " + "there are many words to say about it " * 5
    legacy = [Rec("module_out", name, 1.0, slot="0.scores.level_0"), Rec("module_in", "mask", slot="key_padding_mask")]
    legacy += [Rec("tap", "filler", float(i), call=i) for i in range(100)]
    new = [Rec("module_out", name, 1.0e30, slot="0.scores.level_0"), *legacy[2:]]
    exclusion = Exclusion(LEGACY, "module_in", "mask*", "*", reason)
    verdict = judged(tmp_path, legacy, new, exclusions=(exclusion,), tolerance=LOOSE)
    *body, last = printed(verdict).splitlines()
    assert max(len(line) for line in body) <= 80 and last == closing_line(verdict)
    (row,) = [line for line in body if line.startswith("training: very_long_stage")]
    assert re.search(r"… +1 +0 +1e\+30  very_long_stage.*…", row)
    assert " ".join(reason.split()) in " ".join("\n".join(body).split())


@pytest.mark.parametrize(
    ("legacy", "new", "cells"),
    [
        ([1.0], [1.0], ["1", "1", "0"]),
        ([1.0], [1.25], ["1", "1", "0.25"]),  # within the tolerance
        ([1.0], [3.0], ["1", "0", "2"]),
        ([1.0], [1.0, 1.0], ["1", "0", "n/a"]),
    ],
    ids=str,
)
def test_table_row_gives_records_equal_ones_and_largest_difference(tmp_path, legacy, new, cells):
    text = printed(two_tensors(tmp_path, legacy, new, tolerance=LOOSE))
    (row,) = [line for line in text.splitlines() if line.startswith("training: m")]
    assert row.split()[2:5] == cells


@pytest.mark.parametrize("slot", ["losses[a]", "[/red]", "[bold]x", "(0, 1)"])
def test_brackets_in_names_are_text(tmp_path, slot):
    verdict = judged(tmp_path, [Rec("module_out", "m", 1.0, slot=slot)], [Rec("module_out", "m", 2.0, slot=slot)])
    assert f"m#0.{slot}" in printed(verdict)


@pytest.mark.parametrize(
    ("legacy", "new", "says"),
    [
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.5, 3.0, 4.0], "25.0% of the elements differ, largest by 0.5"),
        ([1.0, NAN], [1.0, 1.0], "1 NaN on one side only"),
        ([1.0], [1], "F32[1] became I64[1]"),
    ],
    ids=str,
)
def test_first_divergence_is_told_in_words_and_numbers(tmp_path, legacy, new, says):
    text = printed(two_tensors(tmp_path, legacy, new))
    assert "first divergence: `m` (call 0 of the train phase) gives another output" in text and says in text


def test_coverage_is_told_with_the_reason_of_every_exclusion(tmp_path):
    extra = [Rec("module_out", "decoder", [1.0], slot=f"2.{i}") for i in range(3)]
    masks = Exclusion(NEW, "module_out", "decoder", "2.*", "an output here")
    unused = Exclusion(NEW, "module_out", "encoder", "*", "does not occur")
    leaves = dict(leaf_calls={"m": 4})
    verdict = judged(tmp_path, [Rec("loss", "a")], [Rec("loss", "a"), *extra], exclusions=(masks, unused),
                     on_legacy=leaves, on_new=leaves)  # fmt: skip
    text = printed(verdict)
    assert "leaf calls paired 4 of 4, records excluded 3, unaccounted 0" in text
    assert "  excluded 3 x new module_out decoder 2.*: an output here" in text and "does not occur" not in text
    assert strict(verdict)["coverage"]["excluded"] == ["3 x new module_out decoder 2.*: an output here"]


def selection(keep, scores):
    """Return a choice and the scores it rests on, as the head of a detector makes it."""
    return [
        Rec("basis", "dense", scores, "scores", phase="predict", scope="head"),
        Rec("tap", "dense", keep, "keep", phase="predict", scope="head"),
    ]


OUT = Rec("module_out", "m", phase="predict")


def test_first_divergence_of_a_decision_is_told_by_its_margin_and_not_by_its_indices(tmp_path):
    verdict = judged(tmp_path, [OUT, *selection([0], [0.875, 0.25])], [OUT, *selection([1], [0.875, 0.25])])
    text = printed(verdict)
    told = text[text.index("first divergence: `head` decides differently") :].splitlines()
    assert told[2:-1] == [
        "  predict dense#0: score margin 0.62 on equal numbers: no tie: it breaks the",
        "      rule on its own numbers",
        "  the new side leaves out 0 (0.875) and takes 1 (0.25)",
    ]
    assert "elements differ" not in text and "decided differently: 1 no tie" in text
    # how far apart two indices are says nothing
    (row,) = [line for line in text.splitlines() if line.startswith("inference: decisions")]
    assert row.split()[2:5] == ["2", "1", "n/a"]


def test_first_divergence_of_a_basis_tells_what_becomes_of_the_decision(tmp_path):
    near = 0.5 + 2.0**-20
    verdict = judged(tmp_path, [OUT, *selection([0], [0.5, 0.25])], [OUT, *selection([1], [0.25, near])])
    text = " ".join(printed(verdict).split())
    assert "`head` decides on another `scores`" in text and "100.0% of the elements differ, largest by 0.25" in text
    assert "predict dense#0: score margin 0.25, measured difference explains 0.5: explained by the difference" in text


def test_difference_of_a_single_number_is_told_without_shares(tmp_path):
    text = printed(two_tensors(tmp_path, 1.0, 1.5))
    assert "\n  differs by 0.5\n" in text and "elements" not in text


def result(scores, labels, boxes):
    values = dict(bboxes=torch.tensor(boxes).reshape(-1, 4), scores=scores, labels=torch.tensor(labels))
    return [Rec("tap", "result", value, slot, phase="predict") for slot, value in values.items()]


CAT, DOG = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 70.0]


def test_detections_are_told_where_they_differ(tmp_path):
    legacy = result([0.75, 0.5], [1, 2], [CAT, DOG])
    new = result([0.5, 0.25], [2, 1], [DOG, [80.0, 80.0, 90.0, 90.0]])
    verdict = judged(tmp_path, [OUT, *legacy], [OUT, *new])
    text = printed(verdict)
    assert (
        "detections, matched one to one\n"
        "  image 0: 1 matched of 2 / 2, worst IoU 1, largest score gap 0\n"
        "    legacy only: label 1 score 0.75\n"
        "    new only: label 1 score 0.25\n"
    ) in text
    (image,) = strict(verdict)["detections"]
    assert image == {
        "image": 0, "legacy": 2, "new": 2, "matched": 1, "in_another_order": 0, "worst_iou": 1.0, "score_gap": 0.0,
        "unmatched": {
            "legacy": [{"row": 0, "label": 1, "score": 0.75}], "new": [{"row": 1, "label": 1, "score": 0.25}],
        },
    }  # fmt: skip


def test_detections_in_another_order_are_told_to_be_the_same(tmp_path):
    legacy, new = result([0.5, 0.5], [1, 2], [CAT, DOG]), result([0.5, 0.5], [2, 1], [DOG, CAT])
    text = " ".join(printed(judged(tmp_path, [OUT, *legacy], [OUT, *new])).split())
    assert "image 0: 2 matched of 2 / 2, 2 in another order, worst IoU 1, largest score gap 0" in text


def test_detections_that_are_equal_are_in_the_json_only(tmp_path):
    records = [OUT, *result([0.75, 0.5], [1, 2], [CAT, DOG])]
    verdict = judged(tmp_path, records, records)
    text = printed(verdict)
    assert "matched one to one" not in text and "image 0" not in text
    assert "classes detected 2: labels of 2 detections in 1 image\n" in text
    assert [(i["matched"], i["legacy"], i["new"]) for i in strict(verdict)["detections"]] == [(2, 2, 2)]


def test_detections_of_many_images_keep_to_few_lines_of_80_columns(tmp_path):
    sides = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        records = [OUT]
        for image in range(9):
            boxes = torch.rand(300, 2, generator=generator) * 1e5
            values = dict(
                bboxes=torch.cat([boxes, boxes + 5], 1), scores=torch.rand(300, generator=generator),
                labels=torch.randint(0, 10**9, (300,), generator=generator),
            )  # fmt: skip
            records += [Rec("tap", "result", v, slot, image, "predict") for slot, v in values.items()]
        sides.append(records)
    verdict = judged(tmp_path, *sides)
    lines = printed(verdict).splitlines()[:-1]
    told = lines[lines.index("detections, matched one to one") : lines.index("  and 5 more images, see --json") + 1]
    assert len(told) == 14 and max(map(len, lines)) <= 80
    assert told[1] == "  image 0: 0 matched of 300 / 300" and told[2].endswith(" more)")
    assert len(strict(verdict)["detections"][8]["unmatched"]["new"]) == 300


def test_score_that_is_no_number_is_null_in_json(tmp_path):
    legacy, new = result([NAN, 0.5], [1, 2], [CAT, DOG]), result([0.5, 0.5], [1, 3], [CAT, DOG])
    (image,) = strict(judged(tmp_path, [OUT, *legacy], [OUT, *new]))["detections"]
    assert image["score_gap"] is None and image["matched"] == 1


def test_coverage_is_printed_and_cut(tmp_path):
    verdict = judged(tmp_path, [OUT], [OUT], on_legacy=dict(leaf_calls={f"decoder.layers.{i}": 1 for i in range(99)}),
                     on_new=dict(never_executed=tuple(f"decoder.layers.{i}" for i in range(99))))  # fmt: skip
    lines = printed(verdict).splitlines()
    assert "  ran on the legacy side only: decoder.layers.0 x1 (train) (+98 more)" in lines
    assert sum("decoder.layers" in line for line in lines) == 2


def test_no_color_is_honoured(tmp_path, monkeypatch):
    verdict = two_tensors(tmp_path, [1.0], [2.0])
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert COLOUR.search(printed(verdict, force_terminal=True))
    assert not COLOUR.search(printed(two_tensors(tmp_path / "equal", [1.0], [1.0]), force_terminal=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(printed(verdict, force_terminal=True))


def test_pipe_gets_no_escapes(tmp_path):
    assert "\x1b" not in printed(two_tensors(tmp_path, [1.0], [2.0]))


@pytest.mark.parametrize(
    ("legacy", "new", "max_abs", "share", "note"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5, 0.5, ""),
        ([NAN, 1.0], [1.0, 1.0], 0.0, 0.5, "1 NaN on one side only"),
        ([NAN], [1.0], 0.0, 1.0, "1 NaN on one side only"),
        ([INF], [1.0], 0.0, 1.0, "1 Inf against another value"),
        ([1.0], [1.0, 2.0], None, 1.0, "F32[1] became F32[2]"),
        ([1.0], [1], None, 1.0, "F32[1] became I64[1]"),
        # the difference of two finite doubles may be infinite
        (torch.tensor([1.7e308], dtype=torch.float64), torch.tensor([-1.7e308], dtype=torch.float64), None, 1.0, ""),
    ],
    ids=str,
)
def test_json_is_valid_whatever_differs(tmp_path, legacy, new, max_abs, share, note):
    data = strict(two_tensors(tmp_path, legacy, new))
    (item,) = data["differing"]
    assert (item["max_abs"], item["differing_share"], item["note"]) == (max_abs, share, note)
    assert data["first_divergence"]["where"] == "m" and data["first_divergence"]["record"] == item


def test_json_says_what_the_terminal_says(tmp_path):
    new = [Rec("module_out", "backbone", [1.25, 4.0]) if i == 6 else record for i, record in enumerate(RUN)]
    verdict = judged(tmp_path, RUN, new, tolerance=LOOSE, on_new=dict(commit="abc"))
    data = strict(verdict)
    assert (data["verdict"], data["exit_code"], data["summary"]) == ("MISMATCH", 1, closing_line(verdict))
    assert (data["records"], data["identical"], data["accepted"]) == (10, 9, 9)
    assert data["tolerance"] == {"name": "fixed", "rtol": 0.0, "atol": 0.5}
    assert data["stages"][4] == {"name": "training: backbone", "records": 1, "identical": 0, "accepted": 0}
    assert [(d["phase"], d["kind"], d["name"], d["accepted"]) for d in data["differing"]] == [
        ("train", "module_out", "backbone", False)
    ]
    assert data["provenance"]["new"]["commit"] == "abc" and data["provenance"]["legacy"]["seed"] == 0


def test_json_lists_what_is_unaccounted_and_one_sided(tmp_path):
    verdict = judged(
        tmp_path,
        [Rec("loss", "a"), Rec("module_out", "m", slot="1", call=2)],
        [Rec("loss", "a"), Rec("tap", "result", phase="predict")],
        on_legacy=dict(without_gradient=("neck.weight",), never_executed=("dead",)),
    )
    coverage = strict(verdict)["coverage"]
    assert coverage["unaccounted"] == ["legacy train module_out m#2 1", "new predict tap result#0"]
    assert coverage["gradients_on_one_side"] == ["neck.weight"]
    assert coverage["never_executed"] == {"legacy": ["dead"], "new": []}
    assert strict(verdict)["first_divergence"]["where"] == "m"


TINY = dict(family="mmdet_ddq", variant="tiny_4scale")


@pytest.mark.parametrize(("new", "code"), [(1.0, 0), (2.0, 1)], ids=["match", "mismatch"])
def test_command_line_prints_json_and_exits_by_the_verdict(parity, tmp_path, new, code):
    judged(tmp_path, [Rec("loss", "total", 1.0)], [Rec("loss", "total", new)], on_legacy=TINY, on_new=TINY)
    folders = (tmp_path / "legacy", tmp_path / "new")
    result = parity("compare", *folders, "--family", "mmdet_ddq", "--variant", "tiny_4scale", "--json")
    assert result.exit_code == code and json.loads(result.stdout)["exit_code"] == code


def test_command_line_exits_3_when_nothing_was_compared(parity, tmp_path):
    judged(tmp_path, [], [], on_legacy=TINY, on_new=TINY)
    folders = (tmp_path / "legacy", tmp_path / "new")
    result = parity("compare", *folders, "--family", "mmdet_ddq", "--variant", "tiny_4scale", "-q")
    assert result.exit_code == 3 and result.stdout.startswith("INCOMPARABLE Nothing")


def test_figures_of_every_differing_record_are_in_the_json(tmp_path):
    legacy = [Rec("module_out", "m", [1.0, 2.0, NAN, INF]), Rec("module_out", "n", [2]), Rec("module_out", "o", [1.0])]
    new = [Rec("module_out", "m", [1.0, 2.5, NAN, 1.0]), Rec("module_out", "n", [5]), Rec("module_out", "o", [1])]
    one, two, three = (item["metrics"] for item in strict(judged(tmp_path, legacy, new))["differing"])
    assert one == {
        "elements": 4, "max_rel": 0.25, "mean_abs": 0.25, "cosine": pytest.approx(6 / math.sqrt(5 * 7.25)),
        "ulps": 1 << 21, "nan": {"legacy": 1, "new": 1}, "inf": {"legacy": 1, "new": 0},
    }  # fmt: skip
    assert (two["ulps"], two["mean_abs"], two["max_rel"], two["cosine"]) == (3, 3.0, 1.5, 1.0)
    assert three is None  # other dtypes: nothing to measure


def test_figures_that_are_no_numbers_are_null_in_the_json(tmp_path):
    huge = torch.tensor([1.7e308], dtype=torch.float64)
    (item,) = strict(two_tensors(tmp_path / "a", huge, -huge))["differing"]
    assert item["metrics"]["mean_abs"] is None and item["metrics"]["cosine"] == -1.0
    (item,) = strict(two_tensors(tmp_path / "b", [0.0], [1.0]))["differing"]
    assert item["metrics"]["cosine"] is None and item["metrics"]["max_rel"] == 0.0


@pytest.mark.parametrize(
    ("legacy", "new", "says"),
    [
        ([1.0, 2.0], [1.0, 2.5], "  max 0.5, relative 0.25, mean 0.25, cosine 0.996545758, 2097152 ULP\n"),
        ([1.0, NAN], [1.0, 1.0], "  max 0, relative 0, mean 0, cosine 1, 0 ULP, NaN 1 and 0\n"),
        ([INF, 1.0], [1.0, 1.0], "0 ULP, Inf 1 and 0\n"),
        ([1], [3], "  max 2, relative 2, mean 2, cosine 1, 2 ULP\n"),
    ],
    ids=str,
)
def test_first_divergence_gives_the_figures_in_a_line(tmp_path, legacy, new, says):
    text = printed(two_tensors(tmp_path, legacy, new))
    assert says in text and max(map(len, text.splitlines())) <= 80


def test_figures_are_left_out_where_nothing_was_measured(tmp_path):
    assert "ULP" not in printed(two_tensors(tmp_path, [1.0], [1]))


def test_widest_figures_keep_to_80_columns(tmp_path):
    legacy = torch.tensor([1.2345e-30, NAN, INF, 3.4e38])
    verdict = two_tensors(tmp_path, legacy, torch.tensor([-1.2345e30, 1.0, -INF, -3.4e38]))
    *body, _ = printed(verdict).splitlines()
    assert max(map(len, body)) <= 80 and "ULP" in "".join(body)


def test_isolated_run_that_cannot_be_compared_does_not_read_as_clean(tmp_path):
    verdict = two_tensors(tmp_path / "ordinary", [1.0], [1.0])
    alone = two_tensors(tmp_path / "isolated", [1.0], [1.0], on_new=dict(threads=8))
    merged = with_isolation(verdict, alone, [c.pair.legacy for c in verdict.comparisons])
    text = printed(merged)
    assert "nothing computes anything else" not in text and "isolated: not comparable: threads is 2" in text
    assert text.splitlines()[-1].startswith("INCOMPARABLE Isolated: threads is 2")
    assert strict(merged)["isolated_reasons"] == list(merged.isolation.reasons)


def test_peak_memory_of_each_side_is_told_in_gigabytes():
    provenance = {
        "legacy": {"peak_memory": {"process": 5_120_000_000}},
        "new": {"peak_memory": {"process": 4_900_000_000, "gpu": 12_345_000_000}},
    }
    assert memory_line(provenance) == "peak memory: legacy 5.1 GB, new 4.9 GB and 12.3 GB on the GPU"


def test_no_line_of_memory_where_none_is_recorded():
    assert memory_line({"legacy": {}, "new": {}}) == ""
