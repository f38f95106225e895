"""A code base in the form of MMDetection 2.x, written for libraries of its time, that runs on the CPU of none of today's.

It asks for names of numpy that are gone, for torchvision, for a GPU, and refuses a newer mmcv.
"""

from __future__ import annotations

from pathlib import Path

MMCV = """
import runpy

__version__ = "{version}"


class Section(dict):
    __getattr__ = dict.__getitem__


class Config:
    @staticmethod
    def fromfile(path):
        read = {{name: value for name, value in runpy.run_path(path).items() if not name.startswith("_")}}
        return Section({{name: Section(value) for name, value in read.items()}})
"""
MMDET = """
import mmcv

__version__ = "{version}"
used = [int(part) for part in mmcv.__version__.split(".")]
assert [1, 3, 17] <= used <= [1, 5, 0], (
    f"MMCV=={{mmcv.__version__}} is used but incompatible. Please install mmcv>=1.3.17, <=1.5.0."
)
"""
MODELS = """
import numpy as np
import torch
import torchvision

DETECTORS = {}


def build_detector(model, train_cfg=None, test_cfg=None):
    if model["type"] not in DETECTORS:
        raise KeyError(f'{model["type"]} is not in the models registry')
    return DETECTORS[model["type"]]()


class Sampler:
    def sample(self, count):
        chosen = np.zeros(count, dtype=np.bool)
        chosen[: np.int(count / 2)] = True
        return torch.from_numpy(chosen.astype(np.float)).float().cuda(), np.arange(count, dtype=np.int)


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 7)
        self.sampler = Sampler()

    def _scores(self, images):
        return self.head(images.mean((2, 3)).to("cuda").cuda().to(torch.device("cuda", 0)))

    def forward_train(self, img, img_metas, gt_bboxes, gt_labels):
        weights, numbers = self.sampler.sample(7)
        assert numbers.dtype.kind == "i" and all(meta["img_shape"][2] == 3 for meta in img_metas)
        return dict(loss_cls=[(self._scores(img) * weights).square().sum()])

    def _parse_losses(self, losses):
        return sum(sum(terms) for terms in losses.values()), {}

    def simple_test(self, img, img_metas, rescale=False):
        assert all(len(meta["scale_factor"]) == 4 for meta in img_metas)
        rows = torch.cat([img.new_tensor([[0, 0, 9, 9]]).expand(7, 4), self._scores(img)[0].sigmoid()[:, None]], 1)
        return [[row[None].numpy() for row in rows] for _ in img_metas]


DETECTORS["Toy"] = Toy
"""
CONFIG = 'model = dict(type="{type}")\n'
SHAPES = {"head.weight": (7, 3), "head.bias": (7,)}


def write(folder: Path, mmcv: str | None = "1.7.2", mmdet: str | None = "2.22.0", detector: str = "Toy") -> Path:
    """Write the packages, each of a version or not at all, and a config of a detector; return the config."""
    for name, text, version in (("mmcv", MMCV, mmcv), ("mmdet", MMDET, mmdet)):
        if version is not None:
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text(text.format(version=version))
    if mmdet is not None:
        (folder / "mmdet" / "models.py").write_text(MODELS)
    folder.mkdir(exist_ok=True)
    (folder / "config.py").write_text(CONFIG.format(type=detector))
    return folder / "config.py"
