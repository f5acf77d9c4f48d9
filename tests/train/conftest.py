"""Finished runs, for tests of what is made of them: a real one of three rounds, and any by hand."""

import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.train.evaluation import ClientResult
from folkmoot.train.outcome import Times
from folkmoot.train.stopping import Best


class Tied(nn.Module):
    """Has a weight under two names, statistics of batches with an integer counter, and a part that
    does not train."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.last = nn.Linear(2, 2)
        self.last.weight = self.first.weight
        self.first.bias.requires_grad_(False)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


def four_clients():
    """Four clients with 8 train and 4 test examples each, of two classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 12, 2, generator=generator)
    y = (x.sum(dim=2) > 0).long()

    def part(rows):
        return lambda client: {"x": x[client, rows], "y": y[client, rows]}

    return fm.data.from_function(range(4), part(slice(8)), test=part(slice(8, 12)))


@pytest.fixture
def new_model():
    """Build the module that `finished` has trained, with other weights."""
    return Tied


@pytest.fixture(scope="session")
def finished():
    """A real run: three rounds of FedAdam on four clients, judged on ten examples and theirs."""
    torch.manual_seed(0)
    work = fm.local.sgd(fm.classifier(Tied()), lr=0.1, batch_size=4)
    x = torch.randn(10, 2)
    return fm.run(
        fm.fedavg(work, server=fm.optimizers.adam(0.1)),
        four_clients(),
        rounds=3,
        test=(x, (x.sum(dim=1) > 0).long()),
        engine=fm.engines.sequential(),
        progress=False,
        name="tiny",
    )


def row_of(round, **more):
    plain = {
        "round": round,
        "asked": 4,
        "answered": 4,
        "left_out": [],
        "skipped": None,
        "evaluated": False,
        "train_s": 1.0,
        "client_s": 0.5,
        "upload_bytes": 1_000,
        "download_bytes": 2_000,
        "evaluation_s": 0.25,
    }
    return plain | more


@pytest.fixture
def by_hand():
    """Build a result from rows, as dicts of what differs from a plain row, and from each client's
    accuracy."""

    def build(*rows, accuracies=None, best=(0, float("nan")), **more):
        history = [row_of(place, **row) for place, row in enumerate(rows, 1)]
        found = (accuracies or {}).items()
        weights = {"w": torch.zeros(1)}
        given = {
            "best": Best("test_accuracy", "higher", *best),
            "history": history,
            "clients": {c: ClientResult(c, 5, {"accuracy": a, "loss": 1 - a}) for c, a in found},
            "settings": {"name": "a run", "seed": 7, "rounds": len(rows), "data": "toys"},
            "times": Times(10.0, 4.0, 3.0, 2.0),
            "state_dict": weights,
            "best_state_dict": weights,
        }
        return fm.Result(**given | more)

    return build


@pytest.fixture
def judged(by_hand):
    """A run by hand of three rounds, best in the second, with quantiles over its three clients."""

    def row(held_out, low, middle, high):
        over = {"": middle, "_p10": low, "_median": middle, "_p90": high, "_worst_decile": low}
        over["_std"] = high - low
        accuracy = {f"clients_accuracy{end}": value for end, value in over.items()}
        loss = {f"clients_loss{end}": 1 - value for end, value in over.items() if end != "_std"}
        loss["clients_loss_std"] = high - low
        whole = {"test_loss": 1 - held_out, "test_accuracy": held_out}
        return {"evaluated": True, **whole, **loss, **accuracy}

    return by_hand(
        row(0.5, 0.25, 0.5, 0.75),
        row(0.875, 0.5, 0.75, 1.0),
        row(0.75, 0.25, 0.5, 1.0),
        accuracies={1: 0.25, 2: 0.5, 3: 1.0},
        best=(2, 0.875),
    )
