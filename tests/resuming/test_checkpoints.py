"""Checkpoints in the form that mmcv 1.x's Runner writes, made here, are carried whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

pytest.importorskip("mmdet")

from converters.cli.main import cli
from converters.configs.source import source
from converters.examining import verification
from converters.rules import built, ports
from legacy_adapters import mmdet3
from legacy_adapters.families.mmdet2.migration.migration import MIGRATION
from legacy_adapters.families.mmdet2.new import ADAPTER
from legacy_adapters.ground import config_text
from legacy_adapters.tasks import describing

from .trainings import CONFIGS, TRAININGS, config_of_2x

CLASSES = tuple(f"class {number}" for number in range(7))
PALETTE = [(number, 0, 0) for number in range(7)]
PARAMWISE = TRAININGS["averaged"][1].split("lr_config")[0]
SGD = 'optimizer = dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0001)\n'
STEP = 'lr_config = dict(policy="step", step=[2])\n'
EPOCHS = 'runner = dict(type="EpochBasedRunner", max_epochs=4)\n'


def text_of(model: str = "tiny_retinanet", *more: str) -> str:
    """Return a config of 2.x: the model, SGD with one group, a step, and more."""
    return (CONFIGS / "legacy" / f"{model}.py").read_text("utf-8") + SGD + STEP + EPOCHS + "\n".join(more)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Describe the models of configs in this process, which has imported what that needs."""

    def describe(side, adapter, options, *where, trains=False):
        assert trains
        return described(Path(options["config"]).read_text("utf-8"), options["config"])

    monkeypatch.setattr(built, "describe_side", describe)


WRITTEN: dict[str, str] = {}


def written(text: str, path: Path) -> str:
    """Return the config of 3.x of one of 2.x, made once for each text."""
    if text not in WRITTEN:
        WRITTEN[text] = source("", MIGRATION.translate(str(path)).config, {})
    return WRITTEN[text]


KNOWN: dict[str, Any] = {}


def described(text: str, config: str) -> Any:
    if text not in KNOWN:
        model, options = model_of(text, config), dict(config=config)
        told = describing.groups(ADAPTER.optimizer_wrapper(model, options), model)
        KNOWN[text] = SimpleNamespace(layout=describing.entries(model), optimizer=told, classes=None)
    return KNOWN[text]


MODELS: dict[str, nn.Module] = {}


def model_of(text: str, config: str) -> nn.Module:
    """Return the model of a config of 3.x, built once for each text."""
    if text not in MODELS:
        MODELS[text] = mmdet3.build_model(config)
    return MODELS[text]


class Old:
    """A training of 2.x and its config of 3.x; `save` writes what mmcv does.

    The momentum of each parameter is its number in the model.
    """

    def __init__(self, folder: Any, text: str) -> None:
        self.folder, self.text = folder, text
        (folder / "old.py").write_text(text)
        self.config = config_text.parse(text)
        self.new = folder / "new.py"
        self.new.write_text(written(text, folder / "old.py"))
        self.model = model_of(self.new.read_text(), str(self.new))
        self.optimizer = self._optimizer(dict(self.config["optimizer"]))
        self.content: dict[str, Any] = dict(
            meta=dict(
                epoch=1, iter=3, mmcv_version="1.7.2", time="Mon", config=text, seed=0, CLASSES=CLASSES, PALETTE=PALETTE,
                mmdet_version="2.28.2", hook_msgs={},
            ),
            state_dict={key: tensor.clone() for key, tensor in self.model.state_dict().items()},
            optimizer=self.optimizer.state_dict(),
        )  # fmt: skip

    def _optimizer(self, options: dict[str, Any]) -> torch.optim.Optimizer:
        kind, paramwise = getattr(torch.optim, options.pop("type")), options.pop("paramwise_cfg", {})
        params: Any = list(self.model.parameters())
        if paramwise:  # mmcv makes groups of frozen parameters, too
            norms = {id(p) for m in self.model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
            params = [dict(params=[p], **(dict(weight_decay=0.0) if p.requires_grad and id(p) in norms else {})) for p in params]
        optimizer = kind(params, **options)
        for number, param in enumerate(self.model.parameters()):
            param.grad = torch.full_like(param, float(number)) if param.requires_grad else None
        optimizer.step()
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def save(self, name: str = "epoch_1.pth") -> str:
        torch.save(self.content, self.folder / name)
        return str(self.folder / name)

    def convert(self, *more: str, name: str = "epoch_1.pth") -> Any:
        """Convert it as the command line does; return what click tells."""
        options = ("--family", "mmdet2", "--new-config", str(self.new), "--force", *more)
        return CliRunner().invoke(cli, ["convert", self.save(name), str(self.folder / "new.pth"), *options])

    def made(self, *more: str, name: str = "epoch_1.pth") -> dict[str, Any]:
        result = self.convert(*more, name=name)
        assert result.exit_code == 0, result.output
        self.stderr = " ".join(result.stderr.split())
        return torch.load(self.folder / "new.pth", weights_only=True)

    def taken_up(self, made: dict[str, Any]) -> torch.optim.Optimizer:
        """Load the optimizer as mmengine's Runner does, into a new one of the new config."""
        wrapper = mmdet3.optimizer_wrapper(self.model, mmdet3.load_config(str(self.new)))
        wrapper.load_state_dict(dict(made["optimizer"]))
        return wrapper.optimizer


@pytest.fixture
def old(tmp_path) -> Callable[..., Old]:
    return lambda text=None: Old(tmp_path, text_of() if text is None else text)


def assert_states(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for number, param in enumerate(model.parameters()):
        held = optimizer.state.get(param, {})
        assert bool(held) == param.requires_grad
        # the first step takes the gradient, and a decay of what the weights were, which is far below 1
        assert not held or torch.allclose(held["momentum_buffer"], torch.full_like(param, float(number)), atol=0.1), number


def test_meta_is_that_of_mmengine_and_keeps_what_2x_says(old):
    training = old()
    made = training.made()
    meta = made["meta"]
    assert meta["dataset_meta"] == dict(classes=CLASSES, palette=PALETTE)
    assert meta["legacy_config"] == training.text and "config" not in meta  # mmengine would compare its GPUs
    assert (meta["epoch"], meta["iter"], meta["legacy_mmcv_version"]) == (1, 3, "1.7.2")
    assert made["message_hub"]["runtime_info"] == {}
    verification.verify_file(str(training.folder / "new.pth"), str(training.folder / "epoch_1.pth"))
    assert training.made("--keep", "model")["meta"]["dataset_meta"]["classes"] == CLASSES


def test_one_group_of_all_parameters(old):
    training = old()
    made = training.made()
    optimizer = training.taken_up(made)
    assert len(optimizer.param_groups) == 1
    assert_states(training.model, optimizer)
    assert [state["milestones"] for state in made["param_schedulers"]] == [{2: 1}]
    assert made["param_schedulers"][0]["_global_step"] == 1 and made["param_schedulers"][0]["last_step"] == 1


def test_a_group_for_each_parameter(old):
    training = old(text_of("tiny_retinanet", PARAMWISE))
    made = training.made()
    optimizer = training.taken_up(made)
    trained = [param for param in training.model.parameters() if param.requires_grad]
    assert [group["params"][0] is param for group, param in zip(optimizer.param_groups, trained)] == [True] * len(trained)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.0005}
    assert_states(training.model, optimizer)
    assert len(made["param_schedulers"][0]["base_values"]) == len(trained) + 1  # and the base settings
    assert made["optimizer"]["base_param_settings"]["lr"] == 0.01


def test_parameters_that_are_one_under_several_keys_are_counted_once_in_the_old_order(old):
    training, port = old(text_of("tiny_deformable")), ports.port("mmdet2", "tiny_deformable")
    layout, name_of = port.layout("legacy"), port.mapping.target_of
    own, weights = dict(training.model.named_parameters()), training.model.state_dict()
    keys = sorted(layout.tensors, key=lambda key: key.startswith("backbone"))  # as a model does that makes it last
    numbered = {number: name_of(key) for number, key in enumerate(key for key in keys if key in layout.parameters)}
    assert sorted(numbered.values()) == sorted(own) and len(own) < len(layout.tensors) - len(layout.buffers)
    assert list(numbered.values()) != list(own), "the two models make their parameters in another order"
    training.content["state_dict"] = {key: weights[name_of(key)] for key in keys}
    group = dict(training.content["optimizer"]["param_groups"][0], params=list(numbered))
    states = {
        number: dict(momentum_buffer=torch.full_like(own[name], float(number)))
        for number, name in numbered.items()
        if own[name].requires_grad
    }
    training.content["optimizer"] = dict(state=states, param_groups=[group])
    optimizer = training.taken_up(training.made())
    for number, name in numbered.items():
        held = optimizer.state.get(own[name], {}).get("momentum_buffer")
        assert held is None or held.flatten()[0] == number
    assert len(optimizer.state) == len(states)


def test_an_optimizer_that_has_a_state_of_everything_is_carried(old):
    """Adagrad has one from the beginning, of frozen parameters, too; its steps tell that it has changed none of these."""
    training = old(text_of("tiny_retinanet", 'optimizer = dict(type="Adagrad", lr=0.01)'))
    optimizer = training.taken_up(training.made())
    assert all(optimizer.state[param]["step"] == param.requires_grad for param in training.model.parameters())


def test_a_file_without_an_optimizer_is_one_to_begin_with(old):
    training = old()
    del training.content["optimizer"]
    assert "optimizer" not in training.made()
    assert "a training can begin with the output (`load_from`), and not go on" in training.stderr


def test_a_training_that_is_over_needs_no_schedule(old):
    training = old(text_of("tiny_retinanet", 'lr_config = dict(policy="cyclic", by_epoch=False)'))
    training.new.write_text(training.new.read_text() + "\nparam_scheduler = []\n")
    assert "`lr_config.policy`" in " ".join(training.convert().stderr.split())
    training.content["meta"].update(epoch=4, iter=12)
    assert "param_schedulers" not in training.made()
    assert "The training is over, after step 12 (the end of epoch 4)" in training.stderr


@pytest.mark.parametrize(
    ("hook", "name", "exchanged"),
    [
        ('dict(type="ExpMomentumEMAHook", priority=49)', "epoch_1.pth", True),
        ('dict(type="EMAHook")', "epoch_1.pth", False),
        ('dict(type="EMAHook")', "best_bbox_mAP_epoch_1.pth", True),
        ('dict(type="LinearMomentumEMAHook", priority="ABOVE_NORMAL")', "epoch_1.pth", True),
        ('dict(type="EMAHook", priority="LOW")', "epoch_1.pth", False),
    ],
)
def test_averages_are_told_from_weights_by_the_order_of_the_hooks(old, hook, name, exchanged):
    training = old(text_of("tiny_retinanet", f"custom_hooks = [{hook}]"))
    names = [key for key, _ in training.model.named_parameters()]
    weights = training.content["state_dict"]
    weights |= {f"ema_{key.replace('.', '_')}": weights[key] + 1 for key in names}
    made = training.made(name=name)
    key = "bbox_head.retina_cls.weight"
    plain, other = weights[key], weights[key] + 1
    training_weights, averages = (other, plain) if exchanged else (plain, other)
    assert torch.equal(made["state_dict"][key], averages)
    assert torch.equal(made["ema_state_dict"][f"module.{key}"], training_weights)
    assert made["ema_state_dict"]["steps"].item() == 3
    assert "By the config of the training" in training.stderr


def test_gradients_that_waited_for_a_step_are_told_to_be_lost(old):
    adding = 'optimizer_config = dict(type="GradientCumulativeOptimizerHook", cumulative_iters={})'
    training = old(text_of("tiny_retinanet", adding.format(2)))
    training.made()
    assert (
        "Gradients of 1 of 2 steps (`cumulative_iters`) waited to be added up; mmcv does not save them."
        in training.stderr
    )
    training.content["meta"]["config"] = text_of("tiny_retinanet", adding.format(3))
    training.made()
    assert "waited to be added up" not in training.stderr


def test_a_checkpoint_of_mmengine_is_one_of_the_new_side(old):
    """The keys of this model are the same on both sides, and only what stands beside them tells."""
    training = old()
    training.content["message_hub"] = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    result = training.convert()
    assert result.exit_code == 2 and "already has the new layout of mmdet2 new" in result.stderr
    # written by ddq-convert for the old code, which says so
    training.content["meta"]["layout"] = "legacy"
    del training.content["optimizer"]
    assert "message_hub" in training.made("--keep", "all")


def test_averages_of_an_unknown_hook_are_refused(old):
    training = old()
    weights = training.content["state_dict"]
    weights |= {f"ema_{key.replace('.', '_')}": weights[key] + 1 for key, _ in training.model.named_parameters()}
    result = training.convert()
    assert result.exit_code == 1 and "nobody knows which of the two sets is which; pass --legacy-config OLD.py" in result.stderr


def test_an_iteration_is_counted_that_mmcv_writes_before_it_does(old):
    training = old(text_of().replace(STEP, 'lr_config = dict(policy="poly", power=0.9)\n').replace(
        EPOCHS, 'runner = dict(type="IterBasedRunner", max_iters=8)\n'))  # fmt: skip
    for group in training.content["optimizer"]["param_groups"]:
        group["lr"] = 0.01 * (1 - 3 / 8) ** 0.9
    made = training.made()
    assert (made["meta"]["epoch"], made["meta"]["iter"]) == (0, 4)
    assert made["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.01 * (1 - 4 / 8) ** 0.9, rel=1e-12)
    assert made["param_schedulers"][0]["_global_step"] == 4
    assert "3 stands for 4 steps, and the training goes on with step 5" in training.stderr


def test_without_a_config_the_new_one_tells_and_a_named_one_is_read(old):
    training = old()
    del training.content["meta"]["config"]
    made = training.made()
    assert made["param_schedulers"][0]["_global_step"] == 1
    assert "does not hold the config of its training, so its schedules are those of the new config" in training.stderr
    training.made("--legacy-config", str(training.folder / "old.py"))
    assert "does not hold the config" not in training.stderr


def test_prefix_of_a_distributed_wrapper_is_taken_away_and_told(old):
    training = old()
    training.content["state_dict"] = {f"module.{key}": tensor for key, tensor in training.content["state_dict"].items()}
    made = training.made()
    assert "bbox_head.retina_cls.weight" in made["state_dict"]
    assert_states(training.model, training.taken_up(made))
    assert "behind the prefix `module.`" in training.stderr or "`module.`" in training.stderr


def test_groups_that_name_their_parameters_need_no_order(old):
    training = old(text_of("tiny_retinanet", PARAMWISE))
    held = training.content["optimizer"]
    names = [name for name, _ in training.model.named_parameters()]
    for group in held["param_groups"]:
        group["param_names"] = [names[number] for number in group["params"]]
    held["param_groups"].reverse()
    assert_states(training.model, training.taken_up(training.made()))


def test_parameters_without_a_state_are_told(old):
    training = old()
    name, number = next((n, i) for i, (n, p) in enumerate(training.model.named_parameters()) if p.requires_grad)
    del training.content["optimizer"]["state"][number]
    training.made()
    assert f"1 parameter(s) that the new config trains have no state in the source's optimizer: `{name}`" in training.stderr


def _without_optimizer(training: Old) -> None:
    del training.content["optimizer"]


def _half(training: Old) -> None:
    training.content["meta"]["fp16"] = dict(loss_scaler=dict(scale=512.0))


def _apex(training: Old) -> None:
    training.content["amp"] = dict(loss_scaler0=dict(loss_scale=65536.0, unskipped=1))


def _split(training: Old) -> None:
    numbers = training.content["optimizer"]["param_groups"][0].pop("params")
    group = training.content["optimizer"]["param_groups"][0]
    training.content["optimizer"]["param_groups"] = [dict(group, params=numbers[:4]), dict(group, params=numbers[4:])]


def _fewer(training: Old) -> None:
    number = training.content["optimizer"]["param_groups"][0]["params"].pop()
    assert number in training.content["optimizer"]["state"]
    training.content["optimizer"]["state"].pop(number)


def _apart(training: Old) -> None:
    group = training.content["optimizer"]["param_groups"][0]
    numbers = group["params"]
    training.content["optimizer"]["param_groups"] = [
        dict(group, params=[number], weight_decay=0.1 * (place % 2)) for place, number in enumerate(numbers)
    ]


def _other(training: Old) -> None:
    training.content["meta"]["config"] = training.text.replace('type="SGD"', 'type="AdamW"')


def _adam(training: Old) -> None:
    del training.content["meta"]["config"]
    group = training.content["optimizer"]["param_groups"][0]
    del group["momentum"]
    group.update(betas=(0.9, 0.999), eps=1e-8)


def _frozen(training: Old) -> None:
    number = next(i for i, param in enumerate(training.model.parameters()) if not param.requires_grad)
    param = list(training.model.parameters())[number]
    training.content["optimizer"]["state"][number] = dict(momentum_buffer=torch.zeros_like(param))


def _uncounted(training: Old) -> None:
    del training.content["meta"]["iter"]


def _half_by_config(training: Old) -> None:
    training.content["meta"]["config"] = training.text + "\nfp16 = dict(loss_scale=512.0)\n"


def _missing(training: Old) -> None:
    del training.content["state_dict"]["bbox_head.retina_cls.weight"]


def _sorted(training: Old) -> None:
    training.content["state_dict"] = dict(sorted(training.content["state_dict"].items()))


def _cyclic(training: Old) -> None:
    training.content["meta"]["config"] = training.text.replace('policy="step"', 'policy="cyclic"')


def _by_steps(training: Old) -> None:
    training.content["meta"]["config"] = training.text.replace('type="EpochBasedRunner", max_epochs', 'type="IterBasedRunner", max_iters')


REFUSED = [
    (_half, (), "`meta.fp16` of the source is the state of a loss scaler"),
    (_half_by_config, (), "`fp16` of the source's config says that it was trained in half precision"),
    (_uncounted, (), "does not say after how many epochs and steps (`meta.epoch`, `meta.iter`)"),
    (_apex, (), "`amp` of the source is the state of apex amp"),
    (_without_optimizer, ("--keep", "all"), "The source holds no optimizer, which resuming a training needs"),
    (_split, (), "The optimizer has 2 groups for"),
    (_fewer, (), "The optimizer has one group of"),
    (_apart, (), "into one group, and the source's optimizer has other `weight_decay` for each"),
    (_other, (), "The source was trained with AdamW, and the new config makes SGD"),
    (_adam, (), "are of another one than SGD, which the new config makes"),
    (_frozen, (), "has a state of 1 parameter(s) that the new config does not train"),
    (_missing, (), "`bbox_head.retina_cls.weight`"),
    (_sorted, (), "are in alphabetical order, not in the model's"),
    (_cyclic, (), "`lr_config.policy` of the source's training is 'cyclic'"),
    (_by_steps, (), "counts iterations, and the loop of the new config epochs"),
]


@pytest.mark.parametrize(("damage", "options", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", "")[1:])
def test_what_cannot_go_on_is_refused_in_one_line(old, damage, options, message):
    training = old()
    damage(training)
    result = training.convert(*options)
    said = " ".join(result.stderr.split())
    assert result.exit_code in (1, 2) and message in said, said
    assert result.stderr.count("error:") == 1 and len(said) < 460, len(said)
    assert "--keep model" in said or damage is _missing


def test_new_groups_that_were_one_are_refused(old):
    training = old()
    other = training.folder / "other.py"
    other.write_text(text_of("tiny_retinanet", PARAMWISE))
    training.new.write_text(written(other.read_text(), other))
    result = training.convert()
    assert result.exit_code == 1 and "has one group where the new config has" in " ".join(result.stderr.split())


def test_a_new_config_without_an_optimizer_is_refused(old):
    training = old()
    training.new.write_text(training.new.read_text() + "\noptim_wrapper = None\n")
    result = training.convert()
    assert result.exit_code == 1 and result.stderr.count("error:") == 1
    assert (
        "The new config has no `optim_wrapper`, so no training goes on with it; add one, or pass --keep model"
        in " ".join(result.stderr.split())
    )


def test_the_trainings_of_the_other_tests_have_configs():
    assert all(config_of_2x(name) for name in TRAININGS)
