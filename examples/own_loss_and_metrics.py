"""A loss and a metric of your own: survival after breast cancer, in six regions.

    python examples/own_loss_and_metrics.py

A Cox model learns from who lived longer than whom, so its loss needs many patients at once: a
client's batch is everyone. The c-index is no sum over patients; `whole` shows it all outputs of one
client together, and over clients it is reported as a mean of clients. Ends with the c-index on the
pooled test set:

    c-index before 0.500, after 0.851
"""

import os

import torch
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 2 if QUICK else 30


def cox_loss(risk, y):
    """Negative log partial likelihood a death. risk: (n, 1); y: (n, 2), time and event."""
    time, died = y.unbind(1)
    order = torch.argsort(time, descending=True)
    risk, died = risk.squeeze(1)[order], died[order]
    # In this order, everyone before a patient was still at risk when she died.
    likelihood = risk - torch.logcumsumexp(risk, dim=0)
    return -(likelihood * died).sum() / died.sum().clamp(min=1)


def c_index(risk, y):
    """Share of comparable pairs in which the one who died earlier had the higher risk."""
    time, died = y.unbind(1)
    risk = risk.squeeze(1)
    comparable = (time[:, None] < time[None, :]) & (died[:, None] == 1)
    higher = (risk[:, None] > risk[None, :]).float() + 0.5 * (risk[:, None] == risk[None, :])
    return (higher * comparable).sum() / comparable.sum()


clients, test = fm.data.load("tcga_brca")
model = nn.Linear(39, 1, bias=False)
nn.init.zeros_(model.weight)
survival = fm.objective(model, cox_loss, metrics=[fm.metrics.whole("c_index", c_index)])
work = fm.local.sgd(survival, lr=0.1, steps=5, batch_size=None, weight_decay=0.01)

result = fm.run(fm.fedavg(work), clients, rounds=NUM_ROUNDS, test=test, best="c_index")
before = c_index(model(test["x"]), test["y"])
print(f"c-index before {before:.3f}, after {result.metrics['test_c_index']:.3f}")
