"""A PyTorch module, its loss and its metrics as functions of trees: gradients and measurements.

The user's module is copied and stays as it was. Each thread works on a replica of its own, so the
same objective serves every engine.
"""

import contextlib
import copy
import dataclasses
import functools
import threading
from typing import Any

import torch
from torch import Tensor, nn

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree, is_ordinary
from folkmoot.local.dropout import seeded
from folkmoot.local.grad import differentiate
from folkmoot.local.metrics import Metric
from folkmoot.local.replica import Loss, Replica, call, shared_leaves

_BATCH_STATISTICS = nn.modules.batchnorm._BatchNorm


@dataclasses.dataclass(frozen=True, eq=False)
class ModuleObjective:
    """A PyTorch module as an objective; each thread works on a replica of its own."""

    model: nn.Module
    """The private copy: initial parameters, and all that does not travel."""
    loss: Loss
    """`loss(outputs, targets)` -> (rows,), or a scalar that is a mean over rows."""
    metrics: tuple[Metric, ...]
    """What evaluation reports; the first is the loss."""
    target: str | None = "y"
    """The leaf that holds the targets, all others are inputs; None: inputs are the targets."""
    mean_loss: Loss | None = None
    """A fused form of `loss(...).mean()`, where there is one."""
    ignored: int | None = -100
    """The target of a place that counts nowhere, if the loss knows one; torch's own by default."""
    precision: str = "float32"
    """"float32" or "bf16": autocast around each gradient."""
    threads: threading.local = dataclasses.field(default_factory=threading.local, repr=False)
    variants: dict[str, "ModuleObjective"] = dataclasses.field(default_factory=dict, repr=False)

    def init(self) -> Tree:
        """Return copies of what travels: {"params", "buffers", "counts"}."""
        params, buffers, counts = shared_leaves(self.model)
        return {
            "params": {name: leaf.detach().clone() for name, leaf in params.items()},
            "buffers": {name: leaf.detach().clone() for name, leaf in buffers.items()},
            "counts": {name: leaf.detach().clone() for name, leaf in counts.items()},
        }

    def module(self, state: Tree) -> nn.Module:
        """Return an ordinary module with a state's parameters, ready to predict.

        It is in evaluation mode, and tied weights are still tied.
        """
        module = copy.deepcopy(self.model).eval()
        leaves = {**state["params"], **state.get("buffers", {}), **state.get("counts", {})}
        with torch.no_grad():
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if name in leaves:
                    tensor.copy_(leaves[name])
        return module

    def with_precision(self, precision: str) -> "ModuleObjective":
        """Return this objective with gradients in "float32" or "bf16"."""
        if precision not in ("float32", "bf16"):
            raise SettingsError(f'precision must be "float32" or "bf16", but is {precision!r}.')
        if precision == self.precision:
            return self
        # One variant for good: its replicas are kept between rounds.
        if precision not in self.variants:
            self.variants[precision] = dataclasses.replace(
                self,
                precision=precision,
                threads=threading.local(),
                variants={self.precision: self},
            )
        return self.variants[precision]

    @functools.cached_property
    def needs_pairs(self) -> bool:
        """Whether training on one row has no meaning, because layers use batch statistics."""
        return any(isinstance(layer, _BATCH_STATISTICS) for layer in self.model.modules())

    @functools.cached_property
    def judges_pairs(self) -> bool:
        """Whether that is so in evaluation too, because layers keep no running statistics."""
        return any(
            isinstance(layer, _BATCH_STATISTICS) and layer.running_mean is None
            for layer in self.model.modules()
        )

    @functools.cached_property
    def channels_last(self) -> bool:
        """Whether images are laid out with channels last, which convolutions on CPUs want."""
        return any(isinstance(layer, nn.Conv2d) for layer in self.model.modules())

    @functools.cached_property
    def keeps(self) -> bool:
        """Whether tensors stay in the module that do not travel, such as frozen parameters."""
        return self.replica().keeps

    def renew(self) -> None:
        """Forget what a client's passes have left in the module; called before each client."""
        self.replica().renew()

    def replica(self) -> Replica:
        """Return this thread's copy of the model."""
        found = getattr(self.threads, "replica", None)
        if found is None:
            found = self.threads.replica = Replica(self.model)
        return found

    def split(self, data: Tree) -> tuple[Any, Any]:
        """Return (inputs, targets) of a batch's data."""
        if self.channels_last:
            data = {key: _channels_last(leaf) for key, leaf in data.items()}
        if self.target is None:
            inputs = {key: leaf for key, leaf in data.items() if key != "y"}
            only = inputs["x"] if len(inputs) == 1 and "x" in inputs else inputs
            return only, only
        if len(data) == 2 and "x" in data:
            return data["x"], data[self.target]
        return {key: leaf for key, leaf in data.items() if key != self.target}, data[self.target]

    def grad(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> tuple[Tree, Tensor]:
        """Return the gradient, a tree like `params`, and the loss, []; buffers are written into,
        the batch is not."""
        if torch.compiler.is_compiling():
            return self._traced_grad(params, batch)
        if not torch.is_grad_enabled():
            with torch.enable_grad():
                return self.grad(params, buffers, counts, batch)
        replica = self.replica()
        replica.mode(True)
        if not is_ordinary(next(iter(params.values()))):
            return self._mapped_grad(replica, params, buffers, counts, batch)
        leaves = replica.aliases(params)
        if buffers or counts:
            replica.hold(buffers, counts)
        lent = replica.training_inputs.lend(batch.data)
        loss = self._training_loss(replica, batch._replace(data=lent))
        gradients = differentiate(loss, leaves)
        replica.training_inputs.take_back(lent)
        if buffers or counts:
            replica.settle(buffers, counts)
        return dict(zip(params, gradients, strict=True)), loss.detach()

    def _mapped_grad(
        self, replica: Replica, params: Tree, buffers: Tree, counts: Tree, batch: Batch
    ) -> tuple[Tree, Tensor]:
        """Differentiate under `torch.func` or the compiler: the same pass, on traced leaves."""

        def value(leaves: Tree, floats: Tree, integers: Tree) -> tuple[Tensor, tuple[Tree, Tree]]:
            replica.bind(list(leaves.values()))
            replica.hold(floats, integers)
            return self._training_loss(replica, batch), replica.held(floats, integers)

        # The transform may write into its arguments only, so buffers go through it and come back.
        transformed = torch.func.grad_and_value(value, has_aux=True)
        copies = trees.clone(buffers), trees.clone(counts)
        gradient, (loss, (floats, integers)) = transformed(params, *copies)
        trees.copy_(buffers, floats)
        trees.copy_(counts, integers)
        replica.hold(buffers, counts)
        if replica.renew():
            raise SettingsError(
                "A forward pass changes a buffer that does not travel (persistent=False), which "
                "cannot be kept for many clients at once. Register it as persistent, or use "
                "another engine."
            )
        return gradient, loss

    def _traced_grad(self, params: Tree, batch: Batch) -> tuple[Tree, Tensor]:
        """Differentiate under the compiler, which must not see parameters move into slots."""
        inputs, targets = self.split(batch.data)

        def value(leaves: Tree) -> Tensor:
            arguments = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
            outputs = torch.func.functional_call(self.model, leaves, *arguments)
            return self._weigh(outputs, targets, batch.weight)

        return torch.func.grad_and_value(value)(params)

    def _training_loss(self, replica: Replica, batch: Batch) -> Tensor:
        """Return the loss of a batch, weighed by rows where rows are padded."""
        if replica.is_plain and self.precision == "float32":
            return self._weighed(replica.module, batch)
        with contextlib.ExitStack() as stack:
            if self.precision == "bf16":
                # The weight cache would keep the weights of an earlier step.
                stack.enter_context(torch.autocast("cpu", torch.bfloat16, cache_enabled=False))
            if not replica.is_plain:
                stack.enter_context(replica.randomness(batch.key))
            return self._weighed(replica.module, batch)

    def _weighed(self, module: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = self.split(batch.data)
        return self._weigh(call(module, inputs), targets, batch.weight)

    def _weigh(self, outputs: Any, targets: Any, weight: Tensor | None) -> Tensor:
        """Return the mean loss of a batch, or the sum of its rows' losses by their weights."""
        if weight is not None:
            return (self.loss(outputs, targets) * weight).sum()
        if self.mean_loss is not None:
            return self.mean_loss(outputs, targets)
        loss = self.loss(outputs, targets)
        return loss.mean() if loss.dim() else loss

    def loss_by_row(self, state: Tree, data: Tree) -> bool:
        """Tell whether the loss has a value for each row, so that rows can be weighed."""
        replica = self.replica()
        replica.mode(False)
        inputs, targets = self.split(data)
        model = replica.judging(state["params"], state["buffers"], state["counts"])
        with torch.no_grad(), model, seeded(torch.zeros((), dtype=torch.int64)):
            return self.loss(call(replica.module, inputs), targets).dim() == 1

    def measure(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> Tree:
        """Return each metric's sums over a batch, (k,) in float64, in evaluation mode."""
        replica = self.replica()
        replica.mode(False)
        lent = replica.evaluation_inputs.lend(batch.data)
        inputs, targets = self.split(lent)
        model = replica.judging(params, buffers, counts)
        with torch.no_grad(), model, replica.randomness(batch.key):
            outputs = call(replica.module, inputs)
            rows = {m.name: m.measure(outputs, targets).double() for m in self.metrics}
        replica.evaluation_inputs.take_back(lent)
        if batch.weight is None:
            return {name: values.sum(dim=0) for name, values in rows.items()}
        real = (batch.weight > 0).double()
        return {name: real @ values for name, values in rows.items()}


def _channels_last(leaf: Any) -> Any:
    """Lay images out with channels last; the numbers are the same."""
    is_image = isinstance(leaf, Tensor) and leaf.dim() == 4 and is_ordinary(leaf)
    return leaf.contiguous(memory_format=torch.channels_last) if is_image else leaf
