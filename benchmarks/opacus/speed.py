"""One client's epoch of DP-SGD: folkmoot beside Opacus, and beside itself without privacy.

    python3.11 -m venv /tmp/opacus && /tmp/opacus/bin/pip install opacus==1.6.0 -e '.[privacy]'
    OMP_NUM_THREADS=1 /tmp/opacus/bin/python benchmarks/opacus/speed.py

Same model, examples, expected batch size, clip norm, noise multiplier and plain SGD; a batch's rows
are drawn by Poisson sampling for all. Opacus runs as its documentation says (with its own loader,
which collates row by row), and once more with each batch's rows gathered at once, as folkmoot does;
per-example gradients are stored ("hooks") or not ("ghost"). Its noise is `torch.normal`'s: what it
calls secure mode needs torchcsprng, which cannot be installed any more. Ours is discrete and from
the operating system. One thread of arithmetic; contenders take turns; medians of processor time.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import opacus
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import folkmoot as fm
from folkmoot.core.engine import Cohort, Setting
from folkmoot.engines.stream import Stream
from folkmoot.engines.worker import keep_freed_memory

CLIP, NOISE, LR, SEED = 1.0, 1.0, 0.05, 2026
WARM_UP, ROUNDS = 2, 9


class Work(NamedTuple):
    """What is trained, and how long an epoch is."""

    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    batch_size: int
    steps: int


def mlp() -> nn.Module:
    """784-128-10, 102 thousand parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn() -> nn.Module:
    """Two convolutions, two dense layers, 1.7 million parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 62),
    )  # fmt: skip


WORKS = {
    "mlp, batches of 60": Work(mlp, (784,), 10, 60, 10),
    "mlp, batches of 256": Work(mlp, (784,), 10, 256, 10),
    "mlp, batches of 600": Work(mlp, (784,), 10, 600, 10),
    "cnn, batches of 64": Work(cnn, (1, 28, 28), 62, 64, 4),
}


def examples(work: Work) -> tuple[Tensor, Tensor]:
    """Return one client's rows and classes."""
    draw = torch.Generator().manual_seed(SEED)
    rows = work.batch_size * work.steps
    x = torch.randn(rows, *work.shape, generator=draw)
    return x, torch.randint(0, work.classes, (rows,), generator=draw)


def fresh(work: Work) -> nn.Module:
    """Return the first model, the same one each time."""
    torch.manual_seed(SEED)
    return work.model()


Epoch = Callable[[], None]


def by_folkmoot(work: Work, private: bool) -> Epoch:
    """Return one client's round, by the sequential engine's stream."""
    x, y = examples(work)
    objective = fm.classifier(fresh(work))
    local = fm.local.sgd(objective, lr=LR, batch_size=work.batch_size)
    if private:
        local = fm.local.dpsgd(local, clip=CLIP, noise_multiplier=NOISE)

    class Client:
        train, test = {"x": x, "y": y}, None

    sent = {**objective.init(), "round": torch.tensor(1)}
    task = fm.Task(sent, local, fm.aggregators.weighted_mean())
    stream = Stream(Setting({0: Client}, SEED))
    return lambda: stream.train(task, Cohort(1, (0,), 1, 1), 0, None) and None


def by_opacus(work: Work, mode: str, own_loader: bool) -> Epoch:
    """Return an epoch as Opacus does it."""
    x, y = examples(work)
    model = fresh(work)
    made: Any = opacus.PrivacyEngine(accountant="rdp").make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), LR),
        criterion=nn.CrossEntropyLoss(),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=work.batch_size),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        poisson_sampling=own_loader,
        grad_sample_mode=mode,
    )
    model, optimizer, loader = made[0], made[1], made[-1]
    loss = made[2] if mode == "ghost" else F.cross_entropy

    def gathered() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(work.steps):
            chosen = (torch.rand(len(x)) < work.batch_size / len(x)).nonzero()[:, 0]
            yield x[chosen], y[chosen]

    def epoch() -> None:
        for rows, classes in loader if own_loader else gathered():
            optimizer.zero_grad()
            loss(model(rows), classes).backward()
            optimizer.step()

    return epoch


CONTENDERS: dict[str, Callable[[Work], Epoch]] = {
    "folkmoot, not private": lambda work: by_folkmoot(work, private=False),
    "folkmoot": lambda work: by_folkmoot(work, private=True),
    "Opacus ghost, rows gathered": lambda work: by_opacus(work, "ghost", own_loader=False),
    "Opacus hooks, rows gathered": lambda work: by_opacus(work, "hooks", own_loader=False),
    "Opacus ghost": lambda work: by_opacus(work, "ghost", own_loader=True),
    "Opacus hooks": lambda work: by_opacus(work, "hooks", own_loader=True),
}


def race(work: Work) -> dict[str, float]:
    """Return each contender's milliseconds a step."""
    epochs = {name: build(work) for name, build in CONTENDERS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(WARM_UP + ROUNDS):
        for name, epoch in epochs.items():
            begun = time.process_time()
            epoch()
            seconds[name].append(time.process_time() - begun)
    return {
        name: statistics.median(found[WARM_UP:]) / work.steps * 1e3
        for name, found in seconds.items()
    }


def main() -> None:
    """Race on every work and print a table."""
    torch.set_num_threads(1)
    # As folkmoot's workers do; without it all contenders are a tenth slower.
    keep_freed_memory()
    print(
        f"torch {torch.__version__}, opacus {opacus.__version__}, Python {sys.version.split()[0]}"
    )
    for name, work in WORKS.items():
        found = race(work)
        ours = found["folkmoot"]
        print(f"\n{name}: ms a step")
        for contender, milliseconds in found.items():
            ratio = milliseconds / ours
            print(f"  {contender:30} {milliseconds:8.2f}   {ratio:5.2f} x folkmoot's")


if __name__ == "__main__":
    main()
