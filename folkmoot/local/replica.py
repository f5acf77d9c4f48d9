"""A stream's own copy of a model, into whose slots parameters are put without being copied.

`functional_call` costs more than a small model's whole step. Here the parameters are stored into
the module's own dicts, once, and stay bound for as long as the same tensors come back, which is the
case when steps write into their carry.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from operator import is_
from typing import Any

from torch import Tensor, nn

from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local.dropout import Draws
from folkmoot.local.inputs import Inputs

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


@dataclasses.dataclass
class Staying:
    """The place of a tensor that does not travel: a frozen parameter, a non-persistent buffer."""

    held: dict[str, Any]
    name: str
    first: Tensor
    """The tensor of the objective's own model, which nobody writes into."""
    bound: Tensor
    version: int

    def fill(self) -> None:
        """Put a fresh copy there."""
        kept = self.first.detach().clone()
        # A module takes nothing but parameters where one stood.
        frozen = isinstance(self.first, nn.Parameter)
        self.bound = nn.Parameter(kept, requires_grad=False) if frozen else kept
        self.held[self.name] = self.bound
        self.version = self.bound._version


def _staying(model: nn.Module, copied: nn.Module) -> list[Staying]:
    """Find what does not travel in a module's copy, each with its original."""
    travels = {id(tensor) for tree in shared_leaves(copied) for tensor in tree.values()}
    found = []
    for original, layer in zip(model.modules(), copied.modules(), strict=True):
        for kind in ("_parameters", "_buffers"):
            held, first = getattr(layer, kind), getattr(original, kind)
            found += [
                Staying(held, name, first[name], tensor, tensor._version)
                for name, tensor in held.items()
                if tensor is not None and id(tensor) not in travels
            ]
    return found


def _fitting(found: Any, leaf: Tensor, name: str) -> Tensor:
    """Return what a pass has put in a buffer's place, if it can travel there."""
    if isinstance(found, Tensor) and found.shape == leaf.shape:
        return found
    what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise SettingsError(
        f"Buffer {name} has shape {tuple(leaf.shape)}, and a forward pass put {what} in its place. "
        "A buffer that travels keeps its shape; register it with persistent=False if it need not."
    )


class Replica:
    """One thread's module, with the places of everything that travels."""

    def __init__(self, model: nn.Module) -> None:
        # All layers alike, as after any evaluation: a layer left in eval mode would train by luck.
        self.module = copy.deepcopy(model).train()
        params, buffers, counts = shared_leaves(self.module)
        self._param_slots = _slots(self.module, "_parameters", params)
        self._held_slots = _slots(self.module, "_buffers", {**buffers, **counts})
        self._stays = _staying(model, self.module)
        self._bound: list[Tensor] = []
        self._aliases: tuple[Tensor, ...] = ()
        self._writes_when_judged: bool | None = None
        self.training_draws, self.evaluation_draws = Draws(), Draws()
        self.training_inputs, self.evaluation_inputs = Inputs(), Inputs()
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
        """Bind parameters as they are, for mapped or traced gradients."""
        self._bound = []
        self.put(self._param_slots, leaves)

    def owners(self, names: Sequence[str]) -> dict[tuple[int, str], str]:
        """Return which travelling parameter stands where: by the id of a layer's dict of parameters
        and the key there; a tied one stands in several places."""
        pairs = zip(names, self._param_slots, strict=True)
        return {(id(held), key): name for name, slots in pairs for held, key in slots}

    def hold(self, buffers: Tree, counts: Tree) -> None:
        """Bind buffers; a training forward pass writes into them."""
        self.put(self._held_slots, [*buffers.values(), *counts.values()])

    def held(self, buffers: Tree, counts: Tree) -> tuple[Tree, Tree]:
        """Return what stands in the buffers' places after a pass: `self.mean = ...` puts another
        tensor there."""
        found = []
        for places, leaf in zip(
            self._held_slots, [*buffers.values(), *counts.values()], strict=True
        ):
            new = [held[name] for held, name in places if held[name] is not leaf]
            found.append(_fitting(new[-1], leaf, places[0][1]) if new else leaf)
        split = len(buffers)
        return (
            dict(zip(buffers, found[:split], strict=True)),
            dict(zip(counts, found[split:], strict=True)),
        )

    def settle(self, buffers: Tree, counts: Tree) -> None:
        """Copy what a pass has put in a buffer's place into the buffer, and put that back."""
        for before, after in zip((buffers, counts), self.held(buffers, counts), strict=True):
            for name, leaf in after.items():
                if leaf is not before[name]:
                    before[name].copy_(leaf.detach())
        self.hold(buffers, counts)

    @contextlib.contextmanager
    def judging(self, params: Tree, buffers: Tree, counts: Tree) -> Iterator[None]:
        """Bind a model that is only looked at: as a copy, where its passes write into it.

        The first pass is made with a copy and shows it.

        Raises:
            SettingsError: If a later pass writes though the first one did not.
        """
        leaves = [*params.values(), *buffers.values(), *counts.values()]
        bound = leaves
        if self._writes_when_judged is not False:
            bound = [leaf.clone() for leaf in leaves]
        slots = [*self._param_slots, *self._held_slots]
        versions = [leaf._version for leaf in bound]
        self._bound = []
        self.put(slots, bound)
        yield
        written = [leaf._version for leaf in bound] != versions or any(
            held[name] is not leaf
            for places, leaf in zip(slots, bound, strict=True)
            for held, name in places
        )
        if written and bound is leaves:
            raise SettingsError(
                "In evaluation mode some passes of the model write into its weights or buffers, "
                "but not the first one, so they cannot be kept from changing the global model. "
                "Let forward() write only where self.training is true."
            )
        self._writes_when_judged = bool(self._writes_when_judged) or written

    @property
    def keeps(self) -> bool:
        """Whether tensors stay in the module that do not travel, such as frozen parameters."""
        return bool(self._stays)

    def renew(self) -> bool:
        """Put back what passes have changed of the tensors that do not travel: nothing may pass
        from one client to the next. Tell whether anything was changed."""
        changed = False
        for place in self._stays:
            now = place.held[place.name]
            if now is not place.bound or now._version != place.version:
                place.fill()
                changed = True
        return changed

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
