"""30 people and their phones: what is a model of one's own worth, and against what?

    python examples/personal_models.py

Four ways to a model: one for all by FedAvg; that one, fine-tuned by each person; layers that are
shared under a head of one's own (FedPer); and training alone. Each is judged on each person's own
windows. With so few rounds, heads of their own do not pay: a global model that everyone trains on
once is better, and costs nothing on the way. Ends with:

    mean accuracy: FedAvg 0.77, fine-tuned 0.79, FedPer 0.72, alone 0.67
"""

import os
from statistics import mean

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 1 if QUICK else 20
COHORT = 10

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
work = fm.local.sgd(fm.classifier(model), lr=0.03, momentum=0.9, epochs=1, batch_size=16)
plan = {"rounds": NUM_ROUNDS, "cohort": COHORT, "evaluate_every": NUM_ROUNDS}

average = fm.run(fm.fedavg(work), clients, **plan)
tuned = fm.finetune(average, clients)
fedper = fm.run(fm.fedavg(work), clients, personal="6.*", name="fedper", **plan)

judged = {"FedAvg": fm.evaluate(average, clients, baselines=True)}
for name, result in {"fine-tuned": tuned, "FedPer": fedper}.items():
    # Baselines are the same for all three, and are trained once.
    judged[name] = fm.evaluate(result, clients, personal=True, baselines=judged["FedAvg"])
    print(f"\n{judged[name]}\n")

models = {name: found.clients for name, found in judged.items()}
models["alone"] = judged["FedAvg"].baselines["local"]
values = {
    name: mean(client.metrics["accuracy"] for client in found.values())
    for name, found in models.items()
}
print("mean accuracy:", ", ".join(f"{name} {value:.2f}" for name, value in values.items()))
