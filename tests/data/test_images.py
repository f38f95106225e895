"""The loader of the training loads every image; what it cannot load, or loads wrongly, is told with its reason."""

import io
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddq_port.data import images as pool
from ddq_port.data import pixels
from ddq_port.data.check import HEADERS, NAMES, Options, Sample, check
from ddq_port.data.pixels import Image as Entry
from tests.data.sets import HEIGHT, PIXELS, WIDTH, content, write


def encoded(form, pixels=PIXELS, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def oriented(form, number):
    exif = Image.Exif()
    exif[274] = number
    return encoded(form, exif=exif)


def header_of_png(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    parts = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (chunk, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def damaged_jpeg():
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    data = bytearray(encoded("JPEG", noise, quality=90))
    middle = len(data) // 2
    data[middle : middle + 2] = b"\xff\xd9"  # the end of an image
    return bytes(data)


JPEG, PNG = encoded("JPEG"), encoded("PNG")
GREY = PIXELS[..., 0]
#: name: (name of the file, its bytes, kinds that are found, what is said)
FILES = {
    "png": ("1.png", PNG, {}, ""),
    "jpeg": ("1.jpg", JPEG, {}, ""),
    "grey": ("1.png", encoded("PNG", GREY), {}, ""),
    "alpha": ("1.png", encoded("PNG", np.dstack([PIXELS, GREY])), {}, ""),
    "bmp": ("1.bmp", encoded("BMP"), {}, ""),
    "webp": ("1.webp", encoded("WEBP"), {}, ""),
    "jpeg named png": ("1.png", JPEG, {}, ""),
    "blanks and accents": ("photo é #1 (2).png", PNG, {}, ""),
    "16 bits": ("1.png", encoded("PNG", GREY.astype(np.uint16) * 257), {}, ""),
    "16 bits, dark": ("1.png", encoded("PNG", GREY.astype(np.uint16)), {"values-lost": 1}, "uint16 values reach up to"),
    "12 bits in 16": ("1.png", encoded("PNG", GREY.astype(np.uint16) * 16), {"dark-image": 1}, "makes 15 of 255"),
    "float": ("1.tif", encoded("TIFF", GREY / np.float32(255)), {"unreadable-image": 1}, "a TIFF file of 64 x 48"),
    "black": ("1.png", encoded("PNG", PIXELS * 0), {"blank-image": 1}, "all of them 0"),
    "cut jpeg": ("1.jpg", JPEG[:-200], {"unreadable-image": 1}, "the JPEG file ends too early or is damaged"),
    "jpeg without its end": ("1.jpg", JPEG[:-2], {"unreadable-image": 1}, "the JPEG file ends too early or is damaged"),
    "damaged jpeg": ("1.jpg", damaged_jpeg(), {"damaged-image": 1}, "Corrupt JPEG data"),
    "cut png": ("1.png", PNG[:-300], {"unreadable-image": 1}, "the PNG file ends too early or is damaged"),
    "cut webp": ("1.webp", encoded("WEBP")[:-30], {"unreadable-image": 1}, ""),
    "nothing": ("1.png", b"", {"unreadable-image": 1}, "the file is empty"),
    "text": ("1.png", b"no image", {"unreadable-image": 1}, "this is not an image that the loader knows"),
    "web page": ("1.png", b"<!DOCTYPE html>", {"unreadable-image": 1}, "it is a web page"),
    "lfs": ("1.png", b"version https://git-lfs.github.com/spec/v1", {"unreadable-image": 1}, "git lfs pull"),
    "heic": ("1.heic", b"\0\0\0\x18ftypheic", {"unreadable-image": 1}, "it is a file in HEIC format"),
    "pdf": ("1.png", b"%PDF-1.4", {"unreadable-image": 1}, "this is not an image that the loader knows"),
    "another size": ("1.png", encoded("PNG", PIXELS[:40]), {"image-size": 1}, "say 64 x 48, the file has 64 x 40"),
    "exchanged": (
        "1.png", encoded("PNG", PIXELS.transpose(1, 0, 2).copy()), {"image-size": 1}, "width and height are exchanged",
    ),
    "turned": ("1.jpg", oriented("JPEG", 6), {"image-size": 1, "turned-image": 1}, "turns the image as its EXIF"),
    "upside down": ("1.jpg", oriented("JPEG", 3), {"turned-image": 1}, "EXIF orientation 3"),
}  # fmt: skip


@pytest.mark.parametrize("name, data, kinds, said", FILES.values(), ids=FILES)
def test_one_file(tmp_path, name, data, kinds, said):
    changed = content()
    changed["images"][0]["file_name"] = name
    file = write(tmp_path, changed)
    (tmp_path / "img" / name).write_bytes(data)
    findings = check(file, tmp_path / "img", Options(ask_mmdet=False))
    assert findings.counts == kinds and findings.decoded == 4
    assert all(problem.where == "image 1" and problem.file.endswith(name) for problem in findings.problems)
    assert any(said in problem.text for problem in findings.problems) or not kinds, findings.problems


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("number", [1, 6])
def test_what_the_loader_returns_decides_how_an_image_is_turned(tmp_path, form, number):
    from mmcv.transforms import LoadImageFromFile

    changed = content()
    name = f"1.{form.lower()}"
    file = tmp_path / "img" / name
    write(tmp_path, changed)
    file.write_bytes(oriented(form, number))
    height, width = LoadImageFromFile()({"img_path": str(file)})["img_shape"]
    changed["images"][0].update(file_name=name, width=width, height=height)
    for depth in ("pixels", HEADERS):
        findings = check(
            write(tmp_path, changed, images=False), tmp_path / "img", Options(ask_mmdet=False, depth=depth)
        )
        assert "image-size" not in findings.counts
        changed["images"][0].update(width=height, height=width)
        findings = check(
            write(tmp_path, changed, images=False), tmp_path / "img", Options(ask_mmdet=False, depth=depth)
        )
        assert findings.counts["image-size"] == 1
        how = "the loader turns the image" if number == 6 else "width and height are exchanged"
        assert how in findings.problems[0].text
        changed["images"][0].update(width=width, height=height)


MISSING = {
    "case": ("1.PNG", "the folder has `1.png`: upper and lower case differ"),
    "backslash": ("sub\\5.png", "the folder has `sub/5.png`: write / for \\"),
    "folder": ("train/1.png", "the folder has `1.png`, names must be relative to it"),
    "subfolder": ("5.png", "the folder has `sub/5.png`, names must be relative to it"),
    "extension": ("1.jpg", "the folder has `1.png`"),
    "accents": ("fo\u0308n.png", "accents are written in another way (Unicode NFC and NFD)"),
    "link": ("link.png", "it is a link to nothing"),
    "is a folder": ("sub", "it is a folder"),
    "long": ("x" * 5000, "there is no such file"),
    "null": ("a\0b.png", "there is no such file"),
}


@pytest.mark.parametrize("name, said", MISSING.values(), ids=MISSING)
def test_a_file_that_is_not_there(tmp_path, name, said):
    changed = content()
    changed["images"][0]["file_name"] = name
    file = write(tmp_path, changed)
    (tmp_path / "img" / "sub").mkdir()
    for other in ("sub/5.png", "f\u00f6n.png"):
        (tmp_path / "img" / other).write_bytes(PNG)
    (tmp_path / "img" / "link.png").symlink_to("nowhere")
    findings = check(file, tmp_path / "img", Options(ask_mmdet=False, depth=NAMES))
    assert findings.counts == {"missing-image": 1} and said in findings.problems[0].text


def test_headers_are_enough_for_sizes_and_not_for_pixels(tmp_path):
    file = write(tmp_path)
    (tmp_path / "img" / "1.png").write_bytes(PNG[:-300])
    (tmp_path / "img" / "2.png").write_bytes(encoded("PNG", PIXELS[:40]))
    findings = check(file, tmp_path / "img", Options(ask_mmdet=False, depth=HEADERS))
    assert findings.counts == {"image-size": 1} and findings.decoded == 0


def test_a_sample_of_many_images(tmp_path):
    file = write(tmp_path)
    (tmp_path / "img" / "4.png").unlink()
    findings = check(file, tmp_path / "img", Options(ask_mmdet=False, sample=Sample(few=2, number=2)))
    assert findings.decoded == 2 and findings.counts == {"missing-image": 1}


def test_the_loader_of_the_config_is_asked(tmp_path):
    file = write(tmp_path)
    (tmp_path / "img" / "1.png").write_bytes(oriented("JPEG", 6))
    loader = dict(type="LoadImageFromFile", color_type="color_ignore_orientation")
    findings = check(file, tmp_path / "img", Options(ask_mmdet=False, loader=loader))
    assert findings.counts == {}


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(pixels, "_LARGE_PIXELS", 3000)
    monkeypatch.setattr(pixels, "_COSTLY_PIXELS", 3000)


def test_a_large_image_is_decoded_alone_and_told(tmp_path, small_is_large):
    findings = check(write(tmp_path), tmp_path / "img", Options(ask_mmdet=False))
    assert findings.counts == {"large-image": 4} and "64 x 48 pixels, 0.0 GB" in findings.problems[0].text


def test_an_image_for_which_there_is_no_memory(tmp_path, small_is_large, monkeypatch):
    monkeypatch.setattr(pool, "_available_memory", lambda: 1000)
    findings = check(write(tmp_path), tmp_path / "img", Options(ask_mmdet=False))
    assert findings.counts == {"large-image": 4} and "it was not decoded" in findings.problems[0].text


def test_more_pixels_than_opencv_reads(tmp_path, small_is_large, monkeypatch):
    changed = content()
    changed["images"][0].update(width=40000, height=30000)
    file = write(tmp_path, changed)
    (tmp_path / "img" / "1.png").write_bytes(header_of_png(40000, 30000))
    for module in (pool, pixels):
        monkeypatch.setattr(module, "OPENCV_LIMIT", 1 << 30)
    findings = check(file, tmp_path / "img", Options(ask_mmdet=False))
    assert findings.counts["unreadable-image"] == 1
    assert "1200 million pixels, OpenCV reads up to 1074 million" in findings.problems[0].text


def _killed_by_the_second(results):
    if results["img_path"].endswith("2.png"):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"img": PIXELS}


def test_a_process_that_dies_is_told_with_the_name_of_the_file(tmp_path):
    write(tmp_path)
    entries = [Entry(key, tmp_path / "img" / f"{key}.png", (WIDTH, HEIGHT), True) for key in (1, 2, 3, 4)]
    done = []
    told = list(pool.check(entries, _killed_by_the_second, True, done.append))
    assert [(image.key, remark.kind) for image, remark in told] == [(2, "unreadable-image")]
    assert "killed by SIGKILL" in told[0][1].text and done[-1] == 4


def _slow(results):
    Path(results["img_path"]).with_suffix(".pid").write_text(str(os.getpid()))
    time.sleep(600)


def _alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _soon(true):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def test_a_check_that_is_killed_leaves_no_process(tmp_path):
    write(tmp_path)
    entries = [Entry(key, tmp_path / "img" / f"{key}.png", (WIDTH, HEIGHT), True) for key in (1, 2, 3, 4)]

    def target():
        list(pool.check(entries, _slow, True, lambda done: None))

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    pid_file = tmp_path / "img" / "1.pid"
    assert _soon(lambda: pid_file.is_file() and pid_file.read_text())
    process.kill()
    process.join()
    pid = int(pid_file.read_text())
    gone = _soon(lambda: not _alive(pid))
    if not gone:
        os.kill(pid, signal.SIGKILL)
    assert gone


def test_images_are_checked_where_opencv_has_threads_already(tmp_path):
    """The forks of such a process have no such threads, and must not wait for them."""
    program = (
        "import cv2, numpy, sys\n"
        "from pathlib import Path\n"
        "from mmcv.transforms import LoadImageFromFile\n"
        "from ddq_port.data import images, pixels\n"
        "cv2.setNumThreads(4)\n"
        "cv2.resize(numpy.zeros((2000, 2000, 3), numpy.uint8), (3000, 3000), interpolation=cv2.INTER_CUBIC)\n"
        "cv2.imwrite(sys.argv[1], numpy.arange(192, dtype=numpy.uint8).reshape(8, 8, 3))\n"
        "image = pixels.Image(1, Path(sys.argv[1]), (8, 8), True)\n"
        "print(list(images.check([image], LoadImageFromFile(), True, lambda done: None)), cv2.getNumThreads())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "image.png")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.stdout == "[] 4\n", ran.stderr
