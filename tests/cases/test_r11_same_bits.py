"""Case R11: equal seeds give equal bits, whoever arrives first and whatever runs where."""

import functools
import hashlib
import itertools
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import folkmoot as fm
from folkmoot.engines import parallel, sequential

CASE = yaml.safe_load((Path(__file__).parent / "R11.yaml").read_text(encoding="utf-8"))
VALUES = CASE["input"]["a"]["float32_updates_equal_weight"]
CLIENTS, ROUNDS, SEED = 6, 3, 7
DELAYS = {"none": [0] * 6, "first is last": [6, 0, 0, 0, 0, 0], "falling": [5, 4, 3, 2, 1, 0]}


PERMUTATIONS = list(itertools.permutations(range(3)))


class Number(nn.Module):
    """One parameter, whose gradient is the mean of x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x * self.w


def summed(places, **where):
    """Add the case's three updates; the client at place k of the arrivals is k units late."""

    def load(client):
        busy(2 * places[client])
        return {"x": torch.tensor([[-VALUES[client]]])}

    objective = fm.objective(Number(), lambda outputs, _: outputs.reshape(-1), target=None)
    algorithm = fm.fedavg(fm.local.sgd(objective, lr=1.0))
    clients = fm.data.from_function(range(3), load)
    return fm.run(algorithm, clients, rounds=1, progress=False, **where).model.w.item()


@pytest.mark.parametrize("places", PERMUTATIONS)
def test_large_and_small_numbers_have_one_sum_whoever_arrives_first(places):
    assert summed(places, workers=3) == summed((0, 0, 0), engine=sequential())


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def examples(client):
    drawn = torch.Generator().manual_seed(client)
    x = torch.randn(7 + client, 4, generator=drawn)
    return {"x": x, "y": torch.randint(3, (len(x),), generator=drawn)}


def busy(units):
    """Take some milliseconds a unit, without a clock."""
    hashlib.sha256(bytes(3_000_000 * units)).digest()


def digest(clients, **where):
    work = fm.local.sgd(fm.classifier(model()), lr=0.2, epochs=2, batch_size=3)
    result = fm.run(
        fm.fedavg(work),
        clients,
        rounds=ROUNDS,
        seed=SEED,
        progress=False,
        client_tests=False,
        **where,
    )
    parts = [leaf.numpy().tobytes() for leaf in result.model.state_dict().values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@functools.cache
def reference():
    return digest([examples(client) for client in range(CLIENTS)], engine=sequential())


@pytest.mark.parametrize("delays", DELAYS.values(), ids=DELAYS)
@pytest.mark.parametrize(
    "where",
    [{"workers": 2}, {"workers": 4}, {"engine": parallel(4, threads=True)}],
    ids=["2 workers", "4 workers", "4 threads"],
)
def test_neither_workers_nor_delays_change_a_bit(delays, where):
    def load(client):
        busy(delays[client])
        return examples(client)

    assert digest(fm.data.from_function(range(CLIENTS), load), **where) == reference()


def test_two_rounds_of_one_client_do_not_share_an_order_nor_do_two_clients():
    seen = {}

    def look(outputs, inputs):
        return outputs.reshape(-1) + 0 * inputs.reshape(-1)

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            if len(x) == 20:  # not the look before the first round
                orders.append(tuple(x.reshape(-1).tolist()))
            return x * self.w

    orders = []
    rows = {"x": torch.arange(40.0).reshape(40, 1)}
    work = fm.local.sgd(fm.objective(Spy(), look, target=None), lr=0.0, batch_size=20)
    process = fm.process(fm.fedavg(work), seed=SEED)
    state = process.initialize()
    for number in (1, 2):
        orders.clear()
        state, _ = process.next(state, [rows, rows])
        first, second = orders[-4:-2], orders[-2:]
        seen[number, 0], seen[number, 1] = sum(first, ()), sum(second, ())

    assert all(sorted(order) == list(range(40)) for order in seen.values())
    assert len(set(seen.values())) == 4


def test_clients_from_a_lambda_and_classes_of_a_function_reach_the_workers():
    class Rows(torch.utils.data.Dataset):
        def __init__(self, client):
            self.client = client

        def __len__(self):
            return len(examples(self.client)["y"])

        def __getitem__(self, row):
            return {name: leaf[row] for name, leaf in examples(self.client).items()}

    by_lambda = fm.data.from_function(range(CLIENTS), lambda client: examples(client))

    assert digest(by_lambda, engine=parallel(2, threads=False)) == reference()
    assert digest([Rows(client) for client in range(CLIENTS)], workers=2) == reference()
