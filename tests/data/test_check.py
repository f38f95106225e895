"""`check` names what is wrong in a data set; each test breaks a clean one in a single way.

Here mmdet is not asked; `test_defects.py` does that.
"""

import json

import numpy as np
import pytest

from ddq_port.data import findings as findings_module
from ddq_port.data.check import NAMES, Options, check

CAT, DOG, BIRD = (dict(id=at, name=name) for at, name in ((1, "cat"), (2, "dog"), (3, "bird")))


def image(image_id, width=40, height=30, **more):
    return dict(dict(id=image_id, file_name=f"{image_id}.png", width=width, height=height), **more)


def annotation(annotation_id, image_id=1, category_id=1, bbox=None, **more):
    bbox = bbox or (2, 3 + (annotation_id - 10) % 7, 10, 12)
    entry = dict(id=annotation_id, image_id=image_id, category_id=category_id, bbox=list(bbox), iscrowd=0)
    return dict(entry, area=bbox[2] * bbox[3], **more) if len(bbox) == 4 else dict(entry, area=1, **more)


def content(**parts):
    clean = dict(
        images=[image(1), image(2), image(3)],
        annotations=[annotation(10), annotation(11, 2, 2), annotation(12, 1, 3)],
        categories=[CAT, DOG, BIRD],
    )
    return dict(clean, **parts)


@pytest.fixture
def checked(tmp_path):
    """Return a function that writes the content (text, or what becomes JSON) and checks it."""

    def call(written, image_folder=None, **options):
        file = tmp_path / "ann.json"
        file.write_text(written if isinstance(written, str) else json.dumps(written))
        return check(file, image_folder, Options(ask_mmdet=False, **options))

    return call


def only(findings, kind):
    """Return the one problem, which must be of that kind."""
    assert findings.counts == {kind: 1}, findings.problems
    (problem,) = findings.problems
    assert problem.kind == kind
    assert findings.ok == (problem.severity != "error")
    return problem


def test_a_clean_file(checked):
    findings = checked(content())
    assert findings.ok and findings.problems == () and findings.counts == {}
    assert (findings.images, findings.without_objects, findings.annotations) == (3, 1, 3)
    assert findings.objects == dict(cat=1, dog=1, bird=1) and findings.classes == ("cat", "dog", "bird")


@pytest.mark.parametrize(
    "text, where, said",
    [
        ("", "line 1, column 1", "not JSON"),
        ('{"images": [],\n "annotations": [1,, 2]}', "line 2, column 20", "not JSON"),
        ("[1, 2]", "", "expected an object"),
        ("null", "", "expected an object"),
        ("[" * 100_000, "", "not JSON"),
    ],
)
def test_no_json_object(checked, text, where, said):
    problem = only(checked(text), "unreadable")
    assert problem.where == where and said in problem.text and problem.file.endswith("ann.json")


def test_no_text(tmp_path):
    (tmp_path / "ann.json").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "not JSON" in only(check(tmp_path / "ann.json", None, Options(ask_mmdet=False)), "unreadable").text


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "ann.json")


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", [None, {}, "text"])
def test_a_list_is_missing(checked, part, value):
    findings = checked(content(**{part: value}))
    assert not findings.ok and f"`{part}`" in findings.problems[0].text and findings.counts["unreadable"] == 1


def test_an_empty_annotation_file(checked):
    findings = checked(dict(images=[], annotations=[], categories=[]))
    assert findings.counts == {"empty": 3}
    assert [problem.text for problem in findings.problems] == [
        "`images` is empty",
        "`annotations` is empty",
        "`categories` is empty",
    ]


def test_images_without_any_annotation(checked):
    assert only(checked(content(annotations=[])), "empty").text == "`annotations` is empty"


@pytest.mark.parametrize(
    "kind, part, entry, where",
    [
        ("malformed", "images", {}, "images[3]"),
        ("malformed", "images", dict(image(4), id=float("nan")), "images[3]"),
        ("malformed", "annotations", 7, "annotations[3]"),
        ("no-id", "annotations", dict(annotation(13), id=None), "annotations[3]"),
        ("no-id", "annotations", dict(annotation(13), id=[1]), "annotations[3]"),
        ("malformed", "categories", "cat", "categories[3]"),
        ("bad-size", "images", dict(image(4), width="40"), "image 4"),
        ("bad-size", "images", dict(image(4), height=0), "image 4"),
        ("malformed", "images", dict(image(4), file_name=""), "image 4"),
        ("bad-box", "annotations", annotation(13, bbox=(1, 2, 3)), "annotation 13"),
        ("bad-box", "annotations", dict(annotation(13), bbox=None), "annotation 13"),
        ("bad-box", "annotations", annotation(13, bbox=(1, 2, float("nan"), 4)) | dict(area=1), "annotation 13"),
        ("bad-box", "annotations", annotation(13, bbox=(9, 9, -3, 4)) | dict(area=12), "annotation 13"),
        ("bad-crowd", "annotations", annotation(13) | dict(iscrowd="0"), "annotation 13"),
        ("area-missing", "annotations", annotation(13) | dict(area=None), "annotation 13"),
        ("malformed", "categories", dict(id=4), "category 4"),
    ],
)
def test_an_entry_is_malformed(checked, kind, part, entry, where):
    assert only(checked(content(**{part: [*content()[part], entry]})), kind).where == where


@pytest.mark.parametrize(
    "part, entry, where",
    [
        ("images", image(2), "image 2"),
        ("annotations", annotation(12, 2), "annotation 12"),
        ("categories", CAT, "category 1"),
    ],
)
def test_an_id_twice(checked, part, entry, where):
    problem = only(checked(content(**{part: [*content()[part], entry]})), "duplicate-id")
    assert problem.where == where and "earlier one" in problem.text


def test_a_class_twice(checked):
    findings = checked(content(categories=[CAT, DOG, BIRD, dict(id=4, name="dog")]))
    assert findings.counts == {"duplicate-class": 1, "unused-class": 1} and not findings.ok


def test_one_file_for_two_images(checked):
    problem = only(checked(content(images=[image(1), image(2), image(3, file_name="1.png")])), "duplicate-file")
    assert problem.where == "image 3" and "image 1" in problem.text


def test_an_annotation_of_no_image(checked):
    problem = only(checked(content(annotations=[*content()["annotations"], annotation(13, 99)])), "unknown-image")
    assert problem.where == "annotation 13" and "99" in problem.text


@pytest.mark.parametrize("category_id", [99, None, [1], "x", 1.5, True])
def test_an_annotation_of_no_class(checked, category_id):
    wrong = annotation(13, 1, category_id)
    problem = only(checked(content(annotations=[*content()["annotations"], wrong])), "unknown-category")
    assert problem.where == "annotation 13"


@pytest.mark.parametrize(
    "bbox, kind",
    [
        ((0, 0, 40, 30), None),
        ((-1, -1, 42, 32), None),
        ((-1.5, 0, 10, 10), "beyond-edge"),
        ((35, 0, 7, 10), "beyond-edge"),
        ((0, 25, 7, 6.5), "beyond-edge"),
        ((40, 0, 7, 10), "outside"),
        ((0, 30, 7, 10), "outside"),
        ((-9, 0, 9, 10), "outside"),
        ((0, -12, 9, 12), "outside"),
        ((5, 5, 0, 10), "no-area"),
        ((5, 5, 10, 0), "no-area"),
        ((5, 5, 0.5, 10), "thin"),
        ((5, 5, 10, 0.99), "thin"),
        ((5, 5, 1, 1), None),
    ],
)
def test_boxes(checked, bbox, kind):
    findings = checked(content(annotations=[*content()["annotations"], annotation(13, bbox=bbox)]))
    assert list(findings.counts) == ([kind] if kind else [])
    assert all(problem.where == "annotation 13" for problem in findings.problems)


def test_an_area_of_zero(checked):
    wrong = annotation(13) | dict(area=0)
    assert only(checked(content(annotations=[*content()["annotations"], wrong])), "no-area").where == "annotation 13"


def test_a_crowd_is_noted(checked):
    crowd = annotation(13) | dict(iscrowd=1)
    problem = only(checked(content(annotations=[*content()["annotations"], crowd])), "crowd")
    assert problem.where == "annotation 13" and problem.severity == "note"


def test_gaps_between_category_ids_are_noted(checked):
    categories = [CAT, dict(id=7, name="dog"), dict(id=3, name="bird")]
    findings = checked(
        content(categories=categories, annotations=[annotation(1), annotation(2, 1, 7), annotation(3, 1, 3)])
    )
    assert findings.counts == {"id-gap": 2} and findings.ok
    assert [problem.where for problem in findings.problems] == ["category 3", "category 7"]
    assert "the id before is 3, the label is 1" in findings.problems[1].text
    assert findings.classes == ("cat", "dog", "bird")


def test_a_class_without_objects(checked):
    problem = only(checked(content(categories=[CAT, DOG, BIRD, dict(id=4, name="cow")])), "unused-class")
    assert problem.where == "category 4" and "cow" in problem.text


@pytest.mark.parametrize(
    "classes, kind, said",
    [
        (("cat", "dog", "bird"), None, ""),
        (("cat", "bird"), "surplus-class", "the config leaves `dog` out"),
        (("bird", "cat"), "classes", "expected the file's order, `cat`, `dog`, `bird`; the config has `bird`, `cat`"),
        (("cat", "dog", "bird", "cow"), "classes", "`cow` are not in the file, which has `cat`, `dog`, `bird`"),
        (("dog", "cat", "bird"), "classes", "expected the file's order, `cat`, `dog`, `bird`"),
    ],
)
def test_classes_of_a_config(checked, classes, kind, said):
    findings = checked(content(), classes=classes)
    assert findings.counts == ({kind: 1} if kind else {})
    assert all(said in problem.text for problem in findings.problems)


_PIXELS = (np.arange(3600) % 251).astype(np.uint8).reshape(30, 40, 3)


@pytest.fixture
def images(tmp_path):
    import cv2

    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2, 3):
        cv2.imwrite(str(folder / f"{number}.png"), _PIXELS)
    return folder


def test_images_as_they_should_be(checked, images):
    assert checked(content(), images).counts == {}


def test_a_missing_image(checked, images):
    (images / "2.png").unlink()
    for options in ({}, dict(depth=NAMES)):
        problem = only(checked(content(), images, **options), "missing-image")
        assert problem.where == "image 2" and problem.file == str(images / "2.png")


def test_an_image_of_another_size(checked, images):
    (images / "2.png").write_bytes((images / "1.png").read_bytes())
    written = content(images=[image(1), image(2, 30, 40), image(3)])
    problem = only(checked(written, images), "image-size")
    assert problem.where == "image 2" and "say 30 x 40, the file has 40 x 30" in problem.text
    assert checked(written, images, depth=NAMES).counts == {}


def test_an_image_that_is_turned_when_it_is_read(checked, images):
    import cv2
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(_PIXELS).save(images / "2.jpg", exif=exif)
    assert cv2.imread(str(images / "2.jpg")).shape[:2] == (40, 30)
    turned, as_stored = (
        content(images=[image(1), image(2, *size, file_name="2.jpg"), image(3)]) for size in ((30, 40), (40, 30))
    )
    assert checked(turned, images).counts == {"turned-image": 1}
    assert "as its EXIF data say" in checked(as_stored, images).problems[0].text
    assert checked(as_stored, images).counts == {"image-size": 1, "turned-image": 1}


@pytest.mark.parametrize("bytes_", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_an_image_that_is_none(checked, images, bytes_):
    (images / "3.png").write_bytes(bytes_)
    assert only(checked(content(), images), "unreadable-image").where == "image 3"


def test_all_are_counted_and_some_are_listed(checked):
    many = [annotation(number, 99, bbox=(number, 1, 2, 2)) for number in range(1000, 1250)]
    findings = checked(content(annotations=[*content()["annotations"], *many]))
    assert findings.counts == {"unknown-image": 250} and len(findings.problems) == findings_module.MOST_LISTED


def test_graver_problems_come_first(checked):
    findings = checked(
        content(annotations=[annotation(1, bbox=(5, 5, 0, 9)), annotation(2, 99, bbox=(1, 1, 9, 9)), annotation(3)])
    )
    assert [problem.severity for problem in findings.problems] == ["error", "warning", "warning", "warning"]


@pytest.mark.parametrize("change", [dict(iscrowd=1), dict(bbox=[1, 1, 0, 4]), dict(bbox=[1, 1, 0.5, 4])])
def test_annotations_that_nothing_can_be_learnt_from_are_no_objects(checked, change):
    findings = checked(content(annotations=[entry | change for entry in content()["annotations"]]))
    assert not findings.ok and findings.counts["empty"] == 1
    assert findings.without_objects == 3 and findings.objects == dict(cat=0, dog=0, bird=0)


def test_numbers_beyond_all_measure(checked):
    text = json.dumps(content()).replace("[2, 3, 10, 12]", f"[2, 3, {10**400}, 12]", 1)
    assert checked(text).counts == {"bad-box": 1, "unused-class": 1}
    assert checked(text.replace(str(10**400), "1" * 5000)).counts == {"unreadable": 1}
