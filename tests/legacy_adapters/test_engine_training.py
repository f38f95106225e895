"""Training with an adapter's help is training with mmengine's own Runner, bit by bit."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from legacy_adapters import mmdet3
from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter
from legacy_adapters.training.steps import Plan, StepLoop
from parity.traces.trace import Trace

EPOCHS, EPOCH_LENGTH = 3, 3
DATA = [torch.randn(3, generator=torch.Generator().manual_seed(seed)) * 10 for seed in range(2 * EPOCH_LENGTH)]
WARM_UP = dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=4)
DECAY = dict(type="MultiStepLR", begin=0, by_epoch=True, milestones=[1, 2], gamma=0.1)
COSINE = dict(type="CosineAnnealingLR", by_epoch=True, begin=0, T_max=EPOCHS, convert_to_iter_based=True)
POLY = dict(type="PolyLR", by_epoch=False, begin=1)


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(3, 3)
        self.head = nn.Linear(3, 1)

    def forward(self, inputs, mode="loss"):
        return {"loss_square": self.head(self.backbone(inputs).relu()).square().sum()}


class Rates(Hook):
    """Notes the learning rates with which each step is taken."""

    priority = "VERY_HIGH"  # before schedulers advance

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append([group["lr"] for group in runner.optim_wrapper.param_groups])


def config(schedulers, **changes):
    wrapper = dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=0.01, weight_decay=0.05),
        clip_grad=dict(max_norm=0.1, norm_type=2),
        paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
    )
    train = dict(by_epoch=True, max_epochs=EPOCHS)
    return Config(dict(optim_wrapper=dict(wrapper, **changes), train_cfg=train, param_scheduler=schedulers))


def run_by_mmengine(cfg, folder):
    model, rates = Toy(), Rates()
    loader = dict(
        batch_size=2, num_workers=0, collate_fn=dict(type="default_collate"), dataset=[dict(inputs=x) for x in DATA],
        sampler=dict(type="DefaultSampler", shuffle=False),
    )  # fmt: skip
    runner = Runner(
        model, work_dir=str(folder), train_dataloader=loader, train_cfg=dict(cfg.train_cfg),
        optim_wrapper=cfg.optim_wrapper, param_scheduler=cfg.param_scheduler, custom_hooks=[rates],
        default_scope="mmengine", experiment_name=folder.name, log_level="ERROR",
    )  # fmt: skip
    runner.train()
    return model, rates.seen


def run_by_steps(cfg, folder):
    model = Toy()
    recorder = Recorder(TraceWriter(str(folder)))
    training = mmdet3.training(model, cfg, EPOCH_LENGTH)
    loop = StepLoop(training, model, recorder, Plan(EPOCHS * EPOCH_LENGTH, EPOCH_LENGTH))

    def losses(step):
        place = (step - 1) % EPOCH_LENGTH * 2
        terms = model(torch.stack(DATA[place : place + 2]))
        return terms, model.parse_losses(terms)[0]

    loop.run(losses)
    recorder.writer.finish({}, dict(recorder.coverage(), without_gradient=[]))
    trace = Trace.load(folder)
    rates = [r for r in trace.records if (r.kind, r.slot) == ("setting", "lr")]
    by_step = [
        [trace.tensor(r).item() for r in rates if r.phase == f"step {step}"]
        for step in range(1, EPOCHS * EPOCH_LENGTH + 1)
    ]
    return model, by_step, training


@pytest.mark.parametrize(
    ("schedulers", "changes"),
    [
        ([WARM_UP, DECAY], {}),
        ([DECAY, WARM_UP], {}),
        (COSINE, {}),
        ([POLY], {}),
        ([], {}),
        (None, dict(clip_grad=None)),
        ([WARM_UP], dict(accumulative_counts=2)),
        ([DECAY], dict(clip_grad=dict(type="value", clip_value=0.01), paramwise_cfg=None)),
    ],
    ids=["warm-up, decay", "other order", "cosine by step", "poly without end", "no schedule", "no clipping",
         "accumulation", "clipped values"],
)  # fmt: skip
def test_weights_and_learning_rates_are_those_of_the_runner(tmp_path, schedulers, changes):
    expected, rates = run_by_mmengine(config(schedulers, **changes), tmp_path / "runner")
    found, by_step, _ = run_by_steps(config(schedulers, **changes), tmp_path / "steps")
    assert all(len(set(values)) > 1 for values in zip(*rates)) == bool(schedulers)
    # the Runner's groups may be one for all parameters
    assert [set(values) for values in by_step] == [set(values) for values in rates]
    start = Toy().state_dict()
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value) and not torch.equal(start[name], value)


def test_schedule_by_epoch_stands_still_while_no_epoch_ends(tmp_path):
    model = Toy()
    training = mmdet3.training(model, config([DECAY]), None)
    for _ in range(10):
        training.update(sum(model(torch.stack(DATA)).values()))
        training.advance(False)
    assert {group["lr"] for group in training.optimizer.param_groups} == {0.01, 0.001}


def test_a_checkpoint_without_schedules_goes_on_with_the_rates_of_its_step(tmp_path):
    def begun():
        model = Toy()
        return model, mmdet3.training(model, config([WARM_UP, POLY]), None)

    def taken(model, training, steps):
        rates = []
        for _ in range(steps):
            rates.append([group["lr"] for group in training.optimizer.param_groups])
            training.update(model.parse_losses(model(torch.stack(DATA)))[0])
            training.advance(False)
        return rates

    model, training = begun()
    taken(model, training, 2)
    before = [group["lr"] for group in training.optimizer.param_groups]
    taken(model, training, 1)
    training.save(str(tmp_path / "whole.pth"), 3)
    parts = torch.load(tmp_path / "whole.pth", weights_only=False)
    del parts["param_schedulers"], parts["message_hub"]
    for group, rate in zip(parts["optimizer"]["param_groups"], before):
        group["lr"] = rate  # mmcv sets that of a step when it begins
    torch.save(parts, tmp_path / "converted.pth")
    resumed, again = begun()
    again.resume(str(tmp_path / "converted.pth"), 3)
    assert taken(resumed, again, 3) == taken(model, training, 3)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), resumed.parameters()))
