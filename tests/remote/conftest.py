"""What tests of workers share: a table of digits, a small network, a worker, and its channel."""

import pytest
import torch
from remote.hand import ByHand, Watched
from torch import nn

import folkmoot as fm

ROWS = 256


@pytest.fixture
def digits():
    """Rows and labels that follow from a seed: (rows, 12) and (rows,)."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 12, generator=generator)
    return x, torch.randint(0, 4, (ROWS,), generator=generator)


@pytest.fixture
def perceptron():
    """A small network, the same each time."""

    def build(*more):
        torch.manual_seed(2)
        return nn.Sequential(nn.Linear(12, 8), *more, nn.ReLU(), nn.Linear(8, 4))

    return build


@pytest.fixture
def alice(digits):
    """A worker in this process whose rows are private, 32 of which must be behind what leaves."""
    with fm.remote.Worker("alice", {"digits": digits}, fm.remote.Policy(min_rows=32)) as worker:
        yield worker


@pytest.fixture
def by_hand(alice):
    return ByHand(alice)


@pytest.fixture
def watched(alice):
    """What passes between alice and her user."""
    channel = Watched(alice._channel)
    alice._outbox._channel = channel
    return channel
