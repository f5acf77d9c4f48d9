"""Four hospitals that trust neither server nor one another: noise inside a secure sum.

    python examples/secure_hospitals.py

Each hospital masks its update, so that the server sees sums alone, and adds a share of the noise
that hides a whole hospital in them. The server may lie, and one hospital may help it. In the third
round one vanishes: it has dealt shares of its keys, then it finds no data. The other three help to
take its masks off the sum, and their noise is enough. No two runs are alike. Ends with:

    round 3: keys of 4 hospitals, updates of 3; accuracy 0.80, with privacy 0.77 (10 runs)
"""

import os
import statistics
import warnings

import torch
from torch import nn

import folkmoot as fm

NUM_RUNS, NUM_ROUNDS = (1, 3) if "FOLKMOOT_QUICK" in os.environ else (10, 5)
BUDGET = fm.DP(epsilon=8, delta=1e-3, clip=0.3)
SECURE = fm.Secure(threat="active", corrupt=0.25, protocol=True)

# Means and deviations over all patients are taken as public here.
clients, test = fm.data.heart_disease(scale="pooled")
rounds_done = [0]


def rows_of(hospital):
    """Return a hospital's patients; in the third round the disk of one is not there."""
    if hospital == "va" and rounds_done[-1] == 2:
        raise fm.ClientError("its disk is not there")
    return clients[hospital].train


def train(hospitals, **how):
    """Train once; return the result."""
    torch.manual_seed(0)
    work = fm.local.sgd(fm.classifier(nn.Linear(13, 1)), lr=0.1, steps=10, batch_size=10)
    plan = {"rounds": NUM_ROUNDS, "test": test, "progress": False}
    return fm.run(fm.fedavg(work), hospitals, **plan, **how)


warnings.simplefilter("ignore")  # As much noise as signal: four can just hide one.
plain = train(clients)
hospitals = fm.data.from_function(list(clients), rows_of, name="heart_disease")
how = {"privacy": BUDGET, "secure": SECURE, "callbacks": [lambda e: rounds_done.append(e.round)]}
with fm.secagg.transcript() as seen:
    private = [train(hospitals, **how) for _ in range(NUM_RUNS)]

print(f"\n{private[0]}\n")
sent = [message.phase for message in seen[2].seen]  # all that the server saw of round 3
print(
    f"round 3: keys of {sent.count('share')} hospitals, updates of {sent.count('mask')}; "
    f"accuracy {plain.metrics['test_accuracy']:.2f}, with privacy "
    f"{statistics.mean(run.metrics['test_accuracy'] for run in private):.2f} ({NUM_RUNS} runs)"
)
