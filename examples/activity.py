"""What 30 people do, from a phone at the waist: a 1-D CNN for those who train and those who do not.

    python examples/activity.py

20 people are clients, 10 of them are asked in a round; the other ten are the test set. A person's
own test windows come from the body and the phone that the model has learnt from. Ends with:

    people who trained 0.925, the worst tenth of them 0.670, unseen people 0.806
"""

import os

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 1 if QUICK else 60
COHORT = 10

everyone, _ = fm.data.load("hapt")
unseen = everyone.subset(range(0, 30, 3))
clients = everyone.subset(person for person in everyone if person not in unseen)
parts = [unseen[person].test for person in unseen]
test = {name: torch.cat([part[name] for part in parts]) for name in ("x", "y")}

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
work = fm.local.sgd(fm.classifier(model), lr=0.03, momentum=0.9, epochs=2, batch_size=16)
result = fm.run(fm.fedavg(work), clients, rounds=NUM_ROUNDS, cohort=COHORT, test=test)
found = result.metrics
print(
    f"people who trained {found['clients_accuracy']:.3f}, "
    f"the worst tenth of them {found['clients_accuracy_worst_decile']:.3f}, "
    f"unseen people {found['test_accuracy']:.3f}"
)
