"""Opacus at the settings of docs/results.md, sections 3.3 and 3.4: DP-SGD inside FedAvg.

    python3.11 -m venv /tmp/opacus && /tmp/opacus/bin/pip install opacus==1.6.0 -e '.[privacy]'
    OMP_NUM_THREADS=1 /tmp/opacus/bin/python benchmarks/opacus_utility/run.py

Same clients, model, rounds, steps, expected batches and budgets. Each client has a `PrivacyEngine`
with Poisson sampling, as Opacus's documentation says; after its steps of a round the models are
averaged by examples. The noise is solved by the same accountant for what Opacus does: its rate is
1 / ceil(examples / batch), its steps those of all rounds; one noise serves all clients. Rate and
clip norm are searched for in the same way, over the same grid.

Its noise is `torch.normal`'s: what it calls secure mode needs torchcsprng, which cannot be
installed any more.
"""

import functools
import itertools
import json
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from chapters.privacy_examples import BENCHES, FULL, TUNING_SEED, Bench, Setting, grid, smallest

import folkmoot as fm
from folkmoot.privacy import PoissonGaussian, epsilon, noise_for


class Client:
    """One client's model, optimizer and endless Poisson batches, made private by Opacus."""

    def __init__(self, bench: Bench, setting: Setting, z: float, rows: fm.Tree) -> None:
        self.examples, self.steps = len(rows["y"]), bench.steps
        self.model: Any = bench.model()
        optimizer = torch.optim.SGD(self.model.parameters(), lr=setting.rate)
        loader = DataLoader(TensorDataset(rows["x"], rows["y"]), batch_size=bench.batch)
        self.model, self.optimizer, private = PrivacyEngine().make_private(
            module=self.model,
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=z,
            max_grad_norm=setting.clip,
        )
        self.batches: Iterator[Any] = itertools.chain.from_iterable(itertools.repeat(private))

    def update(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train from the broadcast model and return what came of it."""
        inner = self.model._module
        inner.load_state_dict(params)
        for x, y in itertools.islice(self.batches, self.steps):
            self.optimizer.zero_grad()
            _loss(self.model(x), y).backward()
            self.optimizer.step()
        return {name: leaf.clone() for name, leaf in inner.state_dict().items()}


def _loss(outputs: Tensor, y: Tensor) -> Tensor:
    if outputs.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], y.float())
    return F.cross_entropy(outputs, y)


def trained(bench: Bench, setting: Setting, z: float, clients: Any, seed: int) -> nn.Module:
    """Average the clients' models for all rounds."""
    torch.manual_seed(seed)
    model = bench.model()
    private = [Client(bench, setting, z, clients[client].train) for client in clients]
    total = sum(client.examples for client in private)
    for _ in range(bench.rounds):
        found = [client.update(model.state_dict()) for client in private]
        shares = [client.examples / total for client in private]
        model.load_state_dict(
            {
                name: sum(s * one[name] for s, one in zip(shares, found, strict=True))
                for name in found[0]
            }
        )
    return model


@torch.no_grad()
def judged(model: nn.Module, rows: fm.Tree) -> tuple[float, float]:
    """Return loss and accuracy."""
    outputs = model(rows["x"])
    right = outputs[:, 0] > 0 if outputs.shape[1] == 1 else outputs.argmax(1)
    return _loss(outputs, rows["y"]).item(), (right == rows["y"]).double().mean().item()


def noise(bench: Bench, budget: float, examples: int) -> tuple[float, float]:
    """Solve the noise for the smallest client; return it with the epsilon of all rounds."""
    rate = 1 / math.ceil(examples / bench.batch)
    charge = functools.partial(PoissonGaussian, rate=rate)
    times = bench.rounds * bench.steps
    z = noise_for(budget, bench.delta, lambda z: [(charge(z), times)])
    return z, epsilon([(charge(z), times)], bench.delta)


def main() -> None:
    """Print a JSON line for each row."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for bench in BENCHES:
        clients, test, some, held = bench.data(None)
        for budget in bench.epsilons:
            z, spent = noise(bench, budget, smallest(clients))

            def scored(
                setting: Setting,
                bench: Bench = bench,
                z: float = z,
                some: Any = some,
                held: Any = held,
            ) -> float:
                return judged(trained(bench, setting, z, some, TUNING_SEED), held)[0]

            best = min(grid(bench, budget, FULL), key=scored)
            found = [
                judged(trained(bench, best, z, clients, seed), test)[1] for seed in bench.seeds
            ]
            told = {"bench": bench.name, "epsilon": spent, "noise_multiplier": z}
            print(json.dumps({**told, **best._asdict(), "accuracy": found}), flush=True)


if __name__ == "__main__":
    main()
