"""Error: the test pipeline resizes images to a little less than the legacy one."""

from legacy_adapters import mmdet3
from parity.adapters.ddq_port import *


def image_detector(model, options):
    width, height = options["scale"]
    return mmdet3.Detector(model, mmdet3.load_config(options["config"]), (width - 2, height))
