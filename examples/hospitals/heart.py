"""Heart disease in four hospitals: a logistic regression, six ways."""

import torch
from torch import nn

import folkmoot as fm
from data import QUICK, heart_disease, kilobytes, pooled, together

ROUNDS = 1 if QUICK else 20
DELTA = 1e-3

clients = heart_disease()
hidden = fm.DP(epsilon=4, delta=DELTA, unit="example")


def train(hospitals, seed, steps=10, **promises):
    """Train on some hospitals, or on one that has all patients."""
    torch.manual_seed(seed)
    work = fm.local.sgd(fm.classifier(nn.Linear(13, 1)), lr=0.1, steps=steps, batch_size=20)
    plan = {"rounds": ROUNDS, "seed": seed, "client_tests": False, "workers": 1, "progress": False}
    return fm.run(fm.fedavg(work), hospitals, **plan, **promises)


def right(model, rows):
    """Return for each row whether the model tells it right."""
    with torch.no_grad():
        return ((model(rows["x"])[:, 0] > 0) == rows["y"]).float()


def judged(models):
    """Judge models by hospital: all on all test patients, and each on its own hospital's."""
    everyone = together(clients[name].test for name in clients)
    own = [right(model, clients[name].test) for name, model in models.items()]
    return {
        "accuracy": float(torch.stack([right(m, everyone) for m in models.values()]).mean()),
        "on own patients": float(torch.cat(own).mean()),
        "worst hospital": min(float(found.mean()) for found in own),
    }


def shared(seed, **promises):
    """Train one model with all hospitals."""
    result = train(clients, seed, **promises)
    found = judged(dict.fromkeys(clients, result.model))
    if result.privacy:
        found["epsilon"] = result.privacy.epsilon
    return found | {"kB up": result.traffic.upload_bytes / 1000}


def at_one_place(seed):
    """Train on all patients at one place, by as many steps as four hospitals do together."""
    model = train(pooled(clients), seed, steps=40).model
    return judged(dict.fromkeys(clients, model)) | {"kB up": kilobytes(clients)}


def alone(seed):
    """Train a model at each hospital by itself."""
    return judged({name: train(clients.subset([name]), seed).model for name in clients})


def table(seeds):
    """Return the comparison."""
    ways = {
        "pooled": at_one_place,
        "local only": alone,
        "federated": shared,
        "secure sums": lambda seed: shared(seed, secure=True),
        "patients hidden": lambda seed: shared(seed, privacy=hidden),
        "hidden and secure": lambda seed: shared(seed, privacy=hidden, secure=True),
    }
    return fm.compare(ways, seeds=seeds)
