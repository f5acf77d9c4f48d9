"""What remote workers cost: the same training loop over two processes, and without any.

Batches of 64 through a perceptron 784-128-10 by SGD, the loss fetched in every step, one thread in
each process. The model is sent to alice, trained on her rows, fetched, sent to bob, and so on: all
of that counts. Plain loops of the same program over the same rows take turns with it, and a figure
is the median of the ratios of neighbours. Beside it stand the best times of both, and the processor
time of all three processes, which suffers less where others use the cores.
"""

import resource
import statistics
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from folkmoot.cli.bench.machine import moment, others
from folkmoot.engines.worker import keep_freed_memory
from folkmoot.remote.worker import Worker

_STEPS, _QUICK_STEPS = 60, 3
_TURNS, _QUICK_TURNS = 15, 1
_BATCH = 64
_BAR = 3.0


def measured(
    quick: bool = False, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure both loops and return their figures, as plain JSON.

    Args:
        quick: Few steps, once, to see that it works.
        tell: Is given a line at the end.
    """
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    steps, turns = (_QUICK_STEPS, _QUICK_TURNS) if quick else (_STEPS, _TURNS)
    halves = [_rows(steps, seed) for seed in (0, 1)]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    before, children = moment(), _of_children()
    with (
        Worker("alice", {"digits": halves[0]}, process=True) as alice,
        Worker("bob", {"digits": halves[1]}, process=True) as bob,
    ):
        workers = [alice, bob]
        _remote(model, workers)
        messages = sum(worker.messages for worker in workers)
        turn = [(_plain(model, halves), _remote(model, workers)) for _ in range(turns)]
        messages = sum(worker.messages for worker in workers) - messages
    torch.set_num_threads(threads)
    (plain, plain_cpu), (remote, remote_cpu) = (
        tuple(zip(*times, strict=True)) for times in zip(*turn, strict=True)
    )
    ratio = statistics.median(a / b for a, b in zip(remote, plain, strict=True))
    # The workers' own, which is known when they have ended, with the turn before the first.
    theirs = (_of_children() - children) / (turns + 1)
    tell(f"remote workers: {ratio:.2f} times a plain loop")
    return {
        "ratio": ratio,
        "best_ratio": min(remote) / min(plain),
        "cpu_ratio": (statistics.median(remote_cpu) + theirs) / statistics.median(plain_cpu),
        "plain_step_s": min(plain) / (2 * steps),
        "remote_step_s": min(remote) / (2 * steps),
        # But for those that fetch the model, one a worker and turn.
        "messages_a_step": (messages - 2 * turns) / (2 * steps * turns),
        "bar": _BAR,
        "holds": ratio <= _BAR,
        "steps": 2 * steps * turns,
        "others_cores": others(before, moment()),
    }


def _of_children() -> float:
    """Return the processor time of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _rows(steps: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(_BATCH * steps, 784, generator=generator)
    return x, torch.randint(0, 10, (len(x),), generator=generator)


def _plain(model: Any, halves: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return seconds, and seconds of this process on a core."""
    begun, used = perf_counter(), process_time()
    for x, y in halves:
        _train(model, x, y)
    return perf_counter() - begun, process_time() - used


def _remote(model: Any, workers: list[Worker]) -> tuple[float, float]:
    begun, used = perf_counter(), process_time()
    for worker in workers:
        sent = worker.send(model)
        _train(sent, *worker.data["digits"])
        model = sent.get()
    return perf_counter() - begun, process_time() - used


def _train(model: Any, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for begin in range(0, len(x), _BATCH):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[begin : begin + _BATCH]), y[begin : begin + _BATCH])
        loss.backward()
        optimizer.step()
        loss.item()
