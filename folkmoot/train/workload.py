"""What clients have to do in a round: examples and steps of each, and operations of an example."""

import bisect
import itertools
import math
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm, Batch
from folkmoot.core.engine import ClientId
from folkmoot.core.errors import ClientError
from folkmoot.data import ClientData
from folkmoot.engines.batches import Cut, cut, rows
from folkmoot.engines.stream import needs_pairs
from folkmoot.train.plan import asked_in_a_round

_BACKWARD = 3
"""A gradient takes about three forward passes."""
_PROBED = 8
"""Examples on which the operations of a gradient are counted."""


class Work:
    """From a client's place to what it trains in a round.

    A client is counted once for a run: a loader that fails at times gives no two plans of one run.
    """

    def __init__(self, algorithm: Algorithm, clients: ClientData) -> None:
        self.clients, self.ids = clients, clients.ids
        self.tasks = [task for task, _ in asked_in_a_round(algorithm, len(self.ids))]
        self._known: dict[int, tuple[int, int]] = {}
        self._sizes: dict[int, int] = {}

    def __call__(self, place: int) -> tuple[int, int]:
        """Return the examples, counted in each pass, and the steps."""
        size = self._size(place)
        if size not in self._known:
            self._known[size] = self._spent(size, math.inf)
        return self._known[size]

    def within(self, place: int, room: int) -> tuple[int, int]:
        """Return the first examples and steps for which there is time of `room` examples."""
        return self._spent(self._size(place), room)

    def _size(self, place: int) -> int:
        client = self.ids[place]
        found = self.clients.size_of(client)
        if found is not None:
            return int(found)
        if place not in self._sizes:
            self._sizes[place] = _rows_of(self.clients, client)
        return self._sizes[place]

    def _spent(self, size: int, room: float) -> tuple[int, int]:
        examples = steps = 0
        for task in self.tasks:
            if not task.work.train:
                # A pass that learns nothing has no backward part.
                examples += -(-size // _BACKWARD)
                continue
            one = cut(size, task.work.plan, needs_pairs(task.work))
            done = _steps_in(one, room - examples)
            examples += _examples_of(one, done)
            steps += done
        return examples, steps


def _steps_in(one: Cut, room: float) -> int:
    """Return the steps of a client for which there is time of `room` examples."""
    if room >= _examples_of(one, one.steps):
        return one.steps
    epochs, left = divmod(max(0, int(room)), max(1, sum(one.sizes)))
    return epochs * len(one.sizes) + bisect.bisect_right(
        list(itertools.accumulate(one.sizes)), left
    )


def _examples_of(one: Cut, steps: int) -> int:
    """Return the examples that some steps train, counted in each pass."""
    whole, more = divmod(steps, max(len(one.sizes), 1))
    return whole * sum(one.sizes) + sum(one.sizes[:more])


def _rows_of(clients: ClientData, client: ClientId) -> int:
    """Return how many examples a client has; 0 where it has none, or says that it cannot now."""
    try:
        train = clients[client].train
    except ClientError:
        return 0
    return 0 if train is None else rows(train)


def flops_of(algorithm: Algorithm, clients: ClientData) -> float | None:
    """Return the floating operations that a gradient takes for one example; None: not known.

    Counted by PyTorch on a few examples, and at least 6 a parameter: two for each use, forward,
    and twice that backward. Kernels that are not counted, such as recurrent ones, use each
    parameter once for each element of a sequence.
    """
    objective: Any = algorithm.objective
    model = objective.init()
    # Layers that normalise over a batch need two rows.
    least = 2 if getattr(objective, "needs_pairs", False) else 1
    found = (client for client in clients.ids if _rows_of(clients, client) >= least)
    client = next(found, None)
    if client is None:
        return None
    part = trees.map(lambda leaf: leaf[:_PROBED].clone(), clients[client].train)
    batch = Batch(part, None, rng.as_tensor(0), 0)
    with FlopCounterMode(display=False) as counter:
        objective.grad(
            *(trees.clone(model[name]) for name in ("params", "buffers", "counts")), batch
        )
    counted = counter.get_total_flops() / rows(part)
    return max(counted, 6.0 * sum(leaf.numel() for leaf in trees.leaves(model["params"])))
