"""Four hospitals learn to tell heart disease: FedAvg, FedProx and FedAdam, five seeds of each.

    python examples/heart_hospitals.py

The protocol is FLamby's (Ogier du Terrail et al., NeurIPS 2022): each hospital standardises by its
own patients; 15 rounds of 100 steps. Beside the pooled test set stands the worst hospital, which a
mean hides. Over all patients the three are alike within two deviations; the last line is:

    fedadam: accuracy 0.786 +- 0.005, worst hospital 0.680
"""

import os
import statistics

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_SEEDS = 2 if QUICK else 5
NUM_ROUNDS = 2 if QUICK else 15

ALGORITHMS = {
    "fedavg": fm.fedavg,
    "fedprox": lambda work: fm.fedprox(work, mu=0.1),
    "fedadam": lambda work: fm.fedavg(work, server=fm.optimizers.adam(0.03)),
}

clients, test = fm.data.heart_disease(scale="client")


def scores(build, seed):
    """Train once; return the accuracy on the pooled test set, and in the worst hospital."""
    torch.manual_seed(seed)
    work = fm.local.sgd(fm.classifier(nn.Linear(13, 1)), lr=0.003, steps=100, batch_size=4)
    result = fm.run(build(work), clients, rounds=NUM_ROUNDS, test=test, seed=seed, progress=False)
    hospitals = [hospital.metrics["accuracy"] for hospital in result.clients.values()]
    return result.metrics["test_accuracy"], min(hospitals)


for name, build in ALGORITHMS.items():
    pooled, worst = zip(*(scores(build, seed) for seed in range(NUM_SEEDS)), strict=True)
    mean, deviation = statistics.mean(pooled), statistics.stdev(pooled)
    print(
        f"{name}: accuracy {mean:.3f} +- {deviation:.3f}, "
        f"worst hospital {statistics.mean(worst):.3f}"
    )
