"""Keras 3 models, on PyTorch: trained here like any module, with their own loss and metrics.

The optimizer that a model was compiled with is not used: what a client's steps do is said by
`fm.local.sgd(objective, lr=...)` or `fm.local.descent`, for the server as for the client.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from folkmoot.adapters.keras_library import library
from folkmoot.adapters.keras_losses import loss_of, metric_of
from folkmoot.adapters.keras_module import KerasModule
from folkmoot.core.algorithm import Batch
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local.module import ModuleObjective
from folkmoot.local.objective import objective


class KerasWeights(list[np.ndarray]):
    """A Keras model's weights, in the order of `model.get_weights()`."""

    def assign_weights_to(self, model: Any) -> None:
        """Put the weights into a Keras model of the same layers.

        Raises:
            SettingsError: If it has other weights; it is then left as it was.
        """
        found = [tuple(weight.shape) for weight in model.weights]
        wanted = [weight.shape for weight in self]
        if found != wanted:
            raise SettingsError(
                f"The model {model.name!r} has weights of shapes {_listed(found)}, but these are "
                f"{_listed(wanted)}. Build it as model_fn does."
            )
        model.set_weights(self)


class KerasObjective(ModuleObjective):
    """A Keras model as an objective; what its layers add to the loss is trained on, too."""

    def weights(self, state: Tree) -> KerasWeights:
        """Return a state's weights as arrays, in Keras' order."""
        module: Any = self.module(state)
        return KerasWeights(module.get_weights())

    def _weighed(self, module: nn.Module, batch: Batch) -> Tensor:
        loss = super()._weighed(module, batch)
        penalty: Any = module.penalty
        return loss if penalty is None else loss + penalty


def keras(
    model_fn: Callable[[], Any], loss: Any = None, metrics: Sequence[Any] = ()
) -> KerasObjective:
    """Join a Keras model, a loss and metrics, as `objective` does for a module of PyTorch.

    What travels is named as Keras names it: `dense.kernel`. Layers that are not trainable stay with
    the server and travel never; statistics, such as moving means, are averaged as buffers.

    Args:
        model_fn: A function that builds the model, and builds another one each time it is called;
            or a Keras model, whose layers are cloned. It has an input layer. Where it
            compiles the model, loss and metrics need not be given; the optimizer is not used.
        loss: A `keras.losses.Loss`, its name, or a function of (targets, outputs) with a value a
            row. None: what the model was compiled with.
        metrics: What evaluation reports beside the loss: metrics of Keras that are a mean over
            rows, their names, functions of (targets, outputs), or metrics of ours. None given:
            what the model was compiled with.

    Data: "x" is the input, or all leaves but "y" are inputs by name; "y" holds the targets.

    Raises:
        SettingsError: If Keras is missing or runs on something other than PyTorch; if `model_fn`
            builds no model, or one without weights or loss; if a metric is no mean over rows.
    """
    library()
    module = KerasModule(_builder(model_fn))
    compiled = model_fn if isinstance(model_fn, library().Model) else module.keras
    wanted = compiled.loss if loss is None else loss
    if wanted is None:
        raise SettingsError(
            f"The Keras model {compiled.name!r} has no loss. Pass loss=, such as "
            "keras.losses.SparseCategoricalCrossentropy(), or compile it in model_fn."
        )
    named = [metric_of(one) for one in (metrics or _compiled_metrics(compiled))]
    plain = objective(module, loss_of(wanted), named)
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    return KerasObjective(**fields)


def _builder(model_fn: Any) -> Callable[[], Any]:
    """Return a function that builds the model in any thread as it is built in this one."""
    config = library().config
    if isinstance(model_fn, library().Model):
        build = functools.partial(_copied, model_fn)
    elif isinstance(model_fn, type) or not callable(model_fn):
        raise SettingsError(
            "fm.keras() needs a function that builds a Keras model, but was given "
            f"{model_fn!r}. Pass one such as lambda: keras.Sequential([...])."
        )
    else:
        build = model_fn
    policy = config.dtype_policy()

    def built_alike() -> Any:
        # Precision is a setting of each thread's own.
        before = config.dtype_policy()
        config.set_dtype_policy(policy)
        try:
            return build()
        finally:
            config.set_dtype_policy(before)

    return built_alike


def _copied(model: Any) -> Any:
    """Copy a Keras model, layer by layer as Keras describes them."""
    try:
        made = library().models.clone_model(model)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise SettingsError(
            f"Keras cannot copy the model {model.name!r} ({type(model).__name__}). Pass a function "
            "that builds it in place of the model."
        ) from error
    for ours, theirs in zip(made.weights, model.weights, strict=True):
        ours.assign(theirs)
    return made


def _compiled_metrics(model: Any) -> list[Any]:
    """Return the metrics that a model was compiled with, as they were given."""
    compiled = getattr(model, "_compile_metrics", None)
    if compiled is None:
        return []
    given = [*(compiled._user_metrics or ()), *(compiled._user_weighted_metrics or ())]
    if isinstance(compiled._user_metrics, dict) or any(isinstance(m, list | dict) for m in given):
        raise SettingsError(
            "Metrics by output cannot be told apart here. Pass metrics=, each a function of "
            "(targets, outputs)."
        )
    return given


def _listed(shapes: Sequence[Any]) -> str:
    return ", ".join(str(tuple(shape)) for shape in shapes)
