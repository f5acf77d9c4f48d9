"""Rounds by hand: try one with each half of the clients, and keep the better of the two models.

    python examples/rounds_by_hand.py

A state is a value. `next` returns another one and leaves the first as it was, so a program may look
at a round's outcome before it goes on from it, or go back. The choice is made on validation digits
that are not the test. Ends with:

    test accuracy 0.881 after 10 kept rounds
"""

import os
import random

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 1 if QUICK else 10
NUM_ASKED = 4 if QUICK else 20

clients, digits = fm.data.load("mnist_writers")
validation = {name: leaf[:2000] for name, leaf in digits.items()}
test = {name: leaf[2000:] for name, leaf in digits.items()}

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
work = fm.local.sgd(fm.classifier(model), lr=0.1)
process = fm.process(fm.fedavg(work), seed=0)

draw = random.Random(0)
state = process.initialize()
for _ in range(NUM_ROUNDS):
    asked = draw.sample(clients.ids, NUM_ASKED)
    tries = []
    for half in (asked[::2], asked[1::2]):
        following, happened = process.next(state, clients.subset(half))
        accuracy = process.evaluate(following, validation)["accuracy"]
        tries.append((accuracy, happened["answered"], following))
    accuracy, answered, state = max(tries, key=lambda one: one[0])
    print(f"round {state.round}: kept the model of {answered} clients, validation {accuracy:.3f}")

accuracy = process.evaluate(state, test)["accuracy"]
print(f"test accuracy {accuracy:.3f} after {state.round} kept rounds")
