"""Survival with breast cancer in six regions: a Cox model, and what hides in it."""

import torch
from cox import Hazard, by_years, concordance, pairs, partial_likelihood
from torch import nn

import folkmoot as fm
from data import QUICK, breast_cancer, kilobytes, pooled, together

ROUNDS, FEW_ROUNDS = (2, 2) if QUICK else (30, 10)
DELTA = 1e-3

clients = breast_cancer()
patient = fm.DP(epsilon=8, delta=DELTA, unit="example")


def cox(regions, seed, rounds=ROUNDS, **promises):
    """Train a Cox model: partial likelihoods within regions, each over all its patients."""
    torch.manual_seed(seed)
    loss = fm.objective(nn.Linear(39, 1, bias=False), partial_likelihood)
    work = fm.local.sgd(loss, lr=0.1, steps=5, batch_size=None, weight_decay=0.01)
    return run(work, regions, seed, rounds, promises)


def hazard(regions, seed, rounds=ROUNDS, steps=5, **promises):
    """Train a hazard by years, whose loss is a sum over patients, in batches."""
    torch.manual_seed(seed)
    loss = fm.objective(Hazard(), by_years)
    work = fm.local.sgd(loss, lr=0.3, steps=steps, batch_size=20, weight_decay=0.01)
    return run(work, regions, seed, rounds, promises)


def run(work, regions, seed, rounds, promises):
    """Run FedAvg with every region in each round."""
    plan = {"rounds": rounds, "seed": seed, "client_tests": False, "workers": 1, "progress": False}
    return fm.run(fm.fedavg(work), regions, **plan, **promises)


def scored(model, rows):
    """Return the pairs of some patients that a model orders."""
    with torch.no_grad():
        return pairs(model(rows["x"]), rows["y"])


def judged(models):
    """Judge models by region: each on all test patients, and each on its own region's."""
    everyone = together(clients[name].test for name in clients)
    whole = [concordance([scored(model, everyone)]) for model in models.values()]
    own = [scored(model, clients[name].test) for name, model in models.items()]
    return {"c-index": sum(whole) / len(whole), "within regions": concordance(own)}


def shared(train, seed, **promises):
    """Train one model with all regions."""
    result = train(clients, seed, **promises)
    found = judged(dict.fromkeys(clients, result.model))
    if result.privacy:
        found["epsilon"] = result.privacy.epsilon
    return found | {"kB up": result.traffic.upload_bytes / 1000}


def hiding_regions(seed, epsilon):
    """Train a Cox model that hides each region with all its patients, in few rounds."""
    budget = fm.DP(epsilon=epsilon, delta=DELTA, clip=0.5)
    return shared(cox, seed, rounds=FEW_ROUNDS // 2, privacy=budget)


def hiding_patients(seed, **promises):
    """Train a hazard that hides each patient, in few rounds."""
    return shared(hazard, seed, rounds=FEW_ROUNDS, privacy=patient, **promises)


def at_one_place(train, seed, **options):
    """Train on all patients at one place."""
    model = train(pooled(clients), seed, **options).model
    return judged(dict.fromkeys(clients, model)) | {"kB up": kilobytes(clients)}


def alone(seed):
    """Train a Cox model in each region by itself."""
    return judged({name: cox(clients.subset([name]), seed).model for name in clients})


TOLD = ("Cox, federated", "Cox, local only", "Cox, pooled")


def table(seeds):
    """Return the comparison."""
    ways = {
        "Cox, pooled": lambda seed: at_one_place(cox, seed),
        "Cox, local only": alone,
        "Cox, federated": lambda seed: shared(cox, seed),
        "Cox, secure sums": lambda seed: shared(cox, seed, secure=True),
        "Cox, regions hidden": lambda seed: hiding_regions(seed, 8),
        "Cox, regions, epsilon 2": lambda seed: hiding_regions(seed, 2),
        # As many steps as six regions do together.
        "hazard, pooled": lambda seed: at_one_place(hazard, seed, steps=30),
        "hazard, federated": lambda seed: shared(hazard, seed),
        "hazard, patients hidden": hiding_patients,
        "hazard, hidden and secure": lambda seed: hiding_patients(seed, secure=True),
    }
    return fm.compare(ways, seeds=seeds)
