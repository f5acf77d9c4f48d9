"""A stream's own copy of a model, into whose slots parameters are put without being copied.

`functional_call` costs more than a small model's whole step. Here the parameters are stored into
the module's own dicts, once, and stay bound for as long as the same tensors come back, which is the
case when steps write into their carry.
"""

import contextlib
import copy
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

from torch import Tensor, nn

from folkmoot.core.tree import Tree
from folkmoot.local.dropout import Draws

Slot = tuple[dict[str, Any], str]


def _slots(module: nn.Module, kind: str, names: dict[str, Tensor]) -> list[list[Slot]]:
    """Find, for each named tensor, every place in the module that holds it (two where tied)."""
    places: dict[int, list[Slot]] = {id(tensor): [] for tensor in names.values()}
    for layer in module.modules():
        held = getattr(layer, kind)
        for name, tensor in held.items():
            if id(tensor) in places:
                places[id(tensor)].append((held, name))
    return [places[id(tensor)] for tensor in names.values()]


def shared_leaves(
    module: nn.Module,
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Return what travels: trainable parameters, floating buffers, other buffers; tied ones once.

    Frozen parameters and non-persistent buffers stay in the module.
    """
    params: dict[str, Tensor] = {
        name: p for name, p in module.named_parameters() if p.requires_grad
    }
    kept = module.state_dict(keep_vars=True)
    buffers: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    for name, buffer in module.named_buffers():
        if name in kept:
            (buffers if buffer.is_floating_point() else counts)[name] = buffer
    return params, buffers, counts


class Replica:
    """One thread's module, with the places of everything that travels."""

    def __init__(self, model: nn.Module) -> None:
        # All layers alike, as after any evaluation: a layer left in eval mode would train by luck.
        self.module = copy.deepcopy(model).train()
        params, buffers, counts = shared_leaves(self.module)
        self._param_slots = _slots(self.module, "_parameters", params)
        self._buffer_slots = _slots(self.module, "_buffers", buffers)
        self._count_slots = _slots(self.module, "_buffers", counts)
        self._bound: list[Tensor] = []
        self._aliases: tuple[Tensor, ...] = ()
        self._held: list[Tensor] = []
        self.training_draws, self.evaluation_draws = Draws(), Draws()
        self.is_settled = False
        """Whether what passes draw is known for good."""

    def aliases(self, params: Tree) -> tuple[Tensor, ...]:
        """Bind ordinary parameters and return leaves that share their memory and want gradients."""
        leaves = list(params.values())
        if len(leaves) != len(self._bound) or not all(map(is_, leaves, self._bound)):
            self._aliases = tuple(leaf.detach().requires_grad_() for leaf in leaves)
            self._bound = leaves
            self.put(self._param_slots, self._aliases)
        return self._aliases

    def bind(self, leaves: list[Tensor]) -> None:
        """Bind parameters as they are, for evaluation and for mapped or traced gradients."""
        self._bound = []
        self.put(self._param_slots, leaves)

    def hold(self, buffers: Tree, counts: Tree) -> None:
        """Bind buffers; a training forward pass writes into them."""
        leaves = [*buffers.values(), *counts.values()]
        if len(leaves) != len(self._held) or not all(map(is_, leaves, self._held)):
            self._held = leaves
            self.put([*self._buffer_slots, *self._count_slots], leaves)

    @staticmethod
    def put(slots: list[list[Slot]], tensors: Sequence[Tensor]) -> None:
        """Store each tensor in all of its places."""
        for places, tensor in zip(slots, tensors, strict=True):
            for held, name in places:
                held[name] = tensor

    def mode(self, train: bool) -> None:
        """Switch the module to training or evaluation, if it is not there already."""
        if self.module.training != train:
            self.module.train(train)

    def randomness(self, key: Tensor) -> contextlib.AbstractContextManager[None]:
        """Give a pass in the present mode its random numbers from the step's key."""
        draws = self.training_draws if self.module.training else self.evaluation_draws
        return contextlib.nullcontext() if draws.nothing else draws.from_key(key)

    def watch(self, closely: bool) -> None:
        """Look, or look no longer, at what every pass draws."""
        self.training_draws.closely = self.evaluation_draws.closely = closely

    @property
    def drawn(self) -> tuple[bool, ...]:
        """What training and evaluation have been seen to draw."""
        both = (self.training_draws, self.evaluation_draws)
        return tuple(flag for draws in both for flag in (draws.keyed, draws.opaque))

    @property
    def is_random(self) -> bool | None:
        """Whether training draws dropout from the step's key; None before the first gradient."""
        return None if self.training_draws.unknown else self.training_draws.keyed

    @property
    def is_opaque(self) -> bool:
        """Whether a pass draws from the default generator, as far as is known."""
        return self.training_draws.opaque or self.evaluation_draws.opaque

    @property
    def is_plain(self) -> bool:
        """Whether training passes are known to draw nothing at all."""
        return self.training_draws.nothing


def call(module: nn.Module, inputs: Any) -> Any:
    """Call a model on a tensor, or on a dict of tensors by keyword."""
    return module(**inputs) if isinstance(inputs, dict) else module(inputs)


Loss = Callable[[Any, Any], Tensor]
