"""DP-SGD with Adam and a budget: each client hides each of its examples.

    python examples/article/dp_sgd.py

The article types a noise multiplier and asks afterwards what epsilon it gave. Here the budget is
typed and the noise solved, each example's gradient is clipped by itself, and a ledger that outlasts
the run refuses what would overspend. Noise is the operating system's: no two runs are alike.
Ends with:

    accuracy 0.84 at epsilon 3.00 of 3; a second run is refused
"""

import os
import tempfile
from pathlib import Path

import torch
from torch import nn

import folkmoot as fm

NUM_ROUNDS = 2 if "FOLKMOOT_QUICK" in os.environ else 10
EPSILON, DELTA = 3.0, 1e-5

_, digits = fm.data.load("mnist_writers")
pool, test = ({k: v[part] for k, v in digits.items()} for part in (slice(8000), slice(8000, None)))
clients = fm.data.partition.iid(pool, 4, seed=0).clients(pool)  # four holders of 2,000 digits

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
adam = fm.optimizers.adam(0.005)
work = fm.local.descent(fm.classifier(model), adam, steps=5, batch_size=500)

limits = {"epsilon": EPSILON, "delta": DELTA, "unit": "example"}
ledger = fm.privacy.Ledger(Path(tempfile.mkdtemp()) / "digits.jsonl", **limits)
budget = fm.DP(**limits, clip=1.0, ledger=ledger)


def train():
    """Train within the budget that is left."""
    return fm.run(fm.fedavg(work), clients, rounds=NUM_ROUNDS, test=test, privacy=budget)


result = train()
print(f"\n{result.privacy}\n")
try:
    train()
    outcome = "a second run went through"
except fm.BudgetError as error:
    print(error)
    outcome = "a second run is refused"
spent = ledger.epsilon()
ledger.close()
print(
    f"accuracy {result.metrics['test_accuracy']:.2f} at epsilon {result.privacy.epsilon:.2f} "
    f"of {EPSILON:.0f}; {outcome}"
)
