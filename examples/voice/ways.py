"""Ways to train: functions (names, seed) -> (a model for each of these speakers, what it cost)."""

import functools
import os

import torch
from torch import nn

import folkmoot as fm
from data import speakers, together

QUICK = "FOLKMOOT_QUICK" in os.environ
ROUNDS = 1 if QUICK else 10
BATCH = 16
WORKERS = 2
RECORDING = fm.DP(epsilon=8, delta=1e-4, unit="example")

everyone = speakers(every=10 if QUICK else 1)


def train(clients, seed, batch_size=BATCH, **options):
    """Run FedAvg: everyone in each round, a rate that falls, nobody's tests looked at."""
    local = work(seed, fm.schedules.cosine(0.05, ROUNDS), batch_size=batch_size)
    plan = {"rounds": ROUNDS, "seed": seed, "client_tests": False, "workers": WORKERS}
    return fm.run(fm.fedavg(local), clients, progress=False, **plan, **options)


def work(seed, lr, epochs=1, batch_size=BATCH):
    """Return what a speaker's device does in a round; the network has no batch statistics."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(480, 10),
    )
    plan = {"epochs": epochs, "batch_size": batch_size, "momentum": 0.9}
    return fm.local.sgd(fm.classifier(network), lr=lr, **plan)


@functools.cache
def common(names, seed):
    """Run FedAvg of some speakers; another way may go on from it."""
    return train(everyone.subset(names), seed)


@functools.cache
def own(name, seed):
    """Return the model that a speaker trains by itself."""
    return train(everyone.subset([name]), seed).model


def cost(result):
    """Return the privacy and the megabytes of a run."""
    spent = {"epsilon": result.privacy.epsilon} if result.privacy else {}
    return spent | {"MB up": result.traffic.upload_bytes / 1e6}


def pooled(names, seed):
    """Train on all recordings at one place; it is they that travel, a byte a bin.

    A step sees as many recordings as one step of all speakers together.
    """
    rows = together(everyone[name].train for name in names)
    model = train({"everyone": rows}, seed, batch_size=BATCH * len(names)).model
    return dict.fromkeys(names, model), {"MB up": len(rows["y"]) * 48 * 32 / 1e6}


def local_only(names, seed):
    """Let each speaker train by itself."""
    return {name: own(name, seed) for name in names}, {}


def federated(names, seed):
    """Train a common model."""
    result = common(names, seed)
    return dict.fromkeys(names, result.model), cost(result)


def compressed(names, seed):
    """Train a common model, with two bits for each number that a speaker sends."""
    result = train(everyone.subset(names), seed, compress=fm.codecs.eden(2))
    return dict.fromkeys(names, result.model), cost(result)


def hidden(names, seed):
    """Train a common model that hides each recording, inside a secure sum.

    Each step has its noise, so that batches are larger.
    """
    told = {"privacy": RECORDING, "secure": True}
    result = train(everyone.subset(names), seed, batch_size=4 * BATCH, **told)
    return dict.fromkeys(names, result.model), cost(result)


def fine_tuned(names, seed):
    """Let each speaker go on from the common model."""
    result = common(names, seed)
    tuned = fm.finetune(result, everyone.subset(names), work(seed, 0.01, epochs=3), progress=False)
    return {name: tuned.clients[name].model for name in names}, cost(result)


def own_layer(names, seed):
    """Train a common body under a last layer of each speaker's own."""
    result = train(everyone.subset(names), seed, personal="6.*")
    return {name: result.clients[name].model for name in names}, cost(result)
