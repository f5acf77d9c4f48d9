"""Asynchronous updates: the server does not wait for the slowest device.

    python examples/article/asynchronous_updates.py

Four of ten boards are on slow links. A round waits for them; with `buffer=5` five answers make the
next model, and an answer to an old model counts less: 1 / sqrt(1 + staleness), as in FedBuff. Time
is a virtual clock's. Ends with:

    accuracy 0.85 after 295 s in rounds, 30 s in buffers; answers up to 17 models late
"""

import os

import torch
from torch import nn

import folkmoot as fm

TARGET = 0.20 if "FOLKMOOT_QUICK" in os.environ else 0.85

clients, test = fm.data.load("mnist_writers")
test = {name: leaf[::5] for name, leaf in test.items()}


def train(every, **policy):
    """Train with 20 boards at work until the target is reached."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    work = fm.local.sgd(fm.classifier(model), lr=0.2, batch_size=20)
    plan = {"rounds": 2000, "cohort": 20, "evaluate_every": every, "client_tests": False, **policy}
    plan["stop"] = fm.stopping.target("test_accuracy", TARGET)
    return fm.run(fm.fedavg(work), clients, fleet=fm.fleets.iot(), test=test, **plan)


rounds = train(1)
buffers = train(4, buffer=5, staleness=fm.staleness.polynomial(0.5))
seconds = [result.history[-1]["virtual_s"] for result in (rounds, buffers)]
latest = max(late for row in buffers.history for late, _ in row["staleness"])
print(
    f"accuracy {TARGET:.2f} after {seconds[0]:.0f} s in rounds, {seconds[1]:.0f} s in buffers; "
    f"answers up to {latest} models late"
)
