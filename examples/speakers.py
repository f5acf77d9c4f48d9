"""Spoken digits: five speakers train a small CNN, and a sixth finds out what it is worth to him.

    python examples/speakers.py

An accuracy over the clients' own tests says how the model does for those who trained it. For
somebody new it says little. Ends with:

    known speakers 0.964, a new one 0.280
"""

import os

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 1 if QUICK else 20
NEW = "lucas"

everyone, _ = fm.data.load("fsdd")
clients = everyone.subset(name for name in everyone if name != NEW)

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 8, 5, stride=2),
    nn.ReLU(),
    nn.Conv2d(8, 16, 5, stride=2),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(720, 10),
)
work = fm.local.sgd(fm.classifier(model), lr=0.03, momentum=0.9, epochs=2, batch_size=16)
result = fm.run(fm.fedavg(work), clients, rounds=NUM_ROUNDS, test=everyone[NEW].test)
known = result.metrics["clients_accuracy"]
print(f"known speakers {known:.3f}, a new one {result.metrics['test_accuracy']:.3f}")
