"""Run ``ddq-parity`` in this process; its sides run in processes of their own as always."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from parity.cli import cli

PLANTED = Path(__file__).parent / "planted"

#: File in ``planted``, the check that shows it, the place that must be named.
PLANTED_ERRORS = [
    ("swapped_branch", "loss", "decoder"),
    ("wrong_eps", "loss", "decoder"),
    ("wrong_norm_eps", "forward", "decoder.norm"),
    ("off_by_one_layer", "forward", "bbox_head"),
    ("always_active", "forward", "decoder"),
    ("mask_row_2", "forward", "decoder"),
    ("wrong_nms_threshold", "forward", "the detector"),
    ("no_padding_mask", "forward", "the detector"),
    ("ascending_dense", "loss", "the detector"),
    ("fewer_dense", "loss", "the detector"),
    ("fewer_detections", "forward", "bbox_head"),
    ("changed_state", "loss", "level_embed"),
    ("short_label_noise", "loss", "the detector"),
]


@pytest.fixture
def parity():
    """Return a function that runs the command line and gives click's result."""

    def call(*arguments):
        return CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(cli, [str(a) for a in arguments])

    return call


@pytest.fixture
def tiny(parity):
    """Return a function that runs tiny mmdet 3.3.0 against the port."""

    def call(*arguments, sizes="128x160,96x128"):
        return parity("run", "--family", "mmdet_ddq", "--variant", "tiny_4scale", "--size", sizes, *arguments)

    return call
