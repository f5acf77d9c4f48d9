"""The ways to train on one set of sensors that are compared, each a function of a seed."""

import functools
import os

import torch
from models import judged

import data
import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
WORKERS = 1 if QUICK else 2
BOARDS = fm.Fleet(
    fm.fleets.Upkeep(slot_s=3600, away_s=1200), fm.fleets.iot(flops=3e6).table, name="sleepy iot"
)
LESS = {"compress": fm.codecs.eden(1), "compress_down": fm.codecs.eden(1, unbiased=False)}
plain = functools.partial(fm.run, client_tests=False, evaluate_every=10**6, progress=False)


def ways(field):
    """Return what is compared for one set: functions of a seed."""
    clients, tests = field.load()
    if QUICK:
        field = field._replace(rounds=2, steps=2)
        clients = clients.subset(clients.ids[:30])
    rounds = field.rounds
    together = {0: data.joined([client.train for client in clients.values()])}
    answers = rounds * field.cohort

    def work(seed, models, steps):
        """Adam at each device, at a rate that falls with the models."""
        torch.manual_seed(seed)
        objective = fm.objective(field.model(), field.loss)
        adam = fm.optimizers.adamw(fm.schedules.cosine(field.lr, models))
        return fm.local.descent(objective, adam, steps=steps, batch_size=field.batch_size)

    def found(result):
        """Judge the global model, and say what was spent."""
        row = {}
        for name, test in tests.items():
            values = judged(field, [result.model], [test])
            row |= {f"{kind}, {name}" if len(tests) > 1 else kind: v for kind, v in values.items()}
        up, down = result.traffic
        row |= {"epsilon": result.privacy.epsilon} if result.privacy else {}
        row |= {"MB up": up / 1e6, "MB down": down / 1e6}
        time = result.history[-1].get("virtual_s")
        return row | ({"hours": time / 3600} if time else {})

    def train(seed, models=rounds, **options):
        algorithm = fm.fedavg(work(seed, models, field.steps))
        return found(
            plain(algorithm, clients, rounds=models, seed=seed, workers=WORKERS, **options)
        )

    def federated(seed, **options):
        return train(seed, cohort=field.cohort, fleet=BOARDS, **options)

    def buffered(seed):
        return federated(seed, models=answers // field.buffer, buffer=field.buffer)

    def private(seed):
        return train(seed, cohort=field.cohort, privacy=field.privacy)

    def alone(seed):
        """As if asked in every round: more steps than a device has when all train together."""
        algorithm = fm.fedavg(work(seed, rounds, field.steps))
        own = plain(algorithm, clients, rounds=rounds, seed=seed, personal="*", workers=WORKERS)
        models = [own.clients[name].model for name in clients]
        row = {}
        for kind, test in tests.items():
            here = field.own_tests or kind == "known"
            places = [clients[name].test if here else test for name in clients]
            values = judged(field, models, places)
            row |= {f"{n}, {kind}" if len(tests) > 1 else n: v for n, v in values.items()}
        return row

    def pooled(seed):
        """As many steps as all devices have when they train together."""
        algorithm = fm.fedavg(work(seed, rounds, field.steps * field.cohort))
        row = found(plain(algorithm, together, rounds=rounds, seed=seed, workers=1))
        return {name: value for name, value in row.items() if not name.startswith("MB")}

    return {
        "federated": federated,
        "federated, buffers": buffered,
        "federated, eden(1) both ways": lambda seed: federated(seed, **LESS),
        "federated, private": private,
        "each alone": alone,
        "pooled": pooled,
    }
