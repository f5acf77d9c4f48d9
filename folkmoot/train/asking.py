"""From a fleet to a program: what a round costs each device, and what a turn of the clock asks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from folkmoot.aggregators.traffic import upload_bytes
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm, Batch, Task
from folkmoot.core.engine import ClientId
from folkmoot.core.errors import SettingsError
from folkmoot.data import ClientData
from folkmoot.engines.batches import cut, rows
from folkmoot.engines.fleet import Fleet
from folkmoot.engines.stream import needs_pairs
from folkmoot.engines.tasks import example
from folkmoot.train.plan import asked_in_a_round
from folkmoot.train.policy import Policy
from folkmoot.train.sampling import Sampling
from folkmoot.train.timeline import Costs, Timeline
from folkmoot.train.whom import drawn

_BACKWARD = 3
"""A gradient takes about three forward passes."""
_PROBED = 8
"""Examples on which the operations of a gradient are counted."""


def timeline_of(
    fleet: Fleet,
    policy: Policy,
    algorithm: Algorithm,
    clients: ClientData,
    sampling: Sampling,
    difference_bytes: int | None,
    seed: int,
    lot: int,
    *,
    everyone: bool,
) -> Timeline:
    """Return the virtual clock of a run.

    Args:
        fleet: The devices.
        policy: When rounds begin and end.
        algorithm: What is asked of them.
        clients: Whose devices they are.
        sampling: Who is asked; in a buffered run only how many at once.
        difference_bytes: Of what brings a device from one broadcast to the next; None where all
            are sent whole.
        seed: The run's.
        lot: What cohorts are drawn from; in private runs a secret.
        everyone: Whether a lot is drawn among all clients, of whom those that are not there are
            not asked; else among those who are there.

    Raises:
        SettingsError: If a device's speed cannot be told, none has the memory, or an algorithm
            asks more than once where answers are buffered.
    """
    ids = clients.ids
    tasks = [task for task, _ in asked_in_a_round(algorithm, len(ids))]
    if policy.carries and len(tasks) > 1:
        raise SettingsError(
            f"{algorithm.name}() asks {len(tasks)} times a round, but with buffer= clients answer "
            "at different times, to different models. Use an algorithm of one exchange a round, "
            "such as fm.fedavg(work), or leave buffer= out."
        )
    model_bytes = max(trees.num_bytes(task.broadcast) for task in tasks)
    roster = fleet.roster(
        ids,
        seed=seed,
        flops_per_example=flops_of(algorithm, clients),
        model_bytes=model_bytes,
    )
    if not roster.fits.any():
        raise SettingsError(
            f"The model takes {model_bytes:,} bytes, and training several times as many, which no "
            "device of this fleet has. Use a smaller model, or devices with more memory_bytes."
        )
    in_flight = max(1, round(sampling.expected(len(ids))))
    if policy.carries and policy.buffer is not None and policy.buffer > int(roster.fits.sum()):
        raise SettingsError(
            f"buffer={policy.buffer} answers of different devices make a new model, but only "
            f"{int(roster.fits.sum())} devices can train it. Ask for a smaller buffer."
        )
    work = _Work(tasks, clients, ids)
    costs = Costs(
        sum(trees.num_bytes(task.broadcast) for task in tasks),
        difference_bytes,
        sum(_upload_bytes(task, in_flight) for task in tasks),
        work,
    )

    def expected_s() -> np.ndarray:
        examples = np.array([work(place)[0] for place in range(len(ids))])
        return roster.expected_s(examples, costs.download_bytes, costs.upload_bytes)

    draw = drawn(sampling, ids, policy, lot, everyone=everyone, expected_s=expected_s)
    return Timeline(roster, policy, costs, draw, in_flight, lot)


def _upload_bytes(task: Task, clients: int) -> int:
    update = example(task)
    state = task.aggregator.init(update, max(clients, 1))
    return upload_bytes(task.aggregator.encode(state, update, 0))


class _Work:
    """From a client's place to what it trains in a round."""

    def __init__(self, tasks: Sequence[Task], clients: ClientData, ids: Sequence[ClientId]) -> None:
        self.tasks, self.clients, self.ids = tasks, clients, ids
        self._known: dict[int, tuple[int, int]] = {}
        self._sizes: dict[int, int] = {}

    def __call__(self, place: int) -> tuple[int, int]:
        """Return the examples, counted in each pass, and the steps."""
        size = self._size(place)
        if size not in self._known:
            self._known[size] = self._of(size)
        return self._known[size]

    def _size(self, place: int) -> int:
        client = self.ids[place]
        found = self.clients.size_of(client)
        if found is not None:
            return int(found)
        if place not in self._sizes:
            train = self.clients[client].train
            self._sizes[place] = 0 if train is None else rows(train)
        return self._sizes[place]

    def _of(self, size: int) -> tuple[int, int]:
        examples = steps = 0
        for task in self.tasks:
            if not task.work.train:
                # A pass that learns nothing has no backward part.
                examples += -(-size // _BACKWARD)
                continue
            one = cut(size, task.work.plan, needs_pairs(task.work))
            whole, rest = divmod(one.steps, max(len(one.sizes), 1))
            examples += whole * sum(one.sizes) + sum(one.sizes[:rest])
            steps += one.steps
        return examples, steps


def flops_of(algorithm: Algorithm, clients: ClientData) -> float | None:
    """Return the floating operations that a gradient takes for one example; None: not known.

    Counted by PyTorch on a few examples, and at least 6 a parameter: two for each use, forward,
    and twice that backward. Kernels that are not counted, such as recurrent ones, use each
    parameter once for each element of a sequence.
    """
    objective: Any = algorithm.objective
    model = objective.init()
    for client in clients.ids:
        train = clients[client].train
        if train is not None and rows(train):
            break
    else:
        return None
    part = trees.map(lambda leaf: leaf[:_PROBED].clone(), train)
    batch = Batch(part, None, rng.as_tensor(0), 0)
    with FlopCounterMode(display=False) as counter:
        objective.grad(
            *(trees.clone(model[name]) for name in ("params", "buffers", "counts")), batch
        )
    counted = counter.get_total_flops() / rows(part)
    return max(counted, 6.0 * sum(leaf.numel() for leaf in trees.leaves(model["params"])))
