"""FedBN's claim (ICLR 2021): where clients' features are scaled and shifted, local batch
normalisation beats the average's.

Its first layer undoes any scale and shift of a client's features, so in theory clients with shifts
learn exactly what the same clients learn without.
"""

import pytest
import torch
from torch import nn

import folkmoot as fm

D, CLIENTS, TRAIN, TEST = 4, 6, 48, 200
ROUNDS = 10


def federation(is_shifted):
    """Clients of one task; the features of each are scaled and shifted in a way of its own."""
    draw = torch.Generator().manual_seed(2)
    task = torch.randn(D, generator=draw)
    parts = []
    for _ in range(CLIENTS):
        z = torch.randn(TRAIN + TEST, D, generator=draw)
        scale = torch.rand(D, generator=draw) * 4 + 0.25
        shift = torch.randn(D, generator=draw) * 4
        x = z * scale + shift if is_shifted else z
        y = (z @ task + 0.5 * z[:, 0] * z[:, 1] > 0).long()
        parts.append({"x": x, "y": y})
    return fm.data.from_datasets(
        [{name: leaf[:TRAIN] for name, leaf in part.items()} for part in parts],
        [{name: leaf[TRAIN:] for name, leaf in part.items()} for part in parts],
    )


@pytest.fixture(scope="module")
def accuracy():
    """Return the accuracy over all clients' tests, by algorithm and whether features shift."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(D), nn.Linear(D, 16), nn.ReLU(), nn.Linear(16, 2))
    work = fm.local.sgd(fm.classifier(model), lr=0.2, epochs=2, batch_size=16)
    programs = {"fedbn": fm.fedbn(work), "fedavg": fm.fedavg(work)}

    def run(algorithm, is_shifted):
        result = fm.run(
            algorithm,
            federation(is_shifted),
            rounds=ROUNDS,
            evaluate_every=ROUNDS,
            engine=fm.engines.sequential(),
            progress=False,
        )
        return result.metrics["clients_accuracy"]

    return {
        (name, is_shifted): run(algorithm, is_shifted)
        for name, algorithm in programs.items()
        for is_shifted in (False, True)
    }


def test_fedbn_beats_fedavg_where_features_shift(accuracy):
    assert accuracy["fedbn", True] > accuracy["fedavg", True] + 0.2


def test_a_shift_of_features_costs_fedbn_nothing(accuracy):
    assert accuracy["fedbn", True] == pytest.approx(accuracy["fedbn", False], abs=0.01)
    assert accuracy["fedavg", True] < accuracy["fedavg", False] - 0.1
