"""Four ways to deal one pooled set out to clients, each as a picture of clients by classes.

    python examples/partitions.py

The score is the mean distance of a client's labels from the pooled ones: 0 is iid, 0.9 is one class
a client. Small clients score above 0 even when they are dealt by chance. Ends with:

    shards(2 a client): non-iid score 0.80, picture partition-shards.png
"""

import os

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_CLIENTS = 10 if QUICK else 50

_, digits = fm.data.load("mnist_writers")
deal = fm.data.partition
partitions = {
    "iid": deal.iid(digits, NUM_CLIENTS),
    "dirichlet-1": deal.dirichlet(digits, NUM_CLIENTS, alpha=1.0),
    "dirichlet-0.1": deal.dirichlet(digits, NUM_CLIENTS, alpha=0.1),
    "shards": deal.shards(digits, NUM_CLIENTS, shards_per_client=2),
}
print(partitions["dirichlet-0.1"].summary())
for name, partition in partitions.items():
    file = f"partition-{name}.png"
    partition.plot(file)
    print(f"{partition.name}: non-iid score {partition.non_iid_score():.2f}, picture {file}")
