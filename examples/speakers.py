"""Spoken digits: five speakers train a small CNN, and a sixth finds out what it is worth to him.

    python examples/speakers.py

An accuracy over the clients' own tests says how the model does for those who trained it. For
somebody new it says less. Each of the six is left out once, and has 50 digits to judge by, so more
than one figure behind the point would be noise. Ends with:

    known speakers 0.9, a new one 0.7
"""

import os
from statistics import mean

import torch
from torch import nn

import folkmoot as fm

NUM_ROUNDS = 1 if "FOLKMOOT_QUICK" in os.environ else 15

everyone, _ = fm.data.load("fsdd")


def without(speaker: str) -> tuple[float, float]:
    """Train on the others; return the accuracy on their tests, and on the speaker's."""
    clients = everyone.subset(name for name in everyone if name != speaker)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(720, 10),
    )
    work = fm.local.sgd(fm.classifier(model), lr=0.02, momentum=0.9, epochs=2, batch_size=16)
    test = everyone[speaker].test
    result = fm.run(fm.fedavg(work), clients, rounds=NUM_ROUNDS, test=test, progress=False)
    found = result.metrics["clients_accuracy"], result.metrics["test_accuracy"]
    print(f"without {speaker:10} known speakers {found[0]:.2f}, {speaker} {found[1]:.2f}")
    return found


known, new = (mean(values) for values in zip(*map(without, everyone), strict=True))
print(f"known speakers {known:.1f}, a new one {new:.1f}")
