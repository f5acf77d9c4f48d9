"""What a forked worker does: blocks, one after another, until its parent is gone.

Also how its answers are written and read, so that both ends stand in one file. A sum of floats lies
in a shared slot; private states and single updates are sent as bytes.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, NoReturn

import torch

from folkmoot.core import tree as trees
from folkmoot.core.aggregator import State, Sum, Update
from folkmoot.core.algorithm import Task
from folkmoot.core.codec import Bounds
from folkmoot.core.engine import ClientId, Cohort, LeftOut
from folkmoot.core.tree import Tree
from folkmoot.engines.shared import receive, send
from folkmoot.engines.stream import Block, Stream
from folkmoot.engines.watched import watched

_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of linux/prctl.h."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of malloc.h: free memory from which the heap shrinks, and sizes that lie outside of it."""
_KEPT_BYTES, _LARGEST_BYTES = 256 << 20, 32 << 20


class Known(NamedTuple):
    """A task that workers have inherited, with its shared memory."""

    task: Task
    """Its broadcast is the shared copy."""
    state: State | None
    """The aggregator's state; None where single updates are asked for."""
    expected: Update
    """The leaves that each client must answer with."""
    template: Update
    """The leaves of an encoded update."""
    slots: list[Tree]
    """Where the sums of finished blocks lie until their turn."""


class AtBreakpoint(BaseException):
    """Client code wants a debugger, which only the parent can give."""


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent is gone, also in the midst of a client."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to a bound.

    What is given back after one step costs the next one a page fault a page, a sixth of a recurrent
    model's time.
    """
    libc = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_BYTES)


def serve(connection: Connection, stream: Stream, known: list[Known]) -> NoReturn:
    """Answer messages until the parent closes the connection, then end this process at once."""
    # Ctrl-C reaches the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.breakpointhook = _leave
    torch.set_num_threads(1)
    keep_freed_memory()
    while True:
        try:
            message, private = receive(connection)
        except (EOFError, OSError):
            os._exit(0)
        try:
            header, tree = _answer(stream, known[message["task"]], message, private)
        except BaseException:  # whatever it was, the parent meets it again and shows it
            header, tree = {"failed": True}, {}
        try:
            send(connection, header, tree)
        except OSError:
            os._exit(0)


def _leave(*args: Any, **kwargs: Any) -> NoReturn:
    raise AtBreakpoint


def _answer(
    stream: Stream, known: Known, message: dict[str, Any], private: Tree
) -> tuple[dict[str, Any], Tree]:
    """Do one block, as sums into a slot or as single updates."""
    clients = message["clients"]
    cohort = _cohort_of(message)
    states = private.get("own", {})
    own = {clients[int(place)]: state for place, state in states.items()}
    if known.state is None:
        return _single_updates(stream, known, cohort, own)
    slot = known.slots[message["slot"]]
    bounds = Bounds(*message["bounds"])
    state = known.state._replace(codec=private.get("codec", {}), bounds=bounds)

    def train() -> Block:
        for leaf in trees.leaves(slot):
            leaf.zero_()
        total = Sum(slot["value"], 0.0, slot["counts"], 0)
        return stream.block(known.task, state, cohort, clients, own, known.expected, total)

    block = watched(known.task, train)
    header = {
        "failed": False,
        "weight": block.total.weight,
        "count": block.total.count,
        "client_s": block.client_s,
        "left_out": [[left.client, left.reason] for left in block.left_out],
        "uploads": list(block.uploads.items()),
    }
    return header, {f"{clients.index(client)}": state for client, state in block.own.items()}


def part_of(cohort: Cohort, clients: Sequence[ClientId]) -> dict[str, Any]:
    """Write what a worker must know of a cohort to do its part for some of the clients."""
    return {
        "cohort": cohort._replace(clients=(), steps={}, absent={})._asdict(),
        "clients": list(clients),
        "steps": [(client, cohort.steps[client]) for client in clients if client in cohort.steps],
        "absent": [
            (client, cohort.absent[client]) for client in clients if client in cohort.absent
        ],
    }


def _cohort_of(message: dict[str, Any]) -> Cohort:
    """Read what `part_of` has written."""
    hindered = {name: dict(message[name]) for name in ("steps", "absent")}
    return Cohort(**{**message["cohort"], **hindered, "clients": tuple(message["clients"])})


def block_of(
    answer: dict[str, Any], tree: Tree, slot: Tree, clients: Sequence[ClientId], round: int
) -> Block:
    """Read the answer to a block of sums; its leaves are the slot's."""
    total = Sum(slot["value"], answer["weight"], slot["counts"], answer["count"])
    own = {clients[int(place)]: state for place, state in tree.items()}
    left_out = [LeftOut(client, round, reason) for client, reason in answer["left_out"]]
    uploads = dict(answer["uploads"])
    return Block(total, own, left_out, answer["client_s"], uploads)


def _single_updates(
    stream: Stream, known: Known, cohort: Cohort, own: dict[ClientId, Tree]
) -> tuple[dict[str, Any], Tree]:
    header: dict[str, Any] = {"failed": False, "weights": {}, "packed": {}, "left_out": {}}
    tree: Tree = {}
    for place, client in enumerate(cohort.clients):

        def train(client: ClientId = client) -> Update | LeftOut:
            return stream.single(known.task, cohort, client, own.get(client), known.expected)

        found = watched(known.task, train) if known.task.work.train else train()
        if isinstance(found, LeftOut):
            header["left_out"][f"{place}"] = found.reason
        else:
            header["weights"][f"{place}"] = float(found.weight)
            header["packed"][f"{place}"] = found.packed_bytes
            tree[f"{place}"] = {"value": found.value, "counts": found.counts}
    return header, tree


def singles(
    answer: dict[str, Any], tree: Tree, clients: Sequence[ClientId], round: int
) -> Iterator[tuple[ClientId, Update | LeftOut]]:
    """Read the answer to a block of single updates."""
    for place, client in enumerate(clients):
        at = f"{place}"
        if at in answer["left_out"]:
            yield client, LeftOut(client, round, answer["left_out"][at])
        else:
            update = tree[at]
            weight, packed = answer["weights"][at], answer["packed"][at]
            yield client, Update(update["value"], weight, update["counts"], packed)
