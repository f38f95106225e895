"""What has no twin is listed thing by thing, with the alias that would pair it where there is one alike."""

from parity.report.alone import backward_lines, lone_lines

from .synthetic import Rec, judged

SHARED = [Rec("module_out", "head", [1.0, 2.0]), Rec("loss", "total", 3.0), Rec("grad", "head.weight", 0.5)]


def dropouts(name, count, width, call=0):
    return [Rec("module_out", name.format(i), [float(i + width)] * width, call=call) for i in range(count)]


def lines(folder, legacy, new):
    sides = dict(on_legacy=dict(classes=names(legacy)), on_new=dict(classes=names(new)))
    return lone_lines(judged(folder, [*SHARED, *legacy], [*SHARED, *new], **sides))


def names(records):
    return tuple({record.name: None for record in records if record.kind == "module_out"})


def test_things_are_told_once_whatever_the_number_of_their_records(tmp_path):
    told = lines(tmp_path, [], dropouts("layers.{}.drop", 3, 4))
    assert told[0] == "  without a twin: module `layers.*.drop` of the new side (3 records, train)"
    assert not any("Alias" in line for line in told)


def test_dropouts_of_other_names_are_told_by_what_they_recorded(tmp_path, monkeypatch):
    legacy = [*dropouts("blocks.{}.attn", 2, 5), *dropouts("blocks.{}.ffn", 2, 7)]
    new = [*dropouts("layers.{}.inner.a", 2, 5), *dropouts("layers.{}.inner.b", 2, 7)]
    # contents differ, as after another rounding
    new = [Rec(r.kind, r.name, (r.tensor + 0.5).tolist(), phase=r.phase) for r in new]
    classes = dict.fromkeys((record.name for record in [*legacy, *new]), "torch.nn.Dropout")
    verdict = judged(tmp_path, [*SHARED, *legacy], [*SHARED, *new])
    verdict.classes["legacy"].update({name: kind for name, kind in classes.items() if name.startswith("blocks")})
    verdict.classes["new"].update({name: kind for name, kind in classes.items() if name.startswith("layers")})
    assert lone_lines(verdict)[-2:] == [
        '  perhaps one thing: Alias("blocks.*.attn", "layers.*.inner.a")',
        '  perhaps one thing: Alias("blocks.*.ffn", "layers.*.inner.b")',
    ]


def test_modules_that_cannot_be_told_apart_are_not_paired(tmp_path):
    legacy = [*dropouts("blocks.{}.attn", 2, 5), *dropouts("blocks.{}.ffn", 2, 5)]
    verdict = judged(tmp_path, [*SHARED, *legacy], [*SHARED, *dropouts("layers.{}.a", 2, 5)])
    assert not any("Alias" in line for line in lone_lines(verdict))


def test_loss_terms_of_other_names_are_told_by_their_values(tmp_path):
    legacy = [Rec("loss", "loss_cls", 1.5), Rec("loss", "loss_box", 2.5)]
    new = [Rec("loss", "boxes", 2.5), Rec("loss", "classes", 1.5)]
    assert lines(tmp_path, legacy, new)[-2:] == [
        '  perhaps one thing: Alias("loss_cls", "classes", of="loss")',
        '  perhaps one thing: Alias("loss_box", "boxes", of="loss")',
    ]


def test_where_only_gradients_have_other_bits_a_tolerance_is_named(tmp_path):
    forward, gradient = SHARED[:2], [Rec("grad", "head.weight", 0.5000001)]
    (line,) = backward_lines(judged(tmp_path / "one", SHARED, [*forward, *gradient]))
    assert "--tolerance derived" in line
    other = [Rec("module_out", "head", [1.0, 2.5]), *forward[1:], *gradient]
    assert backward_lines(judged(tmp_path / "two", SHARED, other)) == []
    assert backward_lines(judged(tmp_path / "three", SHARED, SHARED)) == []
