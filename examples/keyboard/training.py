"""The ways to train the keyboard that are compared, each a function of a seed."""

import functools
import os

import torch
from model import Keyboard

import data
import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
ROUNDS, COHORT = (1, 2) if QUICK else (20, 20)
LR = 0.04
OURS = fm.DP(epsilon=8, delta=1e-4, clip=0.5)
# What the same would be for one of a million people: it protects nobody here.
MILLION = fm.DP(epsilon=2, delta=1e-7, clip=15, population=1_000_000, cohort=10_000)
WORKERS = 1 if QUICK else 2
plain = functools.partial(fm.run, evaluate_every=10**6, precision="bf16", progress=False)


def work(seed, lr, rounds=1, **plan):
    """Adam on the text of one role, at a rate that falls with the rounds."""
    torch.manual_seed(seed)
    rate = fm.schedules.cosine(lr, rounds, floor=lr / 10)
    return fm.local.descent(fm.language_model(Keyboard()), fm.optimizers.adamw(rate), **plan)


def together(seed, roles, test=None, **options):
    """Train with the whole text of every role that is asked."""
    plan = {"rounds": ROUNDS, "cohort": COHORT, "client_tests": False, "seed": seed}
    return plain(
        fm.fedavg(work(seed, LR, ROUNDS)), roles, test=test, workers=WORKERS, **plan, **options
    )


def ways(folder):
    """Return what is compared; the first run is saved in a folder."""
    roles, some, test = data.load()

    def found(result):
        """Judge the shared model, adapt it to twelve roles, and say what was spent."""
        here = fm.evaluate(result, some, workers=WORKERS)
        passes = work(0, 0.01)
        adapted = fm.finetune(result, some, passes, workers=WORKERS, progress=False)
        row = {"all roles": result.metrics["test_accuracy"]}
        row["twelve roles"] = here.metrics["clients_accuracy"]
        row["adapted"] = adapted.metrics["clients_accuracy"]
        row |= {"epsilon": result.privacy.epsilon} if result.privacy else {}
        up, down = result.traffic
        return row | {"MB up": up / 1e6, "MB down": down / 1e6}

    def federated(seed, **options):
        return found(together(seed, roles, test, **options))

    def pooled(seed):
        rounds, steps = (1, 1) if QUICK else (3, 100)
        algorithm = fm.fedavg(work(seed, 0.015, rounds, steps=steps, batch_size=64))
        everyone = {0: data.joined(roles)}
        row = found(plain(algorithm, everyone, rounds=rounds, test=test, seed=seed, workers=1))
        return {name: value for name, value in row.items() if not name.startswith("MB")}

    def alone(seed):
        rounds = 1 if QUICK else 8
        algorithm = fm.fedavg(work(seed, 0.03, rounds))
        own = plain(algorithm, some, rounds=rounds, personal="*", seed=seed, workers=WORKERS)
        return {"adapted": own.metrics["clients_accuracy"]}

    return {
        "federated": lambda seed: federated(seed, save=None if seed else folder),
        "federated, eden(1) up": functools.partial(federated, compress=fm.codecs.eden(1)),
        "federated, private": functools.partial(federated, privacy=OURS),
        "private among a million": functools.partial(federated, privacy=MILLION),
        "pooled": pooled,
        "each alone": alone,
    }
