"""The article's server and clients: pick, send, train, average by examples.

    python examples/article/server_and_clients.py

The loop is the article's, and the two classes are gone: `next` is the server's round, each client
trains with an optimizer of its own, buffers keep their dtypes, and the mean counts examples. That
it is this mean is worked out by hand for the first three writers. Ends with:

    accuracy 0.89 after 10 rounds; mean by hand, largest difference 0.0000
"""

import os
import random

import torch
from torch import nn

import folkmoot as fm

NUM_ROUNDS = 2 if "FOLKMOOT_QUICK" in os.environ else 10
NUM_ASKED = 20

clients, test = fm.data.load("mnist_writers")
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
server = fm.process(fm.fedavg(fm.local.sgd(fm.classifier(model), lr=0.2, epochs=1)))

state = server.initialize()
accuracies = [server.evaluate(state, test)["accuracy"]]
for _ in range(NUM_ROUNDS):
    asked = random.Random(state.round).sample(clients.ids, NUM_ASKED)
    state, happened = server.next(state, clients.subset(asked))
    accuracies.append(server.evaluate(state, test)["accuracy"])
    print(f"round {happened['round']}: {happened['answered']} clients, {accuracies[-1]:.3f}")


def trained_by(some):
    """Return the parameters after one more round with some clients, as one long vector."""
    following, _ = server.next(state, clients.subset(some))
    return nn.utils.parameters_to_vector(server.model(following).parameters()).detach()


three = clients.ids[:3]
sizes = [len(clients[client].train["y"]) for client in three]
alone = [trained_by([client]) for client in three]
by_hand = sum(size * own for size, own in zip(sizes, alone, strict=True)) / sum(sizes)
difference = float((trained_by(three) - by_hand).abs().max())
print(
    f"accuracy {accuracies[-1]:.2f} after {state.round} rounds; "
    f"mean by hand, largest difference {difference:.4f}"
)
