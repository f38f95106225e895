"""Data sets of other formats are named, with the command that converts them."""

import pytest

from ddq_port.data.foreign import recognise

VOC = "<annotation><filename>1.png</filename></annotation>"
YOLO = "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.05 0.05\n"
NAMES = "train: images/train\nnames: [cat, dog]\n"

#: name: (files, what is given, format, what the command has in it)
CASES = {
    "voc": (
        {"Annotations/1.xml": VOC, "JPEGImages/1.png": ""}, "",
        "Pascal VOC", "from_pascal_voc('{root}/JPEGImages', '{root}/Annotations')",
    ),
    "folder of XML": (
        {"Annotations/1.xml": VOC, "JPEGImages/1.png": ""}, "Annotations",
        "Pascal VOC", "from_pascal_voc('{root}/JPEGImages', '{root}/Annotations')",
    ),
    "one XML": ({"1.xml": VOC}, "1.xml", "Pascal VOC", "from_pascal_voc('IMAGES', '{root}')"),
    "data.yaml": (
        {"data.yaml": NAMES, "labels/train/1.txt": YOLO}, "data.yaml",
        "YOLO", "from_yolo('{root}/images/train', '{root}/labels/train', '{root}/data.yaml')",
    ),
    "folder of data.yaml": (
        {"data.yaml": NAMES, "train/labels/1.txt": YOLO}, "",
        "YOLO", "from_yolo('{root}/train/images', '{root}/train/labels', '{root}/data.yaml')",
    ),
    "labels": (
        {"data.yaml": NAMES, "labels/val/1.txt": YOLO}, "labels/val",
        "YOLO", "from_yolo('{root}/images/val', '{root}/labels/val', '{root}/data.yaml')",
    ),
    "labels alone": ({"1.txt": YOLO}, "", "YOLO", "from_yolo('IMAGES', '{root}', 'data.yaml')"),
    "one label": ({"1.txt": YOLO}, "1.txt", "YOLO", "from_yolo('IMAGES', '{root}', 'data.yaml')"),
}  # fmt: skip


def put(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize("files, given, form, command", CASES.values(), ids=CASES)
def test_a_format_and_its_command(tmp_path, files, given, form, command):
    put(tmp_path, files)
    text = recognise(tmp_path / given)
    assert f"is in {form} format; expected COCO format" in text and "pip install supervision" in text
    assert command.format(root=tmp_path) in text and len(text.splitlines()) == 1


def test_the_folder_of_images_is_taken_if_it_is_known(tmp_path):
    put(tmp_path, {"1.xml": VOC})
    assert "from_pascal_voc('photos', " in recognise(tmp_path / "1.xml", "photos")


@pytest.mark.parametrize(
    "files, given, said",
    [
        ({"a/ann.json": "{}"}, "", "is a folder; expected an annotation file in COCO format, such as"),
        ({"a.json": '{"shapes": [], "imagePath": "a.png"}'}, "", "annotations by LabelMe; convert them all with"),
        ({"a.json": "{"}, "", "is a folder; expected an annotation file in COCO format, such as"),
        ({"a.png": ""}, "", "is a folder; expected an annotation file in COCO format."),
        ({"a.csv": "1,2"}, "a.csv", "is a table"),
        ({"a.xml": "<annotations><version>1.1</version>"}, "a.xml", "is in CVAT's format; expected COCO format"),
        ({"a.xml": "<annotations><version>1.1</version>"}, "", "is in CVAT's format; expected COCO format"),
        ({"ann.json": "{}"}, "ann.json", None),
        ({"notes.txt": "hello"}, "notes.txt", None),
        ({"a.xml": "<html/>"}, "a.xml", None),
        ({}, "nowhere.xml", None),
    ],
)
def test_other_things(tmp_path, files, given, said):
    put(tmp_path, files)
    text = recognise(tmp_path / given)
    assert text is None if said is None else said in text
