"""One file for images of any size finds what the model finds; what cannot be done is told in a line."""

import pytest
from click.testing import CliRunner

from ddq_port.export.cli import cli
from ddq_port.export.detector import ExportError
from ddq_port.export.session import Exported

from .conftest import CONFIG


def export(*arguments):
    """Run the command line; return click's result."""
    return CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(cli, [str(a) for a in arguments])


def test_one_onnx_file_serves_five_sizes(checkpoint, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    file = tmp_path / "tiny.onnx"
    result = export(CONFIG, checkpoint, file, "-q")
    assert result.exit_code == 0, result.output
    *tried, last = result.stdout.splitlines()
    assert len(tried) == 5 and all("50 of 50 detections as of the model, 0 at the cut" in line for line in tried)
    assert last.startswith(f"EXPORTED {file}") and "size any, as the model in 5 images" in last
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((CONFIG, "CHECKPOINT", "a.pb"), "ends in .pb; expected .onnx or .pt2."),
        ((CONFIG, "nothing.pth", "a.pt2"), "nothing.pth"),
        ((CONFIG, "CHECKPOINT", "a.pt2", "--size", "big"), "big is no size; expected HxW in pixels, as in 800x1216."),
        ((CONFIG, "CHECKPOINT", "a.pt2", "--size", "0x9"), "0x9 has no pixels"),
        (("ddq-fcn_r50_8xb2-12e_coco", "CHECKPOINT", "a.pt2"), "only ddq_port.DDQDETR has fast numerics."),
        (("ddq-detr-4scale_tiny-1class", "CHECKPOINT", "a.pt2"), "of the 506 tensors of the model; it lacks"),
        (("ddq-detr-4scale_tiny-swinl", "SWIN", "a.pt2"), "pass --size HxW."),
        ((CONFIG, "CHECKPOINT", "no/a.pt2"), "is not a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(checkpoint, tmp_path, arguments, expected, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "SWIN" in arguments:
        import torch

        from tests.models import weights_of

        torch.save(dict(state_dict=weights_of("tiny_swinl", 0)), "swin.pth")
    result = export(*({"CHECKPOINT": checkpoint, "SWIN": "swin.pth"}.get(word, word) for word in arguments))
    assert result.exit_code == 2 and result.stdout == ""
    assert expected in " ".join(result.stderr.split()), result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("*.pt2"))


def test_a_file_that_exists_is_kept(checkpoint, tmp_path):
    file = tmp_path / "a.pt2"
    file.write_text("mine")
    result = export(CONFIG, checkpoint, file)
    assert result.exit_code == 2 and "pass --force" in result.stderr and file.read_text() == "mine"


def test_what_is_no_exported_file_is_refused(tmp_path):
    with pytest.raises(ExportError, match="is not there"):
        Exported(tmp_path / "a.pt2")
    (tmp_path / "a.pt2").write_text("x")
    with pytest.raises(ExportError, match="torch.export cannot load"):
        Exported(tmp_path / "a.pt2")
