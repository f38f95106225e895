"""The detector from plain mmdet and mmengine tooling, as a user of the library meets it."""

import json

import numpy as np
import pytest
import torch

from ddq_port import configs
from tests.models import weights_of


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "new.pth"
    meta = {"dataset_meta": {"classes": ("a", "b", "c")}}
    torch.save({"meta": meta, "state_dict": weights_of("tiny_4scale", 0)}, path)
    return path


IMAGE = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)


def test_init_detector_and_inference_detector(checkpoint):
    from mmdet.apis import inference_detector, init_detector

    model = init_detector(str(configs.path("ddq-detr-4scale_tiny")), str(checkpoint), device="cpu")
    result = inference_detector(model, IMAGE).pred_instances
    assert len(result) == 50 and result.bboxes.shape == (50, 4)
    assert (result.bboxes[:, 0::2] <= 128).all() and (result.bboxes[:, 1::2] <= 96).all()


def test_det_inferencer(checkpoint):
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(
        str(configs.path("ddq-detr-4scale_tiny")), str(checkpoint), device="cpu", show_progress=False
    )
    predictions = inferencer(IMAGE, return_datasamples=False)["predictions"]
    assert len(predictions[0]["scores"]) == 50


def test_names_and_paths_of_configs():
    assert {"ddq-detr-4scale_r50_8xb2-12e_coco", "ddq-detr-4scale_tiny"} <= set(configs.names())
    assert configs.path("ddq-detr-4scale_tiny.py") == configs.path("ddq-detr-4scale_tiny")
    with pytest.raises(FileNotFoundError, match="there are .*ddq-detr-4scale_tiny"):
        configs.path("ddq-detr-9scale")


def coco(folder, images=8):
    """Write grey images with one or two bright rectangles each; class = colour channel."""
    import cv2

    random = np.random.default_rng(0)
    annotations = []
    for image_id in range(images):
        canvas = np.full((64, 64, 3), 40, np.uint8)
        for _ in range(int(random.integers(1, 3))):
            (x, y), (w, h), label = random.integers(0, 30, 2), random.integers(16, 30, 2), int(random.integers(3))
            canvas[y : y + h, x : x + w, label] = 230
            box = [float(v) for v in (x, y, w, h)]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
        cv2.imwrite(str(folder / f"{image_id}.png"), canvas)
    categories = [dict(id=i + 1, name=name) for i, name in enumerate("abc")]
    files = [dict(id=i, file_name=f"{i}.png", width=64, height=64) for i in range(images)]
    (folder / "ann.json").write_text(json.dumps(dict(images=files, annotations=annotations, categories=categories)))


def test_runner_trains_and_the_loss_falls(tmp_path):
    from mmengine.runner import Runner

    coco(tmp_path)
    config = configs.load("ddq-detr-4scale_tiny")
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="PackDetInputs"),
    ]
    config.train_dataloader.update(
        batch_size=4,
        num_workers=0,
        persistent_workers=False,
        batch_sampler=None,
        dataset=dict(
            type="CocoDataset",
            metainfo=dict(classes=("a", "b", "c")),
            ann_file=str(tmp_path / "ann.json"),
            data_prefix=dict(img=str(tmp_path) + "/"),
            pipeline=pipeline,
        ),
    )
    for name in ("val_dataloader", "val_cfg", "val_evaluator", "test_dataloader", "test_cfg", "test_evaluator"):
        config[name] = None
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=40)
    config.param_scheduler = None
    config.optim_wrapper.optimizer.lr = 1e-3
    config.default_hooks.checkpoint = None
    config.log_level = "ERROR"
    config.work_dir = str(tmp_path / "work")
    config.randomness = dict(seed=0)
    seen = []
    runner = Runner.from_cfg(config)
    step = runner.model.train_step

    def watched(*args, **kwargs):
        losses = step(*args, **kwargs)
        seen.append(float(losses["loss"]))
        return losses

    runner.model.train_step = watched
    runner.train()
    assert len(seen) == 40 and np.isfinite(seen).all()
    assert np.mean(seen[-8:]) < 0.8 * np.mean(seen[:8])
