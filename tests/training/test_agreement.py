"""Config, data and checkpoint mean the same classes, or one line says where they do not, before anything is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from ddq_port.training.checks import agreement
from ddq_port.training.checks.agreement import EVALUATE, LOAD, RESUME, Agreed, AgreementError, Trained, check_checkpoint

TRAINING = {"train_dataloader": "", "val_dataloader": "val_evaluator"}
NAMES = ("cup", "fork", "lamp")


def write(file: Path, *names: str) -> str:
    categories = [dict(id=3 * at + 1, name=name) for at, name in enumerate(names)]
    file.write_text(json.dumps(dict(images=[], annotations=[], categories=categories)))
    return str(file)


@pytest.fixture
def cfg(tmp_path):
    """Return a config that agrees with its files in everything; `train` and `val` in it are its data sets."""
    files = {name: write(tmp_path / f"{name}.json", *NAMES) for name in ("train", "val")}
    write(tmp_path / "two.json", *NAMES[:2])
    write(tmp_path / "reversed.json", *NAMES[::-1])
    write(tmp_path / "five.json", *NAMES, "desk", "sofa")
    write(tmp_path / "capital.json", "Cup", *NAMES[1:])
    write(tmp_path / "twice.json", *NAMES, "cup")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")

    def loader(name):
        return dict(dataset=dict(type="CocoDataset", ann_file=files[name], metainfo=dict(classes=NAMES)))

    return Config(
        dict(
            model=dict(type="DDQDETR", bbox_head=dict(type="DDQDETRHead", num_classes=3), dn_cfg=dict()),
            train_dataloader=loader("train"),
            val_dataloader=loader("val"),
            val_evaluator=dict(type="CocoMetric", ann_file=files["val"]),
        )
    )


def change(cfg, changes, folder):
    """Make changes `{dotted key: value}`; None removes the key, FOLDER in a text is the folder of the files."""
    for key, value in changes.items():
        place, _, last = key.rpartition(".")
        at = cfg
        for name in filter(None, place.split(".")):
            at = at[int(name)] if name.isdigit() else at[name]
        if value is None:
            at.pop(last)
        else:
            at[last] = value.replace("FOLDER", str(folder)) if isinstance(value, str) else value


def coco(file="FOLDER/train.json", **more):
    return dict(type="CocoDataset", ann_file=file, metainfo=dict(classes=NAMES), **more)


TRAIN, VAL = "train_dataloader.dataset", "val_dataloader.dataset"
CLASSES, HEAD = f"{TRAIN}.metainfo.classes", "model.bbox_head.num_classes"

REFUSED = [
    # the model
    ({HEAD: 2}, f"{HEAD} is 2 and {TRAIN} has 3 classes (cup, fork, lamp); expected the same number. Set {HEAD}=3"),
    ({HEAD: 4}, f"{HEAD} is 4 and {TRAIN} has 3 classes"),
    ({HEAD: "three"}, f"{HEAD} is 'three'; expected a number of classes of at least 1"),
    ({HEAD: 0}, f"{HEAD} is 0; expected"),
    ({HEAD: True}, f"{HEAD} is True; expected"),
    ({HEAD: 3.0}, f"{HEAD} is 3.0; expected"),
    ({HEAD: None}, f"{HEAD} is not given; expected"),
    ({"model.dn_cfg.num_classes": 3}, "model.dn_cfg.num_classes is set; expected only model.bbox_head.num_classes"),
    (
        {"model": dict(roi_head=dict(bbox_head=[dict(num_classes=3), dict(num_classes=80)]))},
        "model.roi_head.bbox_head.0.num_classes is 3 and model.roi_head.bbox_head.1.num_classes is 80. Set all 2",
    ),
    (
        {"model": dict(roi_head=dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=80)))},
        "model.roi_head.bbox_head.num_classes is 3 and model.roi_head.mask_head.num_classes is 80",
    ),
    (
        {"model": dict(roi_head=dict(bbox_head=[dict(num_classes=80)] * 3))},
        "Set all 3 heads to 3 if the data are right",
    ),
    ({"model": dict(bbox_head=dict(type="RetinaHead", num_classes=80))}, f"{HEAD} is 80 and {TRAIN} has 3 classes"),
    ({"model": dict(detector=dict(bbox_head=dict(num_classes=80)))}, "model.detector.bbox_head.num_classes is 80 and"),
    (
        {"model": dict(roi_head=dict(bbox_head=dict(type="Shared2FCBBoxHead")))},  # 80 by itself
        "model.roi_head.bbox_head.num_classes is 80 and",
    ),
    # metainfo: written otherwise than it is read
    ({CLASSES: "cup"}, f"{CLASSES} is one text, 'cup', which mmdet reads letter by letter; expected a list of names. "),
    ({CLASSES: "cup"}, "Write classes=('cup',), with a comma."),
    ({CLASSES: "cup, fork,lamp"}, "Write classes=('cup', 'fork', 'lamp')."),
    ({CLASSES: ""}, "is one text, ''"),
    ({CLASSES: "labels.txt"}, f"{CLASSES} is the file labels.txt, which is not there"),
    ({CLASSES: 3}, f"{CLASSES} is 3; expected a list of names"),
    ({CLASSES: 3, f"{TRAIN}.metainfo.palette": [(1, 2, 3)]}, f"{CLASSES} is 3; expected a list of names"),
    ({CLASSES: (NAMES,)}, f"{CLASSES} is (('cup', 'fork', 'lamp'),); expected a list of names"),
    ({CLASSES: (1, 2, 3)}, f"{CLASSES} is (1, 2, 3); expected a list of names"),
    ({CLASSES: dict(cup=0, fork=1, lamp=2)}, "expected a list of names"),
    ({CLASSES: ()}, f"{CLASSES} is empty"),
    ({CLASSES: ("cup", "fork", "cup")}, f"{CLASSES} has `cup` twice"),
    ({f"{TRAIN}.metainfo": list(NAMES)}, f"{TRAIN}.metainfo is ['cup', 'fork', 'lamp']; expected dict(classes=(...))"),
    ({f"{TRAIN}.metainfo": dict(CLASSES=NAMES)}, f"{TRAIN}.metainfo has `CLASSES`, which mmdet does not look at"),
    ({f"{TRAIN}.metainfo": dict(CLASSES=NAMES)}, "so the classes are the 80 of CocoDataset; call it `classes`"),
    ({f"{TRAIN}.metainfo": {"class": NAMES}}, "metainfo has `class`, which mmdet does not look at"),
    ({f"{TRAIN}.metainfo": dict(clases=NAMES)}, "metainfo has `clases`, which"),
    ({f"{TRAIN}.metainfo": dict(class_names=NAMES)}, "metainfo has `class_names`, which"),
    (
        {f"{TRAIN}.metainfo.CLASSES": ("a", "b", "c")},
        "metainfo has both `CLASSES` and `classes` (('cup', 'fork', 'lamp'",
    ),
    ({f"{TRAIN}.metainfo": None, f"{TRAIN}.meta_info": dict(classes=NAMES)}, f"{TRAIN} has `meta_info`, which mmdet"),
    ({f"{TRAIN}.metainfo": None, f"{TRAIN}.METAINFO": dict(classes=NAMES)}, f"{TRAIN} has `METAINFO`, which mmdet"),
    ({f"{TRAIN}.metainfo": None, f"{TRAIN}.metainf": dict(classes=NAMES)}, f"{TRAIN} has `metainf`, which mmdet"),
    ({f"{TRAIN}.clases": NAMES}, f"{TRAIN}.clases is ('cup', 'fork', 'lamp'), a setting that mmdet does not know"),
    ({f"{TRAIN}.classes": NAMES}, f"{TRAIN}.classes is ('cup', 'fork', 'lamp'), a setting that mmdet does not know"),
    (
        {f"{TRAIN}.metainfo": None},
        f"{TRAIN} has no metainfo.classes, so mmdet takes the 80 of CocoDataset, and FOLDER/train.json of "
        f"{TRAIN}.ann_file has the categories cup, fork, lamp. Write metainfo=dict(classes=('cup', 'fork', 'lamp')).",
    ),
    (
        {f"{VAL}.metainfo": None, f"{VAL}.ann_file": "https://host/val.json"},
        f"{HEAD} is 3 and {VAL} (no metainfo.classes, so those of CocoDataset) has 80 classes",
    ),
    # files
    (
        {f"{VAL}.ann_file": "FOLDER/two.json"},
        "two.json of val_dataloader.dataset.ann_file has the categories cup, fork",
    ),
    ({f"{VAL}.ann_file": "FOLDER/two.json"}, "the file lacks `lamp`. mmdet does not number what a file lacks"),
    ({f"{TRAIN}.ann_file": "FOLDER/two.json"}, "the file lacks `lamp`"),
    (
        {f"{VAL}.ann_file": "FOLDER/reversed.json"},
        "another order, class 0 is `lamp` in the first and `cup` in the second",
    ),
    ({f"{VAL}.ann_file": "FOLDER/reversed.json"}, "in the order of the file; write classes=('lamp', 'fork', 'cup')"),
    (
        {f"{VAL}.ann_file": "FOLDER/capital.json"},
        "lacks `cup`, but has `Cup`, which differs only in upper and lower case",
    ),
    ({f"{VAL}.ann_file": "FOLDER/twice.json"}, "`cup` twice; expected every name once"),
    ({f"{VAL}.ann_file": "FOLDER/broken.json"}, "names no classes (JSONDecodeError"),
    ({f"{VAL}.data_root": "FOLDER", f"{VAL}.ann_file": "two.json"}, "FOLDER/two.json of"),
    ({CLASSES: ("dog", "cat", "cow")}, "metainfo.classes is dog, cat, cow, of which the file has none"),
    (
        {"val_evaluator.ann_file": "FOLDER/reversed.json"},
        "FOLDER/reversed.json of val_evaluator.ann_file has the categ",
    ),
    ({"val_evaluator.ann_file": "FOLDER/two.json"}, "FOLDER/two.json of val_evaluator.ann_file has the categories cup"),
    (
        {"val_evaluator": [dict(type="DumpDetResults"), dict(type="mmdet.CocoMetric", ann_file="FOLDER/two.json")]},
        "two.json of val_evaluator.ann_file",
    ),
    (
        {"val_evaluator": dict(type="Evaluator", metrics=[dict(type="CocoMetric", ann_file="FOLDER/two.json")])},
        "two.json of val_evaluator.ann_file",
    ),
    # data sets among each other, and inside of others
    (
        {f"{VAL}.ann_file": "FOLDER/reversed.json", f"{VAL}.metainfo.classes": NAMES[::-1]},
        f"{TRAIN} has the classes cup, fork, lamp, and {VAL} has lamp, fork, cup: the same names in another order",
    ),
    (
        {TRAIN: dict(type="RepeatDataset", times=2, dataset=coco("FOLDER/two.json"))},
        f"two.json of {TRAIN}.dataset.ann_file",
    ),
    (
        {TRAIN: dict(type="ConcatDataset", datasets=[coco(), coco("FOLDER/reversed.json")])},
        f"reversed.json of {TRAIN}.datasets.1.ann_file",
    ),
    (
        {TRAIN: dict(type="MultiImageMixDataset", dataset=dict(type="CocoDataset", ann_file="FOLDER/train.json"))},
        f"{TRAIN}.dataset has no metainfo.classes",
    ),
    ({VAL: dict(type="VOCDataset", ann_file="x.txt")}, f"{HEAD} is 3 and {VAL} (no metainfo.classes, so those of VOC"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED)
def test_refused_in_one_line(cfg, tmp_path, changes, says):
    changes = json.loads(json.dumps(changes).replace("FOLDER", str(tmp_path))) if "FOLDER" in str(changes) else changes
    change(cfg, changes, tmp_path)
    with pytest.raises(AgreementError) as caught:
        agreement.check_config(cfg, TRAINING)
    assert says.replace("FOLDER", str(tmp_path)) in str(caught.value) and "\n" not in str(caught.value)


ACCEPTED = [
    {},
    {f"{TRAIN}.metainfo.palette": [(1, 2, 3)]},
    {f"{TRAIN}.metainfo.CLASSES": NAMES},
    {f"{TRAIN}.metainfo.CLASSES": list(NAMES)},
    {CLASSES: list(NAMES)},
    {CLASSES: "FOLDER/names.txt"},
    {f"{TRAIN}.ann_file": "FOLDER/five.json"},
    {f"{TRAIN}.ann_file": "https://host/train.json", f"{TRAIN}.metainfo.classes": NAMES},
    {"val_dataloader": None, "val_evaluator": None},
    {"model.rpn_head": dict(num_classes=1), "model.semantic_head": dict(num_classes=183)},
    {"model.backbone": dict(type="VGG", num_classes=1000), "model.bbox_head.loss_cls": dict(num_classes=1203)},
    {"model.mask_head": dict(type="FCNMaskHead", num_classes=80, class_agnostic=True)},
    {HEAD: 256, "model.language_model": dict(type="BertModel"), f"{TRAIN}.metainfo.classes": ("a thing",)},
    {TRAIN: dict(type="MyDataset", classes="anything"), "model.bbox_head.num_classes": 3},
    {"val_evaluator": dict(type="LVISMetric", ann_file="FOLDER/two.json")},
    {"test_dataloader": dict(dataset=dict(type="CocoDataset", ann_file="FOLDER/two.json"))},
]


@pytest.mark.parametrize("changes", ACCEPTED)
def test_accepted(cfg, tmp_path, changes):
    changes = json.loads(json.dumps(changes).replace("FOLDER", str(tmp_path))) if "FOLDER" in str(changes) else changes
    change(cfg, changes, tmp_path)
    agreement.check_config(cfg, TRAINING)


def test_categories_that_are_left_out_are_noted(cfg, tmp_path):
    change(cfg, {f"{TRAIN}.ann_file": "FOLDER/five.json"}, tmp_path)
    (note,) = agreement.check_config(cfg, TRAINING).notes
    assert "five.json has desk, sofa, too, which train_dataloader.dataset.metainfo.classes does not name" in note


def test_files_that_another_check_judges_may_be_left_to_it(cfg, tmp_path):
    change(cfg, {f"{TRAIN}.ann_file": "FOLDER/broken.json"}, tmp_path)
    assert agreement.check_config(cfg, TRAINING, skip_unreadable=True).names == NAMES


#: Detectors with heads of several kinds and data of several kinds, all of which mmdet trains.
MMDET = [
    "bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval.py",
    "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py",
    "cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py",
    "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py",
    "detr/detr_r50_8xb2-150e_coco.py",
    "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py",
    "htc/htc_r50_fpn_1x_coco.py",
    "lvis/mask-rcnn_r50_fpn_sample1e-3_ms-2x_lvis-v0.5.py",
    "mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py",
    "ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py",
    "openimages/faster-rcnn_r50_fpn_32xb2-1x_openimages.py",
    "panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py",
    "pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py",
    "point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py",
    "seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py",
    "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py",
    "solo/solo_r50_fpn_1x_coco.py",
    "yolact/yolact_r50_1xb8-55e_coco.py",
]


@pytest.mark.parametrize("name", MMDET)
def test_configs_of_mmdet_agree(name):
    import mmdet

    cfg = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / "configs" / name, lazy_import=False)
    for loaders in (TRAINING, {"test_dataloader": "test_evaluator"}):
        agreement.check_config(cfg, loaders, skip_unreadable=True)


def checkpoint(rows=3, names=NAMES, **more):
    state = {"bbox_head.cls_branches.0.bias": torch.zeros(rows), "backbone.conv1.weight": torch.zeros(8, 3)}
    if more.pop("embedding", True):
        state["dn_query_generator.label_embedding.weight"] = torch.zeros(more.pop("embedded", rows), 4)
    meta = dict(meta=dict(dataset_meta=dict(classes=names))) if names else {}
    return Trained.of("ckpt.pth", dict(state_dict=state, **meta))


AGREED = Agreed(TRAIN, NAMES, {HEAD: 3}, ())


@pytest.mark.parametrize(
    ("trained", "purpose", "settings", "says"),
    [
        (checkpoint(), EVALUATE, {}, None),
        (checkpoint(names=None), EVALUATE, {}, None),
        (checkpoint(80, None), EVALUATE, {}, "ckpt.pth has 80 classes (rows of `bbox_head.cls_branches.0.bias`)"),
        (checkpoint(80, None), EVALUATE, {}, f"and {HEAD} is 3. Pass the config that it was trained with."),
        (checkpoint(80), LOAD, {}, "`ddq-convert convert --num-classes 3 --class-map FILE`"),
        (checkpoint(80), RESUME, {}, "begin another one with --load-from"),
        (checkpoint(80, NAMES + ("x",)), LOAD, dict(partial=True), None),
        (checkpoint(3, embedded=4), LOAD, {}, "has 4 classes (rows of `dn_query_generator.label_embedding.weight`)"),
        (checkpoint(4, None, embedding=False), LOAD, {}, None),  # with a class for the background
        (checkpoint(4, None), LOAD, {}, "has 4 classes"),
        (checkpoint(5, None, embedding=False), LOAD, {}, "has 5 classes"),
        (checkpoint(names=("a", "b", "c")), EVALUATE, {}, "ckpt.pth was trained for the classes a, b, c, and train_"),
        (checkpoint(names=("a", "b", "c")), EVALUATE, {}, "class 0 is `a` in the first and `cup` in the second"),
        (checkpoint(names=("a", "b", "c")), EVALUATE, dict(other_names=True), None),
        (checkpoint(names=("a", "b", "c")), LOAD, {}, "--allow-other-classes begins with these as they are"),
        (checkpoint(names=("a", "b", "c")), LOAD, dict(partial=True), "--allow-other-classes"),
        (checkpoint(names=("a", "b", "c")), LOAD, dict(partial=True, other_names=True), None),
        (checkpoint(names=NAMES[::-1]), RESUME, {}, "the same names in another order"),
        (
            checkpoint(names=("Cup", "fork", "lamp")),
            EVALUATE,
            {},
            "`Cup` and `cup` differ only in upper and lower case",
        ),
        (checkpoint(names=NAMES[:2]), EVALUATE, {}, "the first lacks `lamp`"),
    ],
)
def test_checkpoints(trained, purpose, settings, says):
    if says is None:
        check_checkpoint(trained, AGREED, purpose, **settings)
        return
    with pytest.raises(AgreementError) as caught:
        check_checkpoint(trained, AGREED, purpose, **settings)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_allowed_is_said():
    (note,) = check_checkpoint(checkpoint(names=("a", "b", "c")), AGREED, LOAD, other_names=True)
    assert note.startswith("--allow-other-classes: ckpt.pth was trained for the classes a, b, c")


def test_a_checkpoint_without_names_is_compared_with_what_the_config_trains(cfg):
    agreed = Agreed("test_dataloader.dataset", NAMES[::-1], {HEAD: 3}, ())
    (note,) = agreement.other_than_training(cfg, agreed)
    assert "the config trains cup, fork, lamp and evaluates lamp, fork, cup: the same names in another order" in note
    assert agreement.other_than_training(cfg, AGREED) == []
