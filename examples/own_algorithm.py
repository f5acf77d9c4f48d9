"""An algorithm of your own: FedAvg that hands out a running mean of its models.

    python examples/own_algorithm.py

Where clients know few classes each, the model swings from round to round. Here clients still go on
from the newest model, but the one that is judged and returned is a running mean of all of them
(Polyak and Juditsky's averaging, on the server). Ends with the worst of the last ten evaluations:

    fedavg 0.888, averaged 0.948
"""

import os

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 2 if QUICK else 100
NUM_CLIENTS = 100


def averaged(work, keep=0.9):
    """FedAvg whose `params` is a running mean of models; clients start from the `newest`."""
    aggregator = fm.aggregators.weighted_mean()

    def init():
        model = work.init()
        return {**model, "newest": model["params"], "round": torch.tensor(1)}

    def round(state):
        sent = {name: state[name] for name in ("buffers", "counts", "round")}
        delta = yield fm.Task({**sent, "params": state["newest"]}, work, aggregator)
        newest = fm.tree.add(state["newest"], delta.value["params"])
        kept = fm.tree.scale(keep, state["params"])
        params = fm.tree.axpy(1 - keep, newest, kept)
        return {**sent, "params": params, "newest": newest, "round": state["round"] + 1}

    return fm.Algorithm("averaged", init, round, (work,))


_, digits = fm.data.load("mnist_writers")
pool = {name: leaf[:8000] for name, leaf in digits.items()}
test = {name: leaf[8000:] for name, leaf in digits.items()}
clients = fm.data.partition.dirichlet(pool, NUM_CLIENTS, alpha=0.1).clients(pool)

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
work = fm.local.sgd(fm.classifier(model), lr=0.1)
worst = {}
for algorithm in (fm.fedavg(work), averaged(work)):
    result = fm.run(algorithm, clients, rounds=NUM_ROUNDS, cohort=10, test=test)
    judged = [row["test_accuracy"] for row in result.history if row["evaluated"]]
    worst[algorithm.name] = min(judged[-10:])
print(f"fedavg {worst['fedavg']:.3f}, averaged {worst['averaged']:.3f}")
