"""`--fix` mends what can only be meant in one way, writes a new file, and tells what it changed."""

import json
import os

import pytest

from ddq_port.data import mending
from ddq_port.data.check import Options, check
from tests.data.sets import content, write
from tests.data.test_defects import each, first, new_ids, without


def text_of_categories(data):
    for entry in data["annotations"]:
        entry["category_id"] = str(entry["category_id"])


def floats(data):
    for part, key in (("images", "id"), ("categories", "id"), ("annotations", "image_id")):
        for entry in data[part]:
            entry[key] = float(entry[key])


def capital_names(data):
    for image in data["images"]:
        image["file_name"] = f".\\{image['id']}.PNG"


#: name: (change, what is told)
MENDED = {
    "iscrowd": (without("iscrowd"), ["iscrowd: 0 for 12 annotations without it"]),
    "one iscrowd": (without("iscrowd", False), ["iscrowd: 0 for 1 annotation without it"]),
    "area": (without("area"), ["area: width x height of the box for 12 annotations without a usable one"]),
    "no ids": (without("id"), ["id: a new one for 12 annotations, first 1 (it was none)"]),
    "ids from 0": (new_ids(0), ["id: a new one for 1 annotation, first 12 (it was 0)"]),
    "an id twice": (first(id=11), ["id: a new one for 1 annotation, first 22 (it was 11)"]),
    "ids of text": (
        each(id=lambda entry: f"a{entry['id']}"),
        ["id: a new one for 12 annotations, first 1 (it was 'a10')"],
    ),
    "classes of text": (text_of_categories, ["category_id: written as the ids of `categories` are in 12 annotations"]),
    "floats": (
        floats,
        [
            "id: whole number instead of a float in 4 images",
            "id: whole number instead of a float in 3 categories",
            "image_id: whole number instead of a float in 12 annotations",
        ],
    ),
    "numbers as text": (
        lambda data: [entry.update(iscrowd="0", bbox=list(map(str, entry["bbox"]))) for entry in data["annotations"]],
        ["iscrowd: numbers instead of text in 12 annotations", "bbox: numbers instead of text in 12 annotations"],
    ),
    "sizes as text": (
        lambda data: data["images"][0].update(width="64"), ["width: numbers instead of text in 1 image"],
    ),
    "iscrowd is null": (each(iscrowd=None), ["iscrowd: 0 for 12 annotations without it"]),
    "polygons": (
        first(bbox=[], segmentation=[[2, 3, 12, 3, 12, 15]]), ["bbox: around the polygons of 1 annotation without it"],
    ),
    "huge area": (first(area=1e11), ["area: width x height of the box for 1 annotation without a usable one"]),
    "names": (capital_names, ["file_name: as the file is called for 4 images, first `1.png` for `.\\1.PNG`"]),
}  # fmt: skip


@pytest.mark.parametrize("change, told", MENDED.values(), ids=MENDED)
def test_it_is_mended_and_told(tmp_path, change, told):
    data = content()
    change(data)
    file = write(tmp_path, data)
    before, folder = file.read_bytes(), tmp_path / "img"
    assert check(file, folder).counts
    mended = mending.mend(file, folder)
    assert list(mended.changes) == told
    mending.write(mended.content, tmp_path / "out.json")
    assert check(tmp_path / "out.json", folder).counts == {}
    assert file.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["ann.json", "img", "out.json"]
    assert mending.mend(tmp_path / "out.json", folder).changes == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_an_encoding_with_a_mark_is_mended(tmp_path, encoding):
    data = content()
    data["categories"][0]["name"] = "café"
    (tmp_path / "ann.json").write_bytes(json.dumps(data, ensure_ascii=False).encode(encoding))
    mended = mending.mend(tmp_path / "ann.json")
    mending.write(mended.content, tmp_path / "out.json")
    assert len(mended.changes) == 1 and check(tmp_path / "out.json").classes[0] == "café"


def test_no_encoding_is_guessed(tmp_path):
    (tmp_path / "ann.json").write_bytes(json.dumps(dict(content(), info="é"), ensure_ascii=False).encode("latin-1"))
    with pytest.raises(mending.MendingError, match="--fix does not guess"):
        mending.mend(tmp_path / "ann.json")


@pytest.mark.parametrize("change", [first(bbox=None), first(category_id=99), first(bbox=[80, 3, 10, 12])])
def test_what_would_be_a_guess_stays(tmp_path, change):
    data = content()
    change(data)
    mended = mending.mend(write(tmp_path, data))
    assert mended.changes == () and mended.content == data


def test_nothing_is_overwritten_and_nothing_left_behind(tmp_path):
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(mending.MendingError, match="overwrites nothing"):
        mending.write(content(), tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == "mine" and os.listdir(tmp_path) == ["out.json"]


def test_a_mended_set_is_evaluated_as_it_should_be(tmp_path):
    data = content()
    new_ids(0)(data)
    file = write(tmp_path, data, images=False)
    assert check(file).truth.ap < 1
    mending.write(mending.mend(file).content, tmp_path / "out.json")
    assert check(tmp_path / "out.json", None, Options()).truth.ap == 1
