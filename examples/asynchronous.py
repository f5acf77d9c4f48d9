"""Boards on slow and fast links: rounds that wait, buffers that do not, and FedAsync.

    python examples/asynchronous.py

Four of ten boards are on LTE-M, and take ten seconds for what takes a fifth of one on Wi-Fi. A
round waits for them; a buffer takes answers as they come, the late ones at less weight, and so
hears few of LTE-M. Draws asynchronous.png. Ends with virtual seconds:

    accuracy 0.90: rounds 621, buffers of 5 73, FedAsync 103
"""

import os

import torch
from torch import nn

import folkmoot as fm

TARGET = 0.20 if "FOLKMOOT_QUICK" in os.environ else 0.90

clients, test = fm.data.load("mnist_writers")
test = {name: leaf[::5] for name, leaf in test.items()}


def train(name, build, every, **policy):
    """Train with 20 boards at work until the target is reached."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    work = fm.local.sgd(fm.classifier(model), lr=0.2, batch_size=20)
    plan = {"rounds": 5000, "cohort": 20, "evaluate_every": every, "name": name, **policy}
    plan["stop"] = fm.stopping.target("test_accuracy", TARGET)
    fleet = fm.fleets.iot()
    return fm.run(build(work), clients, fleet=fleet, test=test, client_tests=False, **plan)


fading = fm.staleness.polynomial(0.5, at_most=500)
runs = [
    train("rounds", fm.fedavg, 1),
    train("buffers of 5", fm.fedavg, 4, buffer=5, staleness=fading),
    train("FedAsync", fm.fedasync, 20, buffer=1, staleness=fading),
]
runs[0].plot_efficiency("asynchronous.png", others={run.name: run for run in runs[1:]})
for run in runs:
    heard = sum(answered > 0 for _, answered in run.participation.values())
    print(f"{run.name}: {run.rounds} models, {heard} boards heard")
took = ", ".join(f"{run.name} {run.history[-1]['virtual_s']:.0f}" for run in runs)
print(f"\naccuracy {TARGET:.2f}: {took}")
