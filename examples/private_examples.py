"""Four hospitals whose patients stay hidden: example-level differential privacy.

    python examples/private_examples.py

Four hospitals cannot hide one another, but each can hide each of its patients, from the server and
from the other three: it clips the gradient of every patient and adds noise before anything leaves
it (DP-SGD). One noise serves all; it is solved for the smallest hospital, with 30 patients, and the
larger ones spend less. Noise comes from the operating system: no two runs are alike. Ends with:

    accuracy 0.80 without privacy, 0.80 at epsilon 8, 0.79 at epsilon 2
"""

import os

import torch
from torch import nn

import folkmoot as fm
from folkmoot.privacy import PoissonGaussian, epsilon

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 1 if QUICK else 10
STEPS, BATCH = 10, 10
DELTA = 1e-3

# Means and deviations over all patients are taken as public here.
clients, test = fm.data.heart_disease(scale="pooled")


def train(privacy):
    """Train once, with a budget or without one."""
    torch.manual_seed(0)
    work = fm.local.sgd(fm.classifier(nn.Linear(13, 1)), lr=0.1, steps=STEPS, batch_size=BATCH)
    return fm.run(fm.fedavg(work), clients, rounds=NUM_ROUNDS, test=test, privacy=privacy)


plain = train(None)
loose, tight = (train(fm.DP(epsilon=one, delta=DELTA, unit="example")) for one in (8, 2))

print(f"\n{tight.privacy}\n")
for name in clients:
    examples = len(clients[name].train["y"])
    event = PoissonGaussian(tight.privacy.noise_multiplier, rate=BATCH / examples)
    spent = epsilon([(event, NUM_ROUNDS * STEPS)], DELTA)
    print(f"{name}: {examples} patients, epsilon {spent:.2f}")

found = [result.metrics["test_accuracy"] for result in (plain, loose, tight)]
print(
    f"accuracy {found[0]:.2f} without privacy, {found[1]:.2f} at epsilon 8, "
    f"{found[2]:.2f} at epsilon 2"
)
