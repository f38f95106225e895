"""What one of two ranks does: training steps of a tiny DDQ-DETR with given denoising noise, trainings of the toy."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ddq_port.models  # noqa: F401  # isort: skip

import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ddq_port import configs
from ddq_port.hooks import NonFiniteLossError
from ddq_port.models.ddq_detr import aux_loss
from ddq_port.registry import MODELS
from legacy_adapters import mmdet3
from legacy_adapters.inputs import Batch
from parity.sides.prepare import seeded_batch
from tests.models import weights_of

from . import toy

OBJECTS = 8  # per image
SIZES = [(64, 96), (64, 96)]


@dataclasses.dataclass(frozen=True)
class Step:
    """What a step computed.

    Attributes:
        losses: the terms of this rank.
        factors: what each loss was divided by, in order of the calls.
        gradients: of each parameter, averaged over ranks.
        draws: random numbers of the denoising queries, in order.
    """

    losses: dict[str, Tensor]
    factors: list[float]
    gradients: dict[str, Tensor]
    draws: list[Tensor]


def model(dtype: torch.dtype, num_cp: int = 0) -> nn.Module:
    config = copy.deepcopy(configs.load(configs.VARIANTS["tiny_4scale"]))
    config.model.encoder.num_cp = num_cp
    with DefaultScope.overwrite_default_scope("mmdet"):
        made = MODELS.build(config.model)
    made.load_state_dict(weights_of("tiny_4scale", 0), strict=True)
    return made.to(dtype).train()


def batch(images: list[int], empty: tuple[int, ...] = ()) -> Batch:
    """Return some of two images; those in ``empty`` have no objects."""
    both = seeded_batch(SIZES, seed=0, num_classes=3, objects=(OBJECTS, OBJECTS))
    return dataclasses.replace(
        both,
        images=both.images[images],
        image_sizes=[both.image_sizes[i] for i in images],
        pad_shapes=[both.pad_shapes[i] for i in images],
        scale_factors=[both.scale_factors[i] for i in images],
        gt_bboxes=[both.gt_bboxes[i][: 0 if i in empty else None] for i in images],
        gt_labels=[both.gt_labels[i][: 0 if i in empty else None] for i in images],
    )


def step(trained: nn.Module, given: Batch, dtype: torch.dtype, draws: list[Tensor] | None) -> Step:
    """Run forward and backward; ``draws`` replaces the random numbers, None draws and records them."""
    bare = trained.module if hasattr(trained, "module") else trained
    samples = mmdet3.data_samples(given, with_gt=True)
    for sample in samples:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.to(dtype)
    used: list[Tensor] = []
    trained.zero_grad()
    with _default(dtype), _noise(draws, used, dtype), _factors(bare) as factors:
        losses = trained(given.images.to(dtype), samples, mode="loss")
        total, terms = bare.parse_losses(losses)
        total.backward()
    gradients = {name: p.grad.clone() for name, p in bare.named_parameters() if p.grad is not None}
    return Step({name: value.detach() for name, value in terms.items()}, factors, gradients, used)


def of_image(draws: list[Tensor], image: int) -> list[Tensor]:
    """Return the part of a batch's draws that belongs to one of its two images.

    Draws are laid out [2 * groups, objects of both images]; those of new labels exist for chosen positions only.
    """
    flips, labels, signs, parts = draws
    mine = torch.arange(len(flips)) % (2 * OBJECTS) // OBJECTS == image
    # as in mmdet's CdnQueryGenerator.generate_dn_label_query, with label_noise_scale 0.5
    chosen = torch.nonzero(flips < 0.25).view(-1)
    return [flips[mine], labels[mine[chosen]], signs[mine], parts[mine]]


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Let tensors have this type unless they are told another; mmdet's denoising queries do."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _noise(given: list[Tensor] | None, used: list[Tensor], dtype: torch.dtype) -> Iterator[None]:
    """Let ``torch.rand_like`` and ``torch.randint_like`` give the next of ``given``, and note what was used."""
    queue = list(given or [])

    def replaced(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def drawn(like: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            value = queue.pop(0) if given is not None else draw(like, *args, **kwargs)
            assert value.shape == like.shape
            used.append(value.clone())  # mmdet goes on to change it
            return value.to(dtype) if value.is_floating_point() else value

        return drawn

    originals = torch.rand_like, torch.randint_like
    torch.rand_like, torch.randint_like = (replaced(draw) for draw in originals)
    try:
        yield
    finally:
        torch.rand_like, torch.randint_like = originals


@contextmanager
def _factors(bare: nn.Module) -> Iterator[list[float]]:
    """Note what the losses are divided by."""
    head, noted = bare.bbox_head, []
    handles = [
        loss.register_forward_pre_hook(
            lambda _, args, kwargs: noted.append(float(kwargs["avg_factor"])), with_kwargs=True
        )
        for loss in (head.loss_cls, head.loss_bbox, head.loss_iou)
    ]
    reduce_mean = aux_loss.reduce_mean

    def reduced(factor: Tensor) -> Tensor:
        noted.append(float(reduce_mean(factor)))
        return torch.tensor(noted[-1], dtype=factor.dtype)

    aux_loss.reduce_mean = reduced
    try:
        yield noted
    finally:
        aux_loss.reduce_mean = reduce_mean
        for handle in handles:
            handle.remove()


@contextmanager
def _joined(rank: int, folder: str) -> Iterator[None]:
    """Be one of two ranks."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    yield
    dist.barrier()
    dist.destroy_process_group()


def steps(rank: int, folder: str) -> None:
    """Take steps with the draws in ``folder`` and leave the results there."""
    draws = torch.load(Path(folder, "draws.pth"))
    results = {}
    with _joined(rank, folder):
        for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
            trained = MMDistributedDataParallel(model(dtype))
            results[name] = dataclasses.asdict(step(trained, batch([rank]), dtype, of_image(draws, rank)))
        for name, empty in (("one empty", (1,)), ("all empty", (0, 1))):
            trained = MMDistributedDataParallel(model(torch.float32, num_cp=2))
            results[name] = dataclasses.asdict(step(trained, batch([rank], empty), torch.float32, None))
    torch.save(results, Path(folder, f"rank{rank}.pth"))


def trainings(rank: int, folder: str) -> None:
    """Train the toy: as a whole, stopped and resumed, and with a NaN on rank 1; leave what happened in ``folder``."""
    # without a wrapper of its own config, mmengine asks for the GPU LOCAL_RANK
    wrapper = dict(type="MMDistributedDataParallel", device_ids=None)
    os.environ["LOCAL_RANK"] = str(rank)
    wrapped = dict(cfg=dict(model_wrapper_cfg=wrapper), launcher="pytorch", by_epoch=True)
    wrapped["loader"] = dict(dataset=dict(type=toy.Images, length=16))
    results: dict[str, Any] = {}
    with _joined(rank, folder):
        for name, stop_at, resume in (("whole", None, False), ("stopped", 6, False), ("stopped", None, True)):
            record = toy.Record(stop_at)
            run = toy.runner(Path(folder, name), record, resume=resume, **wrapped)
            results.setdefault(name, {}).update(toy.losses_of(run, record))
        failing = toy.Model(fails_at=3 if rank == 1 else 0)
        hook = dict(type="ddq_port.StopOnNonFiniteLossHook")
        try:
            toy.runner(Path(folder, "nan"), toy.Record(), model=failing, hooks=[hook], **wrapped).train()
        except NonFiniteLossError as error:
            results["error"] = error
    Path(folder, f"rank{rank}.pickle").write_bytes(pickle.dumps(results))
