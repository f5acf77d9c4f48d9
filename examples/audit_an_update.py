"""What one update gives away: digits read off it, off a mean of 50, and off that with noise.

    python examples/audit_an_update.py

Each of 50 writers trains on one digit. The first layer of an update shows it, and so does a search
for what has such a gradient. A mean of 50, as a secure sum shows it, still gives away some. Behind
clip and noise the best of 128 guesses is chance. Writes inversion.png; ends with correlations:

    likeness: first layer 1.0, search 1.0, mean of 50 0.7, with noise 0.1
"""

import os
import sys

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_CLIENTS = 50
NUM_SHOWN, NUM_STEPS = (2, 5) if QUICK else (6, 150)

clients, _ = fm.data.load("mnist_writers")
one_each = {}
for place, writer in enumerate(list(clients)[:NUM_CLIENTS]):
    rows = clients[writer].train
    one_each[writer] = {name: leaf[[place * 5 % len(leaf)]] for name, leaf in rows.items()}
digits = torch.cat([data["x"] for data in one_each.values()])[:NUM_SHOWN]

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
objective = fm.classifier(model)
algorithm = fm.fedavg(fm.local.sgd(objective, lr=0.2))
updates = list(fm.audit.updates(algorithm, one_each).values())


def read(params, originals):
    return fm.audit.nearest(fm.audit.first_layer(params, "1"), originals)


def search(params):
    label = fm.audit.labels_of(params, "3.bias", 1)
    return fm.audit.invert(objective, params, label, digits.shape[1:], steps=NUM_STEPS)


alone = [update.value["params"] for update in updates[:NUM_SHOWN]]
mean = fm.aggregate(fm.aggregators.uniform_mean(), updates)["params"]
private = (fm.codecs.clip(1.0), fm.codecs.gaussian(1.0))
noisy = fm.aggregate(fm.aggregators.uniform_mean(*private, divisor=NUM_CLIENTS), updates)["params"]
rows = {
    "digit": digits,
    "first layer": torch.cat([read(params, digits[[i]]) for i, params in enumerate(alone)]),
    "search": torch.cat([search(params) for params in alone]),
    f"mean of {NUM_CLIENTS}": read(mean, digits),
    "with noise": read(noisy, digits),
}
fm.audit.draw(rows).savefig(*sys.argv[1:] or ["inversion.png"])
likeness = {title: fm.audit.similarity(row, digits).mean() for title, row in rows.items()}
print("likeness:", ", ".join(f"{title} {likeness[title]:.1f}" for title in list(rows)[1:]))
