"""Comparison of two trainings by their logs."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from parity.curves.alignment import same_numbers
from parity.curves.curves import AP, LEVEL, STRETCH, compare
from parity.curves.logs import load, renamed
from parity.curves.report import place
from parity.curves.runlog import BadLogError
from parity.verdict.outcome import INCOMPARABLE, MATCH, MISMATCH

from .training_logs import TERMS, training, write_mmdet2, write_mmengine

SIZE = dict(epochs=4, length=40)
BAND = 5


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Return a function that gives the log of a made-up training; the reference is mmdet 2.x's, of every 10th."""
    folder = tmp_path_factory.mktemp("logs")

    def make(seed, write=write_mmengine, interval=5, **changes):
        name = f"{seed}-{write.__name__}-{interval}-{abs(hash(str(changes)))}"
        if not (folder / name).exists():
            write(folder / name, training(seed, **{**SIZE, **changes}), interval)
        return folder / name

    return make


@pytest.fixture(scope="module")
def reference(logs):
    return [load(logs(seed, write_mmdet2, 10)) for seed in range(BAND)]


def test_another_seed_matches_at_another_interval_and_in_another_format(reference, logs):
    verdict = compare(reference[0], load(logs(50)), reference[1:])
    assert verdict.outcome == MATCH and verdict.exit_code == 0 and verdict.reasons == ()
    found = {kind: [q for q in verdict.quantities if q.kind == kind] for kind in (LEVEL, STRETCH, AP)}
    assert [len(found[kind]) for kind in (LEVEL, STRETCH, AP)] == [5, 20, 4]
    assert {q.name for q in found[LEVEL]} == {*TERMS, "loss"} and [q.end for q in found[AP]] == [1, 2, 3, 4]
    assert all(q.accepted and len(q.band) == BAND - 1 for q in verdict.quantities)


def test_means_over_stretches_do_not_depend_on_the_logging_interval(logs):
    one, two = (load(logs(7, write, interval)) for write, interval in ((write_mmengine, 5), (write_mmdet2, 20)))
    verdict = compare(one, two)
    for quantity in verdict.quantities:
        assert quantity.a == pytest.approx(quantity.b, abs=2e-5)
    stretches = [q for q in verdict.quantities if q.kind == STRETCH and q.name == "loss_cls"]
    run = training(7, **SIZE).terms["loss_cls"]
    assert [q.a for q in stretches] == pytest.approx([run[i : i + 40].mean() for i in range(0, 160, 40)])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (dict(changes={"loss_bbox": 1.25}), {"loss_bbox"}),
        (dict(changes={"loss_cls": 0.8, "d0.dn_loss_cls": 1.25}), {"loss_cls", "d0.dn_loss_cls"}),
        (dict(ap_shift=-0.05), {"bbox_mAP"}),
    ],
)
def test_a_planted_difference_is_named(reference, logs, changes, names):
    verdict = compare(reference[0], load(logs(51, **changes)), reference[1:])
    assert verdict.outcome == MISMATCH and verdict.exit_code == 1
    assert {quantity.name for quantity in verdict.rejected} - {"loss"} == names


def test_a_difference_of_one_phase_is_found_where_it_is(reference, logs, tmp_path):
    run = training(52, **SIZE)
    run.terms["loss_iou"][40:80] *= 1.3
    verdict = compare(reference[0], load(write_mmengine(tmp_path, run)), reference[1:])
    stretches = [q for q in verdict.rejected if q.kind == STRETCH and q.name == "loss_iou"]
    assert [(q.start, q.end) for q in stretches] == [(1.0, 2.0)]


def test_false_alarms_are_as_rare_as_asked_for(tmp_path):
    """Every comparison is of six trainings that differ by their seed only, also by an offset of the whole run."""
    outcomes = []
    for trial in range(30):
        trained = (training(1000 * trial + n, epochs=2, length=20, run_noise=0.02) for n in range(6))
        runs = [load(write_mmengine(tmp_path / f"{trial}-{n}", run)) for n, run in enumerate(trained)]
        outcomes.append(compare(runs[0], runs[1], runs[2:], level=0.2).outcome)
    # 6 expected at most; more than 11 of 30 would come up once in 100 times
    assert outcomes.count(MISMATCH) < 12


def test_without_repeated_runs_there_is_no_verdict_but_differences(reference, logs):
    verdict = compare(reference[0], load(logs(50)))
    assert verdict.outcome == INCOMPARABLE and verdict.exit_code == 3
    assert len(verdict.reasons) == 1 and "--band" in verdict.reasons[0]
    assert all(quantity.accepted is None and quantity.a != quantity.b for quantity in verdict.quantities)


def test_few_repeated_runs_resolve_nothing_and_earn_no_match(reference, logs):
    for count in (1, 2):
        verdict = compare(reference[0], load(logs(50)), reference[1 : 1 + count])
        assert verdict.outcome == INCOMPARABLE and "more repeated runs" in verdict.reasons[0]
    assert compare(reference[0], load(logs(50)), reference[1:3], resolve=10.0).outcome == MATCH


def test_same_numbers_match_without_repeated_runs(logs, tmp_path):
    verdict = compare(load(logs(3)), load(write_mmengine(tmp_path, training(3, **SIZE))))
    assert verdict.outcome == MATCH and verdict.identical
    other = training(3, **SIZE)
    other.terms["loss_cls"][100] += 1e-9
    assert not same_numbers(load(logs(3)), load(write_mmengine(tmp_path / "other", other)))


def test_same_numbers_of_a_part_are_no_match(tmp_path):
    logs = [load(write_mmengine(tmp_path / name, training(3, **SIZE), start=3)) for name in "ab"]
    verdict = compare(*logs)
    assert verdict.identical and verdict.outcome == INCOMPARABLE and "begins at 2.125 epochs, as the log of a resumed" in verdict.reasons[0]


def test_a_term_on_one_side_is_named_and_no_match(reference, logs, tmp_path):
    run = training(50, **SIZE)
    run.terms["enc_loss_cls"] = run.terms.pop("d0.dn_loss_cls")
    b = load(write_mmengine(tmp_path, run))
    verdict = compare(reference[0], b, reference[1:])
    assert verdict.outcome == INCOMPARABLE
    told = " ".join(verdict.reasons)
    assert "`enc_loss_cls`" in told and "`d0.dn_loss_cls`" in told
    out = compare(reference[0], b, reference[1:], excluded=["enc_loss_cls", "d0.dn_loss_cls"])
    assert out.outcome == MATCH and "left out as asked for" in out.notes[0]
    with pytest.raises(BadLogError, match="no loss term `x`|loss term `x`"):
        compare(reference[0], b, excluded=["x"])


def every_nan(curve):
    return replace(curve, values=np.full_like(curve.values, math.nan))


def without_term(file, lacking):
    """Write the log again, without ``loss_iou`` in the entries of training whose numbers are given."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    training_rows = [row for row in rows if "loss" in row]
    for number in lacking:
        del training_rows[number]["loss_iou"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(file)


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        (range(16, 32), "`loss_iou` in 16 of 32 entries (from 2.125 epochs on)"),
        ([31], "`loss_iou` in 1 of 32 entries (from 4 epochs on)"),
        (range(0, 32, 4), "`loss_iou` in 8 of 32 entries (first at 0.125 epochs)"),
        (range(8, 11), "`loss_iou` in 3 of 32 entries (first at 1.125 epochs)"),
    ],
)
def test_a_term_in_part_of_a_log_is_named_and_no_match(reference, tmp_path, lacking, says):
    b = without_term(write_mmengine(tmp_path, training(50, **SIZE)), lacking)
    verdict = compare(reference[0], b, reference[1:])
    assert verdict.outcome == INCOMPARABLE and f"{b.name} lacks {says}" in " ".join(verdict.reasons)
    assert "loss_iou" not in {q.name for q in verdict.quantities}
    assert compare(reference[0], b, reference[1:], excluded=["loss_iou"]).outcome == MATCH
    swapped = compare(b, reference[0], reference[1:])
    assert swapped.outcome == INCOMPARABLE and says in " ".join(swapped.reasons)


def test_a_term_that_lacks_an_entry_is_compared(reference, tmp_path):
    b = without_term(write_mmengine(tmp_path, training(50, **SIZE)), [7])
    assert compare(reference[0], b, reference[1:]).outcome == MATCH


def test_leaving_out_every_term_is_refused(reference, logs):
    with pytest.raises(BadLogError, match="no loss term left"):
        compare(reference[0], load(logs(50)), excluded=[*TERMS, "loss"])


def test_a_shorter_log_is_compared_and_matches_only_if_asked_for(reference, tmp_path):
    def stopped(seed, **changes):
        run = training(seed, **SIZE, **changes)
        return load(write_mmengine(tmp_path / str(seed), replace(run, aps=run.aps[:2])))

    b = stopped(50)
    verdict = compare(reference[0], b, reference[1:])
    assert verdict.outcome == INCOMPARABLE and "--until 2 " in verdict.reasons[0]
    assert compare(reference[0], b, reference[1:], until=2).outcome == MATCH
    early = compare(reference[0], b, reference[1:], until=1)
    assert {quantity.end for quantity in early.quantities if quantity.kind == AP} == {1}
    assert compare(reference[0], stopped(53, ap_shift=-0.2), reference[1:]).outcome == MISMATCH
    with pytest.raises(BadLogError, match="beyond the end"):
        compare(reference[0], b, until=7)


def test_a_log_that_begins_behind_the_end_of_what_is_compared_is_refused(reference, tmp_path):
    b = load(write_mmengine(tmp_path, training(50, **SIZE)))
    late = load(write_mmengine(tmp_path / "late", training(51, **SIZE), start=3))
    for log, until, says in ((late, 2, "begins at 2.125 epochs"), (b, 0.01, "begins at 0.25 epochs")):
        with pytest.raises(BadLogError, match=f"{says}, and what is compared ends at {until:g}; give logs of"):
            compare(reference[0], log, reference[1:], until=until)


def test_a_term_that_begins_behind_the_end_of_what_is_compared_is_left_out(tmp_path):
    logs = []
    for seed in range(BAND + 1):
        file = write_mmengine(tmp_path / str(seed), training(seed, **SIZE))
        logs.append(without_term(file, range(24)))
    a, b, *band = logs
    verdict = compare(a, b, band, until=2)
    assert verdict.outcome == MATCH and "loss_iou" not in {quantity.name for quantity in verdict.quantities}
    assert "loss_iou" in " ".join(compare(a, b, band).reasons)  # which lacks the first three epochs


def test_a_lost_part_is_no_match(reference, tmp_path):
    write_mmengine(tmp_path, training(50, **SIZE), start=2)
    verdict = compare(reference[0], load(tmp_path), reference[1:], until=4)
    assert verdict.outcome == INCOMPARABLE and "begins at 1.125 epochs, as the log of a resumed" in verdict.reasons[0]
    assert "give a work dir that holds the earlier logs, too" in verdict.reasons[0]


@pytest.mark.parametrize(("from_", "to", "says"), [
    (40, 80, "has no entries from 1 to 2.125 epochs; give a work dir that holds the log of that part, too."),
    # it reaches beyond the end of A, and of the last part that is compared there is nothing
    (40, 90, "has no entries from 1 to 2.375 epochs"),
    (80, 120, ""),
])  # fmt: skip
def test_a_lost_part_within_a_log_is_no_match_and_no_difference(tmp_path, from_, to, says):
    def stopped(seed):
        run = training(seed, **SIZE)
        return load(write_mmengine(tmp_path / str(seed), replace(run, aps=run.aps[:2]), interval=40))

    file = write_mmengine(tmp_path / "b", training(50, **SIZE))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row for row in rows if "loss" not in row or not from_ < row["step"] <= to]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    a, *band = map(stopped, range(BAND))
    verdict = compare(a, load(file), band, until=2)
    assert verdict.outcome == (INCOMPARABLE if says else MATCH) and says in " ".join(verdict.reasons), verdict.reasons
    assert all(math.isfinite(quantity.b) for quantity in verdict.quantities)


def test_logs_without_a_loss_term_in_common_are_not_comparable(reference, tmp_path):
    run = training(50, **SIZE)
    file = write_mmengine(tmp_path, replace(run, terms={f"other_{name}": values for name, values in run.terms.items()}))
    b = load(file)
    b = replace(b, terms={name: curve for name, curve in b.terms.items() if name != "loss"})
    verdict = compare(reference[0], b, reference[1:])
    assert verdict.outcome == INCOMPARABLE and "The logs have no loss term in common." in verdict.reasons
    assert {quantity.kind for quantity in verdict.quantities} == {AP}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(reference, tmp_path, value):
    run = training(50, **SIZE)
    run.terms["loss_cls"][90] = value
    bad = load(write_mmengine(tmp_path, run))
    for band in ((), reference[1:]):
        verdict = compare(reference[0], bad, band)
        assert verdict.outcome == MISMATCH and f"is {value:g} in B" in verdict.reasons[0]
    verdict = compare(bad, reference[0], reference[1:])
    assert verdict.outcome == INCOMPARABLE and "not finite in A" in " ".join(verdict.reasons)


def test_aps_on_one_side_only(reference, tmp_path):
    file = write_mmengine(tmp_path, training(50, **SIZE), text=False)
    rows = [row for row in map(json.loads, file.read_text().splitlines()) if "loss" in row]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    verdict = compare(reference[0], load(file), reference[1:])
    assert verdict.outcome == INCOMPARABLE and "has no `bbox_mAP`" in verdict.reasons[0]


def test_band_that_is_no_repetition(reference, logs):
    for band in ([reference[0]], [reference[1], load(logs(1, write_mmdet2, 10))]):
        with pytest.raises(BadLogError, match="says nothing about noise"):
            compare(reference[0], load(logs(50)), band)
    with pytest.raises(BadLogError, match="same log"):
        compare(reference[0], reference[0], reference[1:])


def test_b_is_no_repetition_of_a(reference, logs, tmp_path):
    b = load(logs(50))
    copy = load(write_mmengine(tmp_path, training(50, **SIZE)))
    for twin in (b, copy):
        with pytest.raises(BadLogError, match="cannot judge itself"):
            compare(reference[0], b, [*reference[1:], twin])
    with pytest.raises(BadLogError, match="cannot judge itself"):  # the file tells, whatever its terms are called
        compare(reference[0], renamed(b, {"loss_iou": "loss_giou"}), [b, *reference[1:]])


def test_allowed_range_of_aps_does_not_depend_on_trailing_zeros(tmp_path):
    def log(seed, ap):
        run = replace(training(seed, **SIZE), aps=np.full(4, ap))
        return load(write_mmdet2(tmp_path / f"{seed}-{ap}", run))

    runs = [log(seed, 0.48) for seed in range(5)]
    assert compare(runs[0], log(50, 0.48), runs[1:]).outcome == MATCH
    verdict = compare(runs[0], log(50, 0.475), runs[1:])
    assert verdict.outcome == MISMATCH and {q.name for q in verdict.rejected} == {"bbox_mAP"}


def test_learning_rates_that_part_are_told(logs, tmp_path):
    slow = load(write_mmengine(tmp_path, replace(training(50, **SIZE), rate=1e-4)))
    notes = compare(load(logs(3)), slow).notes
    assert notes == ("The learning rate differs from 0.125 epochs on: 0.0002 in A, 0.0001 in B.",)
    assert compare(load(logs(3)), load(logs(50))).notes == ()


def without_aps(file, epochs):
    rows = [row for row in map(json.loads, file.read_text().splitlines()) if row["step"] not in epochs or "loss" in row]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(file)


def test_more_aps_on_one_side_compare_where_both_have_one(reference, tmp_path):
    b = without_aps(write_mmengine(tmp_path, training(50, **SIZE), text=False), (1, 3))
    verdict = compare(reference[0], b, reference[1:])
    assert verdict.outcome == MATCH and [q.end for q in verdict.quantities if q.kind == AP] == [2, 4]
    assert verdict.notes == ("`bbox_mAP` is not compared after epochs 1, 3, where not every log has one.",)


def test_more_aps_in_b_are_no_reason_against_a_match(logs, tmp_path):
    def log(seed, epochs):
        return without_aps(write_mmengine(tmp_path / str(seed), training(seed, **SIZE), text=False), epochs)

    a, *band = (log(seed, (1, 2, 4)) for seed in range(BAND))
    verdict = compare(a, load(logs(50)), band)
    assert verdict.outcome == MATCH and [q.end for q in verdict.quantities if q.kind == AP] == [3]
    assert "after epochs 1, 2, 4, where not every log" in verdict.notes[0]


def test_the_last_ap_of_a_is_needed(reference, tmp_path):
    b = without_aps(write_mmengine(tmp_path / "b", training(50, **SIZE), text=False), (4,))
    said = f"{b.name} has no `bbox_mAP` after epoch 4, the last of A"
    for one, band in ((b, reference[1:]), (reference[1], [b, *reference[2:]])):
        verdict = compare(reference[0], one, band)
        assert verdict.outcome == INCOMPARABLE and said in verdict.reasons[0]
        assert [q.end for q in verdict.quantities if q.kind == AP] == [1, 2, 3]
    assert compare(reference[0], b, reference[1:], until=3).outcome == MATCH
    only = without_aps(write_mmengine(tmp_path / "only", training(51, **SIZE), text=False), (3, 4))
    verdict = compare(reference[0], only, reference[1:])
    assert verdict.outcome == INCOMPARABLE and "after epoch 4" in verdict.reasons[0]
    assert "after epochs 3, 4, where not every log" in verdict.notes[0]


class TestCommand:
    def call(self, parity, logs, *arguments, seed=50, **changes):
        band = [f"--band={logs(n, write_mmdet2, 10)}" for n in range(1, BAND)]
        return parity("curves", logs(0, write_mmdet2, 10), logs(seed, **changes), *band, *arguments)

    def test_match(self, parity, logs):
        result = self.call(parity, logs)
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[-1].startswith("MATCH 5 loss terms and 4 APs within the noise of 5 runs; losses from ")
        assert max(len(line) for line in lines[:-1] if not line.startswith(("A:", "B:", "band", "    "))) <= 80

    def test_mismatch_as_json_with_plot_and_report(self, parity, logs, tmp_path):
        out = tmp_path / "new" / "out"
        result = self.call(parity, logs, "--json", "--out", out, seed=51, changes={"loss_bbox": 1.25})
        assert result.exit_code == 1, result.output
        report = json.loads(result.stdout)
        assert report["verdict"] == "MISMATCH" and "First: loss_bbox" in report["summary"]
        assert json.loads((out / "curves.json").read_text()) == report
        assert (out / "curves.png").read_bytes().startswith(b"\x89PNG") and len(list(out.iterdir())) == 2
        again = self.call(parity, logs, "--out", out)
        assert again.exit_code == 2 and "--force" in again.stderr
        assert self.call(parity, logs, "--out", out, "--force", "-q").exit_code == 0

    def test_plot_shows_every_panel_and_marks_what_lies_outside(self, reference, logs, tmp_path, monkeypatch):
        from matplotlib.figure import Figure

        from parity.curves.plot import draw

        figures = []
        monkeypatch.setattr(Figure, "savefig", lambda figure, file: figures.append(figure))
        draw(compare(reference[0], load(logs(51, changes={"loss_bbox": 1.25})), reference[1:]), tmp_path / "x.png")
        panels = {axes.get_title(): axes for axes in figures[0].axes}
        assert set(panels) == {"bbox_mAP", "loss", *TERMS}
        marked = {title for title, axes in panels.items() if any(line.get_color() == "red" for line in axes.lines)}
        assert "loss_bbox" in marked and "loss_iou" not in marked
        assert all(axes.collections for axes in panels.values())  # the shaded intervals

    def test_plot_marks_aps_outside_and_takes_a_loss_that_is_never_a_number(self, reference, tmp_path, monkeypatch):
        from matplotlib.figure import Figure

        from parity.curves.plot import draw

        figures = []
        monkeypatch.setattr(Figure, "savefig", lambda figure, file: figures.append(figure))
        run = training(50, **SIZE, ap_shift=-0.2)
        run.terms["loss_iou"][:] = math.nan
        logs = [replace(log, terms={**log.terms, "loss_iou": every_nan(log.terms["loss_iou"])}) for log in reference]
        draw(compare(logs[0], load(write_mmengine(tmp_path, run)), logs[1:]), tmp_path / "x.png")
        panels = {axes.get_title(): axes for axes in figures[0].axes}
        marked = [line.get_xdata()[0] for line in panels["bbox_mAP"].lines if line.get_color() == "red"]
        assert marked == [1, 2, 3, 4] and "loss_iou" in panels

    def test_a_long_list_of_terms_is_cut_and_a_figure_without_bounds_is_told_as_such(self, parity, tmp_path):
        def log(seed):
            run = training(seed, **SIZE)
            terms = {f"loss_{n}": run.terms["loss_cls"] * (1 + n / 50) for n in range(30)}
            return write_mmengine(tmp_path / str(seed), replace(run, terms=terms))

        files = [log(seed) for seed in range(2 + BAND)]
        result = parity("curves", *files[:2], *(f"--band={file}" for file in files[2:]))
        shown = sum(line.startswith("loss_") for line in result.stdout.splitlines())
        assert 0 < shown < 30 and f"and {31 - shown - 1} more, not outside" in result.stdout, result.stdout
        result = parity("curves", *files[:2])
        assert "more, with smaller differences" in result.stdout

    def test_a_loss_that_is_no_number_is_shown_as_such(self, parity, logs, tmp_path):
        run = training(50, **SIZE)
        run.terms["loss_cls"][90] = math.nan
        result = parity("curves", logs(0), write_mmengine(tmp_path, run))
        row = next(line for line in result.stdout.splitlines() if line.startswith("loss_cls"))
        assert result.exit_code == 1 and row.split()[-2:] == ["nan", "nan"]

    def test_differences_without_band(self, parity, logs):
        result = parity("curves", logs(0), logs(50), "-q")
        assert result.exit_code == 3 and result.stdout.startswith("INCOMPARABLE Without repeated runs")

    def test_b_as_its_own_band(self, parity, logs):
        result = self.call(parity, logs, "--band", logs(50))
        assert result.exit_code == 2 and "cannot judge itself" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1

    def test_rename(self, parity, logs, tmp_path):
        run = training(0, **SIZE)
        run = replace(run, terms={name.replace("_iou", "_giou"): values for name, values in run.terms.items()})
        file = write_mmengine(tmp_path, run)
        result = parity("curves", logs(0), file, "--rename", "loss_giou=loss_iou", "-q")
        assert result.exit_code == 0 and "both logged the same numbers" in result.stdout, result.output

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["none", "none2"], "does not exist"),
            (["--rename", "a"], "is not a pair of names"),
            (["--until", "nan"], "number above 0"),
            (["--level", "0.9"], "0.9"),
            (["--force"], "--force needs --out"),
            (["--rename", "a=b"], "no loss term `a`"),
        ],
    )
    def test_bad_input_is_one_line(self, parity, logs, arguments, says):
        paths = [] if arguments[0] == "none" else [logs(0), logs(50)]
        result = parity("curves", *paths, *arguments)
        assert result.exit_code == 2 and says in result.stderr and len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("kind", "end", "words"), [
    (AP, 4.0, "x after epoch 4"), (LEVEL, 4.0, "x, mean of all epochs"), (STRETCH, 2.5, "x, epochs 1 to 2.5"),
])  # fmt: skip
def test_a_number_is_named_with_its_part_of_the_training(reference, logs, kind, end, words):
    verdict = compare(reference[0], load(logs(50)))
    assert place(replace(verdict.quantities[0], kind=kind, name="x", start=1.0, end=end), verdict) == words


def test_intervals_divide_the_chance_of_a_false_alarm(reference, logs):
    from parity.curves.noise import prediction_interval

    verdict = compare(reference[0], load(logs(50)), reference[1:], level=0.08)
    for kind, count, share in ((LEVEL, 5, 0.25), (STRETCH, 20, 0.25), (AP, 4, 0.5)):
        quantity = next(q for q in verdict.quantities if q.kind == kind)
        expected = prediction_interval([quantity.a, *quantity.band], 0.08 * share / count, quantity.step)
        assert quantity.interval == expected and np.isfinite(expected.half)
