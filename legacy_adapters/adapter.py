"""The base class of adapters: how the model of one side is built and run. Runs in that side's own process.

An adapter's file ends with ``ADAPTER = MyAdapter()``, of a subclass that overrides what it needs; what it does not
override, it cannot do or does as written here. A file without ``ADAPTER`` may define functions of these names instead,
without ``self``, for a detector: see :class:`legacy_adapters.loading.FunctionsAdapter`.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import torch

from .contract import AdapterError
from .inputs import Preprocessing
from .recording.methods import Aside, nothing_aside, plain
from .recording.taps import Tap, random_taps, rankings
from .training.steps import Training
from .whole.request import Outcome, WholeTest, WholeTraining


class UnableError(AdapterError):
    """An adapter was asked for what it cannot do; the message is one line."""


def left_open(method: Callable) -> Callable:
    """Mark a method that does nothing until a subclass overrides it."""
    method.is_left_open = True
    return method


class Adapter:
    """Build and run the model of one side.

    A batch is what :meth:`batch` makes of named tensors; without that method it is the dict of them.

    Attributes:
        result_keys: what :meth:`predict` tells of each image of a batch, at least; None if it returns tensors in any form.
        methods: names of methods that are recorded beside the calls of modules, in the model and in its submodules.
        label: of the file it was read from, for messages.
    """

    result_keys: Optional[Tuple[str, ...]] = None
    methods: Tuple[str, ...] = ("loss", "predict")
    label = ""

    @left_open
    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build the model on the CPU; who calls this loads its weights and moves it.

        Args:
            options: of the variant, and of the side: ``repo``, the path of the checkout, for one that is run from it; ``amp``
                if the new side is run under autocast.
            device: ``cpu`` or ``cuda[:n]``, where the model will run.
        """
        raise UnableError("{} has no method build(options, device).".format(self.label))

    def batch(self, tensors: Dict[str, torch.Tensor]) -> Any:
        """Make what the model is given of named tensors, which share their memory with it."""
        return tensors

    def perturbed(self, tensors: Dict[str, torch.Tensor]) -> List[torch.Tensor]:
        """Return the tensors of a batch that are changed in their last bit, to measure rounding."""
        return [tensor for _, tensor in sorted(tensors.items()) if tensor.is_floating_point()]

    def sizes(self, batch: Any) -> Any:
        """Return the sizes of a batch, plain data for the provenance."""
        return {name: list(tensor.shape) for name, tensor in sorted(batch.items())}

    def objects(self, batch: Any) -> List[int]:
        """Return how many objects each image of a batch has; nothing if it has no images."""
        return []

    def rotated(self, tensors: Dict[str, torch.Tensor], by: int) -> Dict[str, torch.Tensor]:
        """Return the tensors of a batch with its samples in another order, for a further form of inference."""
        return tensors

    def predict(self, model: torch.nn.Module, batch: Any) -> Any:
        """Run inference and return what comes out: tensors in lists, tuples and dicts."""
        return model(**batch)

    def results(self, value: Any) -> List[Any]:
        """Return what :meth:`predict` gave as a list: image by image if it is known to be of images, else as a whole."""
        return list(value) if self.result_keys is not None else [plain(value)]

    @left_open
    def losses(self, model: torch.nn.Module, batch: Any) -> Tuple[Dict[str, Any], torch.Tensor]:
        """Return the loss terms by name and their sum, a tensor of one number."""
        raise UnableError("{} has no method losses(model, batch).".format(self.label))

    def variants(self, model: torch.nn.Module) -> Dict[str, Callable[[Any], List[Any]]]:
        """Return further forms of inference by the phase they are recorded in; each returns a list of results.

        Module calls of the first are recorded, too.
        """
        return {}

    def taps(self, model: torch.nn.Module) -> List[Tap]:
        """Return the functions whose discrete decisions and random draws are recorded and may be forced."""
        return [*random_taps(), *rankings()]

    def aside(self, model: torch.nn.Module) -> Aside:
        """Return what gives values that methods pass elsewhere than in arguments and results."""
        return nothing_aside

    def predictor(self, model: torch.nn.Module) -> Optional[str]:
        """Name the module that gives first class logits [..., n, classes], then boxes [..., n, 4] cxcywh in [0, 1].

        They may be deltas instead. Of a detector that predicts densely, name the convolution that gives the class logits
        of each level [bs, classes, h, w].
        None means that there is no such module, and that the mapping of labels is not looked at.
        """
        return None

    def classes(self, model: torch.nn.Module) -> Optional[int]:
        """Return how many classes a detector tells apart.

        None if the model does not say; then the rows of the family's ``class_rows`` are counted.
        """
        return None

    def initialise(self, model: torch.nn.Module) -> None:
        """Initialise a model that was built, as before a training."""
        if hasattr(model, "init_weights"):
            model.init_weights()

    @left_open
    def training(self, model: torch.nn.Module, options: Mapping[str, Any], epoch_length: Optional[int]) -> Training:
        """Make optimizer, clipping and schedules, with the code base's own functions."""
        raise UnableError("{} has no method training(model, options, epoch_length).".format(self.label))

    def optimizer_wrapper(self, model: torch.nn.Module, options: Mapping[str, Any]) -> Any:
        """Return an object with the ``optimizer`` that the config makes; None if it makes none.

        Asked for its groups alone, by a conversion of a training that goes on.
        """
        return None

    @left_open
    def distributed(self, model: torch.nn.Module, options: Mapping[str, Any]) -> torch.nn.Module:
        """Wrap the model for a training of several ranks."""
        raise UnableError("{} has no method distributed(model, options).".format(self.label))

    @left_open
    def image_detector(self, model: torch.nn.Module, options: Mapping[str, Any]) -> Callable[[str, int], Dict[str, Any]]:
        """Return what detects objects in an image file, see :mod:`legacy_adapters.tasks.detecting`."""
        raise UnableError("{} has no method image_detector(model, options).".format(self.label))

    @left_open
    def preprocessing(self, model: torch.nn.Module, options: Mapping[str, Any]) -> Preprocessing:
        """Return how image files become the model's input, see :class:`legacy_adapters.inputs.Preprocessing`."""
        raise UnableError("{} has no method preprocessing(model, options).".format(self.label))

    @left_open
    def train_whole(self, request: WholeTraining) -> Outcome:
        """Train with the code base's own runner, see :class:`legacy_adapters.whole.request.WholeTraining`.

        Builds the model itself. The worker has set threads and precision, and writes what is returned.
        """
        raise UnableError("{} has no method train_whole(request).".format(self.label))

    @left_open
    def test_whole(self, request: WholeTest) -> Outcome:
        """Test with the code base's own runner, see :class:`legacy_adapters.whole.request.WholeTest`."""
        raise UnableError("{} has no method test_whole(request).".format(self.label))

    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Tell which code ran: ``modules``, each with file and version, and what else is known."""
        return {}

    def can(self, name: str) -> bool:
        """Tell whether a method of this name does something."""
        return not getattr(getattr(self, name), "is_left_open", False)
