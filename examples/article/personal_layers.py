"""Personal layers: what all share is trained together, the last layer stays with each client.

    python examples/article/personal_layers.py

Thirty people wear phones; `personal="6.*"` keeps the last layer of each at home: it is not in what
travels, and no server ever has it. People who move alike gain nothing by it: each head learns from
one person alone. Ends with:

    sent 22.1 of 25.2 kB an update; heads differ, bodies are one; accuracy 0.70, shared 0.80
"""

import os

import torch
from torch import nn

import folkmoot as fm

NUM_ROUNDS = 2 if "FOLKMOOT_QUICK" in os.environ else 40

clients, _ = fm.data.load("hapt")
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
work = fm.local.sgd(fm.classifier(model), lr=0.03, momentum=0.9, batch_size=16)
plan = {"rounds": NUM_ROUNDS, "cohort": 10, "evaluate_every": NUM_ROUNDS, "progress": False}

shared = fm.run(fm.fedavg(work), clients, **plan)
personal = fm.run(fm.fedavg(work), clients, personal="6.*", **plan)

one, other = (personal.clients[client].model for client in clients.ids[:2])
heads_differ = not torch.equal(one[6].weight, other[6].weight)
bodies_agree = torch.equal(one[0].weight, other[0].weight)
accuracies = [result.metrics["clients_accuracy"] for result in (personal, shared)]
sizes = [result.traffic.upload_bytes / (10 * NUM_ROUNDS) for result in (personal, shared)]
print(
    f"sent {sizes[0] / 1e3:.1f} of {sizes[1] / 1e3:.1f} kB an update; "
    f"heads {'differ' if heads_differ else 'are one'}, "
    f"bodies {'are one' if bodies_agree else 'differ'}; "
    f"accuracy {accuracies[0]:.2f}, shared {accuracies[1]:.2f}"
)
