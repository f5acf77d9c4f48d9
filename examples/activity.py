"""What 30 people do, from a phone at the waist: a 1-D CNN for those who train and those who do not.

    python examples/activity.py

21 people are clients, 7 of them are asked in a round; the other nine are the test set. A person's
own test windows come from the same body and the same phone as the train windows. Ends with:

    people who trained 0.900, unseen people 0.900
"""

import os

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 1 if QUICK else 40
COHORT = 7

everyone, _ = fm.data.load("hapt")
clients = everyone.subset(range(21))
unseen = [everyone[person].train for person in range(21, 30)]
test = {name: torch.cat([part[name] for part in unseen]) for name in ("x", "y")}

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv1d(6, 16, 9, stride=2),
    nn.ReLU(),
    nn.Conv1d(16, 32, 9, stride=2),
    nn.ReLU(),
    nn.AdaptiveAvgPool1d(4),
    nn.Flatten(),
    nn.Linear(128, 6),
)
work = fm.local.sgd(fm.classifier(model), lr=0.05, momentum=0.9, batch_size=16)
result = fm.run(fm.fedavg(work), clients, rounds=NUM_ROUNDS, cohort=COHORT, test=test)
print(
    f"people who trained {result.metrics['clients_accuracy']:.3f}, "
    f"unseen people {result.metrics['test_accuracy']:.3f}"
)
