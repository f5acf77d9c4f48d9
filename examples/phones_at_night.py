"""Phones that train while they are charged: a day of rounds with a deadline, against buffers.

    python examples/phones_at_night.py

Draws phones_at_night.png, accuracy against rounds, bytes and virtual hours, and
phones_at_night-round.png, what each phone did in the last round. Links and chips a hundredth as
fast as the preset's stand for a model a hundred times as large, of ten million numbers. Both ways
have 20 phones at work. Ends with:

    by 6:00 rounds have 0.906, buffers 0.944; not heard in a day: 195 and 149 of 539
"""

import os

import torch
from torch import nn

import folkmoot as fm

HOUR_S = 3600.0
DAY_S = (1 if "FOLKMOOT_QUICK" in os.environ else 24) * HOUR_S
AT_WORK = 20

clients, test = fm.data.load("mnist_writers")
test = {name: leaf[::5] for name, leaf in test.items()}
fleet = fm.fleets.phones(flops=4e7, down_bytes_per_s=6e3, up_bytes_per_s=3e3)


def a_day(name, every, **policy):
    """Train from midnight to midnight, and return the result."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    work = fm.local.sgd(fm.classifier(model), lr=0.2, batch_size=20)
    plan = {"rounds": 5000, "cohort": AT_WORK, "evaluate_every": every, "name": name, **policy}
    plan["stop"] = lambda history: history[-1]["virtual_s"] >= DAY_S and "The day is over."
    return fm.run(fm.fedavg(work), clients, fleet=fleet, test=test, client_tests=False, **plan)


def early(result):
    """Return the accuracy that a run has by six in the morning."""
    rows = [row for row in result.history if row["evaluated"]]
    return [row["test_accuracy"] for row in rows if row["virtual_s"] <= 6 * HOUR_S][-1]


rounds = a_day("rounds, 20 minutes at most", 2, deadline_s=1200.0)
buffers = a_day("buffers of 10", 10, buffer=10)
rounds.plot_efficiency("phones_at_night.png", others={buffers.name: buffers})
rounds.plot_round("phones_at_night-round.png")
print(f"{rounds}\n\n{buffers}\n")
unheard = [len(result.never_heard.clients) for result in (rounds, buffers)]
print(
    f"by 6:00 rounds have {early(rounds):.3f}, buffers {early(buffers):.3f}; "
    f"not heard in a day: {unheard[0]} and {unheard[1]} of {len(clients)}"
)
