"""Train the official code as it trains itself, and evaluate what came out: ``python whole.py JOB.json``.

Data set, pipelines, loader, optimizer, runner and its hooks, checkpoints and the evaluation are those of the repo's own
mmdet and mmcv. Which images make a batch, and which of them are mirrored, is given, so that another code base can train on
the same. Runs in the legacy interpreter.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any, Dict, List, Sequence

if __name__ == "__main__":  # nothing has to be installed in the legacy interpreter
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

import torch

from legacy_adapters.numerics.seeding import seed_all
from legacy_adapters.targets.ddq_main.official import ADAPTER

#: Names of what is written into the work dir.
START, LOSSES, METRICS = "start.pth", "losses.jsonl", "metrics.json"


def main(path: str) -> None:
    """Do what the job in this file says.

    It has ``options`` of the variant, with the ``repo``; ``work_dir``, a folder; ``data``, the folder of the images;
    ``seed`` of the initial weights; ``threads``; and, but for the initial weights alone, ``batches``: a file with
    ``[[image, mirrored], ...]`` for each step, with the image's file name; ``stop``: the step after which this process ends;
    ``resume``: a checkpoint of the runner to go on from, or null for the initial weights.
    """
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    torch.set_num_threads(job["threads"])
    seed_all(job["seed"], "build")
    model = ADAPTER.build(job["options"], "cpu")
    config = ADAPTER.whole_config(job["options"])
    _use_data(config, job["data"])
    start = os.path.join(job["work_dir"], START)
    if job.get("batches") is None:
        model.init_weights()
        torch.save(dict(meta=dict(CLASSES=tuple(config.data.train.classes)), state_dict=model.state_dict()), start)
        return
    model.CLASSES = tuple(config.data.train.classes)
    with open(job["batches"], encoding="utf-8") as file:
        batches = json.load(file)
    _train(model, config, batches, job, start)
    if job["stop"] == len(batches):
        _evaluate(model, config, os.path.join(job["work_dir"], METRICS))


def _use_data(config: Any, folder: str) -> None:
    for part in ("train", "val", "test"):
        section = config.data[part]
        section.ann_file, section.img_prefix = (os.path.join(folder, section[name]) for name in ("ann_file", "img_prefix"))


def _train(model: Any, config: Any, batches: Sequence[Any], job: Dict[str, Any], start: str) -> None:
    """Run the repo's runner over the batches; write the loss of every step, and the runner's checkpoint at the end."""
    from mmcv.parallel import MMDataParallel
    from mmcv.runner import build_optimizer, build_runner
    from mmdet.datasets import build_dataloader

    wrapped = MMDataParallel(model, device_ids=[0])  # without a GPU it hands everything on
    quiet = logging.getLogger("legacy training")
    quiet.setLevel(logging.WARNING)
    config.runner.max_iters = job["stop"]
    own = dict(
        model=wrapped,
        optimizer=build_optimizer(wrapped, config.optimizer),
        work_dir=job["work_dir"],
        logger=quiet,
        meta=dict(CLASSES=model.CLASSES),
    )
    runner = build_runner(dict(config.runner), default_args=own)
    checkpoints = dict(by_epoch=False, interval=job["stop"])
    runner.register_training_hooks(config.lr_config, config.optimizer_config, checkpoints)
    runner.register_hook(_losses_hook(os.path.join(job["work_dir"], LOSSES)), priority="LOWEST")
    if job.get("resume"):
        runner.resume(job["resume"], map_location="cpu")
    else:
        runner.load_checkpoint(start, map_location="cpu", strict=True)
    data = _planned(config, [image for batch in batches[runner.iter :] for image in batch])
    loader = build_dataloader(
        data, config.data.samples_per_gpu, 0, dist=False, shuffle=False, runner_type=config.runner.type
    )
    runner.run([loader], [("train", 1)])


def _losses_hook(path: str) -> Any:
    from mmcv.runner import Hook

    class LossesHook(Hook):
        """Write all terms of every step, with all their bits."""

        def after_train_iter(self, runner: Any) -> None:
            terms = {name: float(value) for name, value in runner.outputs["log_vars"].items()}
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(dict(step=runner.iter + 1, **terms)) + "\n")

    return LossesHook()


def _planned(config: Any, images: List[Any]) -> Any:
    """Return the data set of training with the images in this order, mirrored as told."""
    from mmdet.datasets import CocoDataset

    class PlannedDataset(CocoDataset):
        """The repo's data set, whose images come in an order that is given."""

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, place: int) -> Any:
            name, mirrored = images[place]
            number = numbers[name]
            results = dict(img_info=self.data_infos[number], ann_info=self.get_ann_info(number))
            results.update(flip=mirrored, flip_direction="horizontal" if mirrored else None)
            self.pre_pipeline(results)
            return self.pipeline(results)

        def _set_group_flag(self) -> None:
            """Make no groups of images: the order is given."""

    section = dict(config.data.train)
    section.pop("type")
    data = PlannedDataset(**section)
    numbers = {info["filename"]: number for number, info in enumerate(data.data_infos)}
    return data


def _evaluate(model: Any, config: Any, path: str) -> None:
    """Write what the repo's evaluation says of the images of validation."""
    from mmcv.parallel import MMDataParallel
    from mmdet.apis import single_gpu_test
    from mmdet.datasets import build_dataloader, build_dataset

    data = build_dataset(config.data.val, dict(test_mode=True))
    loader = build_dataloader(data, 1, 0, dist=False, shuffle=False)
    metrics = data.evaluate(single_gpu_test(MMDataParallel(model, device_ids=[0]), loader), metric="bbox")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({name: float(value) for name, value in metrics.items() if not name.endswith("copypaste")}, file)


if __name__ == "__main__":
    main(sys.argv[1])
