"""A run that is killed and goes on ends with the bits of one that never stopped.

    python examples/checkpoint_and_resume.py

The machine fails after half of the rounds. The same call again, with `resume=True`, goes on from
the newest checkpoint, here with another number of workers. Ends with:

    rounds 20, the same bits: True
"""

import os
import tempfile

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 2 if QUICK else 20

clients, test = fm.data.load("heart_disease")
torch.manual_seed(0)
work = fm.local.sgd(fm.classifier(nn.Linear(13, 2)), lr=0.05, momentum=0.9)
algorithm = fm.fedavg(work, server=fm.optimizers.adam(0.05))


def fail_halfway(event):
    if event.kind == "round" and event.round == NUM_ROUNDS // 2:
        raise OSError("the machine fails")


whole = fm.run(algorithm, clients, rounds=NUM_ROUNDS, test=test, seed=1)

with tempfile.TemporaryDirectory() as folder:
    run = {"rounds": NUM_ROUNDS, "test": test, "seed": 1, "checkpoint": folder}
    try:
        fm.run(algorithm, clients, **run, workers=2, callbacks=[fail_halfway])
    except OSError as failure:
        print(f"After round {NUM_ROUNDS // 2} {failure}.")
    resumed = fm.run(algorithm, clients, **run, workers=1, resume=True)

pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
same = all(torch.equal(one, other) for one, other in pairs)
print(f"rounds {resumed.rounds}, the same bits: {same}")
