"""The base of adapters of any torch module: its training is saved and resumed."""

import pytest
import torch

from legacy_adapters import contract
from legacy_adapters.bases.detection import DetectionAdapter
from legacy_adapters.bases.module import ModuleAdapter, ModuleTraining
from legacy_adapters.named_inputs import NamedInputs
from legacy_adapters.numerics.precision import computing_in


def trained(seed):
    torch.manual_seed(seed)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    return model, ModuleTraining(model, optimizer, scheduler, max_norm=1.0)


def step(model, training):
    training.update(model(torch.ones(4, 3, dtype=next(model.parameters()).dtype)).square().sum())
    training.advance(False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_resumed_training_takes_the_step_that_the_stopped_one_would_have_taken(tmp_path, dtype):
    model, training = trained(0)
    step(model, training)
    training.save(str(tmp_path / "stopped.pth"), 1)
    other, resumed = trained(1)
    with computing_in(dtype):
        other.to(getattr(torch, dtype))
        resumed.resume(str(tmp_path / "stopped.pth"), 1)
        step(other, resumed)
    step(model, training)
    for one, two in zip(model.parameters(), other.parameters()):
        assert two.dtype == getattr(torch, dtype) and torch.allclose(one, two.float(), atol=1e-6)
    assert training.scheduler.get_last_lr() == resumed.scheduler.get_last_lr() == [0.025]


def test_a_checkpoint_of_another_step_is_refused(tmp_path):
    model, training = trained(0)
    training.save(str(tmp_path / "stopped.pth"), 2)
    with pytest.raises(ValueError, match="was written after step 2, expected 1"):
        training.resume(str(tmp_path / "stopped.pth"), 1)


class Broken(torch.nn.Module):
    """Has an error of its own that reads like inputs of other names."""

    def forward(self, images):
        raise TypeError("forward() got an unexpected keyword argument")


class Choosing(ModuleAdapter):
    """Gives the model some of the inputs."""

    def predict(self, model, batch):
        return model(batch["images"])


def test_inputs_that_the_model_does_not_take_are_told_from_errors_of_the_model():
    one = torch.ones(1, 3)
    adapter = ModuleAdapter()
    adapter.label = "new.py"
    names = "calls Linear, whose forward takes `input`, but phase predict has `image`, `labels`"
    with pytest.raises(contract.AdapterError, match=names):
        contract.result(adapter, "predict", torch.nn.Linear(3, 2), NamedInputs("predict", dict(image=one, labels=one)))
    choosing = Choosing()
    for right, inputs in ((adapter, dict(images=one)), (choosing, dict(images=one, labels=one))):
        with pytest.raises(TypeError, match="an unexpected keyword argument$"):
            contract.result(right, "predict", Broken(), NamedInputs("predict", inputs))


def test_a_detector_that_is_given_other_inputs_than_images_is_told_so():
    adapter = DetectionAdapter()
    adapter.label = "new.py"
    says = "batch.tensors. asks for the input `images`, but phase train has `points`"
    with pytest.raises(contract.AdapterError, match=says):
        contract.batch(adapter, NamedInputs("train", dict(points=torch.ones(1))))
