"""What a layer gives, beside what a model gives: for losses on representations.

A layer's output is caught by a hook that stays for one pass. So a model keeps its names, its
replicas, and all that is known of its passes; metrics and finished models are the plain ones. A
model that is only looked at has a replica of its own, to which it stays bound.
"""

import copy
import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local.module import ModuleObjective
from folkmoot.local.replica import Replica, call

Term = Callable[[Tensor, Tree], tuple[Tensor, Tensor]]
"""`term(features, beside)` -> (values, slopes): what is added to the loss of each row, (rows,), and
its gradient by the features, (rows, n). In closed form, for autograd would take more calls."""


@dataclasses.dataclass(frozen=True, eq=False)
class FeaturedObjective(ModuleObjective):
    """An objective whose training loss has a term of what a layer gives.

    Its batches hold {"data": the plain objective's, "beside": what the term is told}.
    """

    plain: ModuleObjective = None  # type: ignore[assignment]
    """The objective to whose loss the term is added; its replicas are used."""
    layer: str = ""
    """The submodule whose output is looked at."""
    term: Term = None  # type: ignore[assignment]
    traced: nn.Module = None  # type: ignore[assignment]
    """For the compiler: (outputs, what the layer gives)."""

    def replica(self) -> Replica:
        """Return the plain objective's replica of this thread."""
        return self.plain.replica()

    def with_precision(self, precision: str) -> "FeaturedObjective":
        """Return this objective with gradients in "float32" or "bf16"."""
        if precision == self.precision:
            return self
        if precision not in self.variants:
            back: dict[str, ModuleObjective] = {self.precision: self}
            plain = self.plain.with_precision(precision)
            self.variants[precision] = dataclasses.replace(
                self, precision=precision, plain=plain, variants=back
            )
        return self.variants[precision]  # type: ignore[return-value]

    def _traced_grad(self, params: Tree, batch: Batch) -> tuple[Tree, Tensor]:
        inputs, targets = self.split(batch.data["data"])

        def value(leaves: Tree) -> Tensor:
            outputs, found = _traced(self.traced, leaves, inputs)
            return self._with_term(outputs, [found], targets, batch)

        return torch.func.grad_and_value(value)(params)

    def _weighed(self, module: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = self.split(batch.data["data"])
        with _caught(module, self.layer) as caught:
            outputs = call(module, inputs)
        return self._with_term(outputs, caught, targets, batch)

    def _with_term(self, outputs: Any, caught: list[Any], targets: Any, batch: Batch) -> Tensor:
        loss = self._weigh(outputs, targets, batch.weight)
        z = _rows(caught, self.layer)
        values, slopes = self.term(z.detach(), batch.data["beside"])
        if batch.weight is None:
            value, slopes = values.mean(), slopes / len(z)
        else:
            value, slopes = values @ batch.weight, slopes * batch.weight[:, None]
        # A product that has these slopes, and then the value that it should have.
        along = (z * slopes).sum()
        return loss + along + (value - along.detach())


def featured(objective: Any, layer: str, term: Term) -> FeaturedObjective:
    """Add a term of what a layer gives to an objective's training loss.

    Args:
        objective: Of a PyTorch module, such as `classifier(model)`.
        layer: Name of a submodule, as `named_modules()` gives it, that is called once in each
            forward pass and returns a tensor whose first dimension is the rows.
        term: `term(features, beside)` -> (values, slopes), see `Term`.

    Raises:
        SettingsError: If the model has no such layer, or the objective is of another make.
    """
    if not isinstance(objective, ModuleObjective):
        raise SettingsError(
            "What a layer gives is known of an objective of a PyTorch module only, such as "
            f"fm.classifier(model), but this one is a {type(objective).__name__}."
        )
    names = [name for name, _ in objective.model.named_modules() if name]
    if layer not in names:
        known = f"Its layers: {', '.join(names)}." if names else "It has no layers inside."
        raise SettingsError(
            f"features must name a layer of the model {type(objective.model).__name__}, but is "
            f"{layer!r}. {known}"
        )
    fields = {field.name: getattr(objective, field.name) for field in dataclasses.fields(objective)}
    traced = _looked_into(objective.model, layer).train()
    own = {"variants": {}, "plain": objective, "layer": layer, "term": term, "traced": traced}
    return FeaturedObjective(**{**fields, **own})


class Look:
    """Gives what a layer of one model gives, (rows, n), without a gradient.

    In evaluation mode: nothing is dropped, and no statistics are taken or written. Have one for
    each model that steps look at: it stays bound to its tensors.
    """

    def __init__(self, objective: FeaturedObjective) -> None:
        self._objective = objective
        self._traced = _looked_into(objective.model, objective.layer).eval()
        self._threads = threading.local()

    def __call__(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> Tensor:
        """Return the layer's output for a plain batch."""
        if torch.compiler.is_compiling():
            inputs, _ = self._objective.split(trees.clone(batch.data))
            with torch.no_grad():
                return _rows([_traced(self._traced, params, inputs)[1]], self._objective.layer)
        replica, found = self._replica()
        if replica.keeps:
            replica.renew()
        lent = replica.evaluation_inputs.lend(batch.data)
        model, draws = replica.judging(params, buffers, counts), replica.randomness(batch.key)
        with torch.no_grad(), model, draws:
            call(replica.module, self._objective.split(lent)[0])
        replica.evaluation_inputs.take_back(lent)
        caught = [*found]
        found.clear()
        return _rows(caught, self._objective.layer)

    def _replica(self) -> tuple[Replica, list[Any]]:
        """Return this thread's replica, and the list that receives what its layer gives."""
        if not hasattr(self._threads, "own"):
            replica, found = Replica(self._objective.model), []

            def catch(module: nn.Module, inputs: Any, output: Any) -> None:
                found.append(output)

            replica.module.get_submodule(self._objective.layer).register_forward_hook(catch)
            replica.mode(False)
            # What evaluation draws is learnt, and watched, in one place.
            replica.evaluation_draws = self._objective.replica().evaluation_draws
            self._threads.own = replica, found
        return self._threads.own


@contextmanager
def _caught(module: nn.Module, layer: str) -> Iterator[list[Any]]:
    """Catch what a layer gives in the passes of this block."""
    found: list[Any] = []

    def catch(module: nn.Module, inputs: Any, output: Any) -> None:
        found.append(output)

    handle = module.get_submodule(layer).register_forward_hook(catch)
    try:
        yield found
    finally:
        handle.remove()


def _looked_into(model: nn.Module, layer: str) -> nn.Module:
    """Return a module of the same tensors that gives what a layer gives, too.

    The compiler traces no hooks that come and go, so these stay.
    """
    kept = [*model.parameters(), *model.buffers()]
    module = copy.deepcopy(model, {id(tensor): tensor for tensor in kept})

    def keep(inside: nn.Module, inputs: Any, output: Any) -> None:
        inside.__dict__["_caught"] = output

    def give(whole: nn.Module, inputs: Any, output: Any) -> Any:
        return output, whole.get_submodule(layer).__dict__.pop("_caught", None)

    module.get_submodule(layer).register_forward_hook(keep)
    module.register_forward_hook(give)
    return module


def _traced(module: nn.Module, params: Tree, inputs: Any) -> Any:
    arguments = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
    return torch.func.functional_call(module, params, *arguments)


def _rows(caught: list[Any], layer: str) -> Tensor:
    """Return a layer's output by row, (rows, n), or refuse what is no representation."""
    if len(caught) != 1:
        raise SettingsError(
            f"The layer {layer!r} was called {len(caught)} times in a forward pass, but features "
            "needs one output. Name a layer that is called once."
        )
    [output] = caught
    if not isinstance(output, Tensor) or not output.dim():
        raise SettingsError(
            f"The layer {layer!r} gives a {type(output).__name__} that has no rows. Name one whose "
            "output is a tensor with a row for each example."
        )
    return output.reshape(len(output), -1)
