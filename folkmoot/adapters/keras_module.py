"""A Keras model as an ordinary PyTorch module, with parameters and buffers of its own.

On PyTorch a Keras model is an `nn.Module` already, but not one whose parameters can be put in from
outside: `torch.func.functional_call` leaves its outputs as they were and says nothing, and its
state dict lists every tensor twice. Here the weights stand in modules named as the Keras layers
are, and a pass shows them to the model in a `keras.StatelessScope`; what the pass would assign to a
weight, such as a moving mean, goes to the buffer in its place.

Random numbers of a pass come from the default generator, which an engine seeds by client and step:
a seed that was given to a layer, and how often that has drawn before, count for nothing. Dropout
without a seed is PyTorch's own, whose masks an engine draws from the step's key.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from folkmoot.adapters.keras_library import built, library, unnoticed
from folkmoot.core.errors import SettingsError


class Part(nn.Module):
    """A layer's weights, by their names."""


class BatchNormalised(nn.modules.batchnorm._BatchNorm):
    """The same of a layer that normalises by a batch's statistics.

    All that asks whether a model has such layers looks for this class of PyTorch's; none calls it.
    """

    track_running_stats = False  # Of an older state dict it would ask for a count of batches.
    running_mean = "moving_mean"  # type: ignore[assignment]
    variance = "moving_variance"

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def extra_repr(self) -> str:
        """Show nothing: there are no settings of PyTorch's."""
        return ""


class Place(NamedTuple):
    """Where a weight of the Keras model stands in the module."""

    variable: Any
    held: dict[str, Any]
    """The parameters, or buffers, of a part."""
    name: str
    is_state: bool
    """Whether passes in training may assign to it."""


class KerasModule(nn.Module):
    """A Keras model whose weights are this module's; called on a tensor, or on inputs by name."""

    def __init__(self, model_fn: Callable[[], Any], paths: list[str] | None = None) -> None:
        super().__init__()
        self.model_fn = model_fn
        # In a tuple, for a module inside would bring its own parameters.
        self.built = (built(model_fn),)
        self.penalty: Tensor | None = None
        """What regularisers and `add_loss` have added in the last training pass."""
        variables = self.keras.weights
        self.paths = paths or _paths(self.keras)
        if len(self.paths) != len(variables):
            raise SettingsError(
                f"model_fn() built a model of {len(self.paths)} weights at first and now one of "
                f"{len(variables)}. It must build the same model each time."
            )
        _refuse_foreign(self.keras)
        self._takes = _rows_of(self.keras)
        frozen, normalised = _frozen(self.keras), _normalised(self.keras)
        pairs = zip(variables, self.paths, strict=True)
        self.places = [
            _place(self, variable, path, frozen=id(variable) in frozen, normalised=normalised)
            for variable, path in pairs
        ]

    @property
    def keras(self) -> Any:
        """The Keras model that passes go through; its own weights are never looked at."""
        return self.built[0]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the model's outputs for a tensor, or for several inputs by name."""
        if torch.compiler.is_compiling():
            raise SettingsError("The layers of a Keras model cannot be compiled.")
        if inputs and self._takes:
            _refuse_rows(inputs[0], self._takes)
        scope = _scope()({id(place.variable): place.held[place.name] for place in self.places})
        self.penalty = None
        with library().device("cpu"), scope:
            outputs = self.keras(named or inputs[0], training=self.training)
            added = self.keras.losses if self.training else []
        if self.training:
            self.penalty = torch.stack(added).sum() if added else None
            for place in self.places:
                if place.is_state:
                    _put(place, scope.state_mapping[id(place.variable)])
        return outputs

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of the weights as arrays, in Keras' own order."""
        return [place.held[place.name].detach().cpu().numpy().copy() for place in self.places]

    def to_keras(self) -> Any:
        """Return a Keras model with these weights, compiled if `model_fn` compiles."""
        with unnoticed():
            model = built(self.model_fn)
        model.set_weights(self.get_weights())
        return model

    def __deepcopy__(self, memo: dict[int, Any]) -> "KerasModule":
        # Layers keep things between the steps of a pass, so a copy has layers of its own.
        with unnoticed():
            made = KerasModule(self.model_fn, self.paths)
        if made.keras is self.keras:
            raise SettingsError(
                "model_fn() returned the same model twice. It must build a new one each time: "
                "create the layers inside it."
            )
        memo[id(self)] = made
        for mine, other in zip(self.places, made.places, strict=True):
            leaf, twin = mine.held[mine.name], other.held[other.name]
            if leaf.shape != twin.shape:
                raise SettingsError(
                    f"model_fn() built {mine.variable.path} as {tuple(leaf.shape)} at first and "
                    f"now as {tuple(twin.shape)}. It must build the same model each time."
                )
            other.held[other.name] = copy.deepcopy(leaf, memo)
        return made.train(self.training)


@functools.cache
def _scope() -> Any:
    """Return the class of a pass's scope; Keras is there by then."""

    class Pass(library().StatelessScope):  # type: ignore[misc]
        """Weights that a pass reads and writes, with a seed for whatever draws in it."""

        def __init__(self, leaves: dict[int, Tensor]) -> None:
            super().__init__(collect_losses=True, initialize_variables=False)
            self.state_mapping = leaves

        def get_current_value(self, variable: Any) -> Tensor | None:
            """Return a weight; seeds are drawn when they are first asked for."""
            found = self.state_mapping.get(id(variable))
            if found is None and variable.name == "seed_generator_state":
                found = torch.randint(0, 1 << 30, (2,), dtype=torch.int32)
                self.state_mapping[id(variable)] = found
            return found

    return Pass


def _rows_of(model: Any) -> tuple[int | None, ...] | None:
    """Return the shape of a row of a model's only input; None where that is not known."""
    shape = getattr(model, "input_shape", None)
    return tuple(shape[1:]) if isinstance(shape, tuple) and shape[1:] else None


def _refuse_rows(given: Any, wanted: tuple[int | None, ...]) -> None:
    """Refuse rows of another shape in one sentence; Keras shows all of their numbers."""
    found = tuple(given.shape[1:])
    alike = len(found) == len(wanted) and all(
        size in (None, length) for size, length in zip(wanted, found, strict=True)
    )
    # Keras adds or drops a last 1 by itself.
    if not alike and not {found, (*found, 1)} & {wanted, (*wanted, 1)}:
        raise SettingsError(
            f"The Keras model takes rows of shape {wanted}, but was given rows of {found}. Reshape "
            f"the data, or build the model on keras.Input(shape={found})."
        )


def _put(place: Place, value: Tensor) -> None:
    """Put what a pass has assigned in a buffer's place; the engine copies it into the buffer."""
    before = place.held[place.name]
    if value is not before:
        place.held[place.name] = value.detach().to(before.dtype)


def _paths(model: Any) -> list[str]:
    """Return a name for each weight, as Keras has them, with dots; the model's own is left out."""
    found: list[str] = []
    for variable in model.weights:
        path = variable.path.removeprefix(f"{model.name}/").replace(".", "_").replace("/", ".")
        while path in found:
            path += "_"
        found.append(path)
    return found


def _frozen(model: Any) -> set[int]:
    """Return the ids of weights whose layers are not trained."""
    return {
        id(w) for layer in model._flatten_layers() if not layer.trainable for w in layer.weights
    }


def _normalised(model: Any) -> set[str]:
    """Return the paths of layers that normalise by a batch's statistics; frozen ones do not."""
    kind = library().layers.BatchNormalization
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, kind)]
    weights = [layer.weights for layer in layers if layer.trainable and layer.weights]
    return {of_layer[0].path.rpartition("/")[0] for of_layer in weights}


def _refuse_foreign(model: Any) -> None:
    """Refuse layers that read their weights past Keras, and would train without any effect."""
    kind = library().layers.TorchModuleWrapper
    for layer in model._flatten_layers():
        if isinstance(layer, kind):
            raise SettingsError(
                f"Layer {layer.name!r} of the Keras model wraps a PyTorch module, whose weights "
                "Keras cannot put in. Build the whole model in PyTorch, or in Keras."
            )


def _place(
    module: KerasModule, variable: Any, path: str, *, frozen: bool, normalised: set[str]
) -> Place:
    """Give a weight a place in a module, in parts named by its path."""
    *layers, name = path.split(".")
    part: nn.Module = module
    for depth, layer in enumerate(layers, start=1):
        if layer not in part._modules:
            last = depth == len(layers) and variable.path.rpartition("/")[0] in normalised
            part._modules[layer] = BatchNormalised() if last else Part()
        part = part._modules[layer]  # type: ignore[assignment]
    value = variable.value.detach().cpu().clone()
    trains = variable.trainable and not frozen
    if trains or (frozen and value.is_floating_point()):
        part._parameters[name] = nn.Parameter(value, requires_grad=trains)
        return Place(variable, part._parameters, name, is_state=not trains)
    part._buffers[name] = value
    return Place(variable, part._buffers, name, is_state=True)
