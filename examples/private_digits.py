"""Digits of people who stay hidden: client-level differential privacy in one argument.

    python examples/private_digits.py

Each of 539 writers is a client. What is hidden is a whole writer: updates are clipped, and noise is
solved for the budget, the rounds, and the lot by which clients are drawn. Few people cost more to
hide: the last run stands for a federation of 10,000, and says that it is a simulation. Noise comes
from the operating system: no two runs are alike. Ends with:

    without privacy 0.94, epsilon 8: 539 people 0.89, 10,000 people 0.93
"""

import os
import warnings

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 2 if QUICK else 60
COHORT = 40

BUDGETS = {
    "without privacy": None,
    "539 people": fm.DP(epsilon=8, delta=1e-4, clip=1.0),
    "10,000 people": fm.DP(epsilon=8, delta=1e-5, clip=1.0, population=10_000, cohort=100),
}

clients, test = fm.data.load("mnist_writers")


def train(privacy):
    """Train once, with a budget or without one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    work = fm.local.sgd(fm.classifier(model), lr=0.2, epochs=1, batch_size=20)
    plan = {"rounds": NUM_ROUNDS, "cohort": COHORT, "evaluate_every": NUM_ROUNDS}
    return fm.run(fm.fedavg(work), clients, test=test, client_tests=False, privacy=privacy, **plan)


warnings.simplefilter("ignore")  # More noise than signal: that is the point.
results = {name: train(privacy) for name, privacy in BUDGETS.items()}
for name, result in results.items():
    print(f"\n{name}\n{result.privacy or 'nothing is promised'}")

found = [result.metrics["test_accuracy"] for result in results.values()]
print(
    f"\nwithout privacy {found[0]:.2f}, epsilon 8: 539 people {found[1]:.2f}, "
    f"10,000 people {found[2]:.2f}"
)
