"""Made-up trainings and their logs, in the formats that mmengine and mmdet 2.x (mmcv 1.x) write."""

import json
from dataclasses import dataclass

import numpy as np

#: Term -> its value at the start and at the end of a training.
TERMS = {"loss_cls": (1.2, 0.5), "loss_bbox": (0.9, 0.3), "loss_iou": (1.5, 0.6), "d0.dn_loss_cls": (0.4, 0.05)}


@dataclass(frozen=True)
class Training:
    """What a training had at every iteration and after every epoch.

    Attributes:
        terms: [epochs * length] of each loss term, without the total.
        aps: [epochs].
        length: iterations of an epoch.
        rate: the learning rate, which falls to a tenth in the last epoch.
    """

    terms: dict
    aps: np.ndarray
    length: int
    rate: float = 2e-4

    @property
    def epochs(self):
        return len(self.aps)


def training(seed, epochs=4, length=23, noise=0.1, run_noise=0.003, changes=None, ap_shift=0.0):
    """Make a training: noise of every iteration and of the run as a whole; ``changes`` are factors of terms."""
    generator = np.random.default_rng(seed)
    done = np.arange(1, epochs * length + 1) / (epochs * length)
    terms = {}
    for name, (start, end) in TERMS.items():
        level = end + (start - end) * np.exp(-4 * done)
        factor = (changes or {}).get(name, 1.0)
        run = 1 + run_noise * generator.standard_normal()
        terms[name] = level * run * np.exp(noise * generator.standard_normal(len(done))) * factor
    aps = 0.5 * (1 - np.exp(-2 * np.arange(1, epochs + 1) / epochs)) + 0.002 * generator.standard_normal(epochs)
    return Training(terms, aps + ap_shift, length)


def _windows(run, interval, start=1):
    """Yield (epoch, iteration in it, means since the last entry); the rest of an epoch is lost as in the loggers."""
    for epoch in range(start, run.epochs + 1):
        for inner in range(interval, run.length + 1, interval):
            last = (epoch - 1) * run.length + inner
            means = {name: float(values[last - interval : last].mean()) for name, values in run.terms.items()}
            yield epoch, inner, {**means, "loss": sum(means.values())}


def _rate(run, epoch):
    return run.rate / 10 if epoch == run.epochs else run.rate


def write_mmengine(work_dir, run, interval=5, start=1, time="20260101_000000", text=True):
    """Write ``work_dir/time``: JSON, and text beside unless told not to. Return the JSON file."""
    rows, lines = [], []
    for epoch, inner, means in _windows(run, interval, start):
        iteration = (epoch - 1) * run.length + inner
        rate = _rate(run, epoch)
        rows.append({"lr": rate, "data_time": 1e-4, **means, "time": 0.5, "epoch": epoch, "iter": iteration,
                     "step": iteration})  # fmt: skip
        shown = "  ".join(f"{name}: {value:.4f}" for name, value in means.items())
        lines.append(f"Epoch(train)  [{epoch}][{inner:>4}/{run.length}]  lr: {rate:.4e}  eta: 1 day, 0:00:10  "
                     f"time: 0.5000  data_time: 0.0001  memory: 100  {shown}")  # fmt: skip
        if inner + interval > run.length:
            ap = round(float(run.aps[epoch - 1]), 3)
            rows.append({"coco/bbox_mAP": ap, "coco/bbox_mAP_50": ap, "data_time": 1e-4, "time": 0.1, "step": epoch})
            lines.append(f"Epoch(val) [{epoch}][10/20]    eta: 0:00:00  time: 0.1000  data_time: 0.0001  ")
            lines.append(f"Epoch(val) [{epoch}][20/20]    coco/bbox_mAP: {ap:.4f}  coco/bbox_mAP_50: {ap:.4f}  "
                         f"coco/bbox_mAP_copypaste: {ap} {ap} -1.0 -1.0 -1.0 -1.0  data_time: 0.0001")  # fmt: skip
    data = work_dir / time / "vis_data"
    data.mkdir(parents=True)
    file = data / "scalars.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / f"{time}.json").write_text(file.read_text())
    if text:
        stamp = "2026/01/01 00:00:00 - mmengine - INFO - "
        (work_dir / time / f"{time}.log").write_text("".join(stamp + line + "\n" for line in lines))
    return file


def write_mmdet2(work_dir, run, interval=5, start=1, time="20260101_000000", text=True):
    """Write mmdet 2.x's ``time.log.json``, and ``time.log`` unless told not to. Return the JSON file."""
    rows = [{"env_info": "sys.platform: linux\nPython: 3.8", "seed": 0, "exp_name": "config.py"}]
    lines = ["workflow: [('train', 1)], max: 4 epochs"]
    for epoch, inner, means in _windows(run, interval, start):
        rate = _rate(run, epoch)
        rounded = {name: round(value, 5) for name, value in means.items()}
        rows.append({"mode": "train", "epoch": epoch, "iter": inner, "lr": round(rate, 5), "memory": 100,
                     "data_time": 0.0001, **rounded, "time": 0.5})  # fmt: skip
        shown = ", ".join(f"{name}: {value:.4f}" for name, value in means.items())
        lines.append(f"Epoch [{epoch}][{inner}/{run.length}]\tlr: {rate:.3e}, eta: 1 day, 0:00:10, time: 0.500, "
                     f"data_time: 0.000, memory: 100, {shown}")  # fmt: skip
        if inner + interval > run.length:
            ap = round(float(run.aps[epoch - 1]), 3)
            pasted = f"{ap} {ap} -1.000 -1.000 -1.000 -1.000"
            rows.append({"mode": "val", "epoch": epoch, "iter": 20, "lr": round(rate, 5), "bbox_mAP": ap,
                         "bbox_mAP_50": ap, "bbox_mAP_copypaste": pasted})  # fmt: skip
            lines.append(f"Epoch(val) [{epoch}][20]\tbbox_mAP: {ap:.4f}, bbox_mAP_50: {ap:.4f}, "
                         f"bbox_mAP_copypaste: {pasted}")  # fmt: skip
    work_dir.mkdir(parents=True, exist_ok=True)
    file = work_dir / f"{time}.log.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if text:
        stamp = "2026-01-01 00:00:00,000 - mmdet - INFO - "
        (work_dir / f"{time}.log").write_text("".join(stamp + line + "\n" for line in lines))
    return file
