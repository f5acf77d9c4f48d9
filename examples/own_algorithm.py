"""An algorithm of your own: FedAvg that is judged by a running mean of its models.

    python examples/own_algorithm.py

Clients go on from the newest model; what is returned is the mean of the last ten or so, which
wobbles less (Polyak and Juditsky's averaging, on the server). Ends with:

    fedavg 0.950, averaged 0.960
"""

import os

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 2 if QUICK else 60
KEEP = 0.9


def averaged(work, keep=KEEP):
    """FedAvg with a running mean of its models; `params` is the mean, `newest` what clients get."""
    aggregator = fm.aggregators.weighted_mean()

    def init():
        model = work.objective.init()
        return {**model, "newest": model["params"], "round": torch.tensor(1)}

    def round(state):
        sent = {**state, "params": state["newest"]}
        del sent["newest"]
        delta = yield fm.Task(sent, work, aggregator)
        newest = fm.tree.add(state["newest"], delta.value["params"])
        share = 1 - max(keep if state["round"] > 10 else 0, 0)
        mean = fm.tree.axpy(share, fm.tree.sub(newest, state["params"]), state["params"])
        return {
            "params": mean,
            "buffers": fm.tree.add(state["buffers"], delta.value["buffers"]),
            "counts": delta.counts,
            "newest": newest,
            "round": state["round"] + 1,
        }

    return fm.Algorithm("averaged", init, round, (work,))


clients, test = fm.data.load("mnist_writers")
