"""Virtual workers: alice and bob hold digits, and a model is trained at both without them.

    python examples/article/workers.py

The model is sent to alice, trained there through pointers, fetched, sent to bob, and so on; each
worker is a process of its own. Data never leave: the worker refuses. Ends with:

    accuracy 0.11 before and 0.96 after; alice's digits could not be fetched
"""

import os

import torch
import torch.nn.functional as F
from torch import nn

import folkmoot as fm

EPOCHS = 1 if "FOLKMOOT_QUICK" in os.environ else 2
BATCH = 64

torch.manual_seed(0)
clients, test = fm.data.load("mnist_writers")
writers = list(clients)
workers = []
for name, part in (("alice", writers[0::2]), ("bob", writers[1::2])):
    held = [clients[writer].train for writer in part]
    x, y = (torch.cat([data[column] for data in held]) for column in "xy")
    whole = len(x) // BATCH * BATCH
    policy = fm.remote.Policy(min_rows=BATCH)
    data = {"digits": (x[:whole], y[:whole])}
    workers.append(fm.Worker(name, data=data, policy=policy, process=True))


def accuracy(model):
    return (model(test["x"]).argmax(1) == test["y"]).float().mean().item()


model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
before = accuracy(model)
for _ in range(EPOCHS):
    for worker in workers:
        digits, there = worker.data["digits"], worker.send(model)
        optimizer = torch.optim.SGD(there.parameters(), lr=0.1)
        for begin in range(0, len(digits.x), BATCH):
            optimizer.zero_grad()
            output = there(digits.x[begin : begin + BATCH])
            loss = F.cross_entropy(output, digits.y[begin : begin + BATCH])
            loss.backward()
            optimizer.step()
        model = there.get()

alice = workers[0]
try:
    found = alice.data["digits"].x.get()
    told = "were fetched"
except fm.remote.Refused:
    told = "could not be fetched"
print(f"accuracy {before:.2f} before and {accuracy(model):.2f} after; alice's digits {told}")
