"""A learner with its functions as an objective: it has arrays and predicts, but shows no gradient.

The engines that run many clients as one program never choose it, for it is no PyTorch module.
"""

import contextlib
import copy
import dataclasses
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from folkmoot.adapters import losses
from folkmoot.adapters.arrays import Arrays, arrays, like, parts_of, refitted, tensors, tensors_of
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch
from folkmoot.core.errors import ClientError, SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local.dropout import seeded
from folkmoot.local.metrics import Metric


@contextlib.contextmanager
def drawing(key: Tensor) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch from a key, and put them back.

    One thread at a time, for the generators are the process's.
    """
    with seeded(key):
        before = random.getstate(), np.random.get_state()
        number = int(key) & 0xFFFFFFFF
        random.seed(number)
        np.random.seed(number)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@dataclass(frozen=True, eq=False)
class Learning:
    """A learner with its functions, as an objective that has no gradient."""

    learner: Any
    """The private copy, which is never trained."""
    get: Callable[[Any], Arrays]
    set: Callable[[Any, Arrays], None]
    fit: Callable[[Any, Tree], None]
    predict: Callable[[Any, Tree], Any] | None
    metrics: tuple[Metric, ...]
    target: str = "y"

    def __post_init__(self) -> None:
        try:
            copied = copy.deepcopy(self.learner)
        except (TypeError, RuntimeError) as error:
            raise SettingsError(
                f"A {type(self.learner).__name__} cannot be copied, and each client needs one: "
                f"{error}. Give it a __deepcopy__, or wrap what builds it."
            ) from error
        if copied is self.learner:
            # Of a class, copy.deepcopy gives that class: all clients would write into one.
            raise SettingsError(
                f"{self.learner!r} is itself after a copy, and each client needs one of its own. "
                "Give an object, such as Learner() where Learner is a class."
            )
        object.__setattr__(self, "learner", copied)

    def init(self) -> Tree:
        """Return the learner's arrays: floating ones under "params", others under "counts"."""
        return parts_of(tensors(self.get(self.learner)))

    def holding(self, state: Tree) -> Any:
        """Return a copy of the learner with a state's arrays."""
        learner = copy.deepcopy(self.learner)
        leaves = {**state["params"], **state["counts"]}
        self.set(learner, like(self.get(learner), leaves, ""))
        return learner

    def learnt(self, state: Tree, data: Tree) -> Tree:
        """Return what a client's fit makes of a state.

        Raises:
            ClientError: If arrays have other names, kinds or shapes than before.
        """
        learner = self.holding(state)
        held = tensors(self.get(learner))
        for name, leaf in {**state["params"], **state["counts"]}.items():
            # In the learner's memory the same bits: else it would learn from another model.
            if name not in held or not torch.equal(held[name], leaf):
                raise ClientError(
                    f"set() was given a new {name!r}, but get() does not return it. Let set() put "
                    "every array that get() returns into the learner."
                )
        self.fit(learner, arrays(data))
        return parts_of(refitted(tensors(self.get(learner)), held))

    def module(self, state: Tree) -> "Learnt":
        """Return a module that predicts by a state's arrays; those that it lacks are the first."""
        first = self.init()
        return Learnt(self, {part: {**first[part], **state[part]} for part in ("params", "counts")})

    def with_precision(self, precision: str) -> "Learning":
        """Return this objective in "float32", which stands for the learner's own arithmetic."""
        if precision != "float32":
            raise SettingsError(
                f"precision={precision!r} is for PyTorch's gradients, and a "
                f"{type(self.learner).__name__} has arithmetic of its own. Leave precision= out."
            )
        return self

    def split(self, data: Tree) -> tuple[Any, Any]:
        """Return (inputs, targets) of a batch's data."""
        inputs = {key: leaf for key, leaf in data.items() if key != self.target}
        only = inputs["x"] if len(inputs) == 1 and "x" in inputs else inputs
        return only, data.get(self.target)

    def grad(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> NoReturn:
        """Refuse: there are three functions, and none is a gradient.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError(
            f"A {type(self.learner).__name__} learns by a fit of its own and shows no gradient. "
            "Use fm.fedavg(work) or another algorithm that only averages, without fleet= and "
            "unit='example'."
        )

    def measure(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> Tree:
        """Return each metric's sums over a batch, (k,) in float64."""
        targets = batch.data.get(self.target)
        if self.predict is None:
            outputs: Any = torch.tensor([[0.0, 1.0]]).expand(len(trees.leaves(batch.data)[0]), 2)
        elif targets is None:
            raise SettingsError(
                f"There is no leaf {self.target!r} with the targets; the leaves are "
                f"{', '.join(batch.data)}."
            )
        else:
            with drawing(batch.key):
                outputs = self.outputs({"params": params, "counts": counts}, batch.data)
        return losses.summed(self.metrics, outputs, targets, batch.weight)

    def outputs(self, state: Tree, data: Tree) -> Tensor:
        """Return what a state's learner predicts of data, in which the target may stand or not."""
        if self.predict is None:
            raise SettingsError("This learner predicts nothing: give functions() a predict=.")
        inputs = {name: leaf for name, leaf in data.items() if name != self.target}
        found = self.predict(self.holding(state), arrays(inputs))
        return found if isinstance(found, Tensor) else torch.from_numpy(np.array(found))

    def refuse_unfit(self) -> None:
        """Refuse a learner whose arrays cannot travel."""
        state = self.init()
        if not state["params"]:
            raise SettingsError(
                f"get() returns no floating array of a {type(self.learner).__name__}, so there is "
                "nothing to learn. Return its parameters, and give them a shape before training."
            )
        for name, leaf in state["params"].items():
            if not leaf.isfinite().all():
                raise SettingsError(
                    f"get() returns {name!r} with a NaN or an infinity, and it is the first global "
                    "model. Begin with finite numbers, such as zeros."
                )
        try:
            self.module(state)
        except KeyError as error:
            raise SettingsError(f"get() names an array as it cannot be: {error}.") from error
        found = tensors(self.get(self.holding(state)))
        if not all(torch.equal(found[name], leaf) for name, leaf in tensors_of(state).items()):
            raise SettingsError(
                "get() does not return the arrays that set() was given. Let set() put every array "
                "that get() returns into the learner."
            )


class Learnt(nn.Module):
    """A learner with a model's arrays, which are this module's buffers: it predicts."""

    def __init__(self, objective: Learning, state: Tree) -> None:
        super().__init__()
        # Without its metrics, which are closures, a module goes where its functions can be pickled.
        self._objective = dataclasses.replace(objective, metrics=())
        self._places: dict[str, list[str]] = {
            part: list(state[part]) for part in ("params", "counts")
        }
        for name, leaf in tensors_of(state).items():
            holder: nn.Module = self
            *above, last = name.split(".")
            for key in above:
                if key not in dict(holder.named_children()):
                    holder.add_module(key, nn.Module())
                holder = holder.get_submodule(key)
            holder.register_buffer(last, leaf.detach().clone())
        self.eval()

    @property
    def learner(self) -> Any:
        """A new copy of the learner, with these arrays."""
        return self._objective.holding(self._state())

    def forward(self, x: Any = None, **inputs: Any) -> Tensor:
        """Return `predict`'s outputs, (rows, ...)."""
        return self._objective.outputs(self._state(), inputs if x is None else {"x": x, **inputs})

    def _state(self) -> Tree:
        held = self.state_dict()
        return {part: {name: held[name] for name in names} for part, names in self._places.items()}
