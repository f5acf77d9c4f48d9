"""A pandas table in which one column says whose row it is.

    python examples/data_frame.py

Patients of five age groups stand in for five clinics; what is foretold is how far a diabetes has
got a year later. Every fifth row of a clinic is its own test. Ends with the error over all clinics'
tests, and that of always saying the train rows' mean:

    RMSE 58.5, of the mean 76.9
"""

import os

import pandas as pd
import torch
from sklearn.datasets import load_diabetes
from torch import nn

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ
NUM_ROUNDS = 2 if QUICK else 40

frame = load_diabetes(as_frame=True).frame
frame["clinic"] = pd.qcut(frame["age"], 5, labels=["20s", "30s", "40s", "50s", "60s"]).astype(str)
frame["held_out"] = frame.groupby("clinic").cumcount() % 5 == 4
frame["target"] /= 100

clients = fm.data.from_frame(frame, client="clinic", target="target", split="held_out")
torch.manual_seed(0)
work = fm.local.sgd(fm.regressor(nn.Linear(10, 1)), lr=0.5, epochs=1)
result = fm.run(fm.fedavg(work), clients, rounds=NUM_ROUNDS)

for clinic in result.clients.values():
    print(f"{clinic.id}: {clinic.examples} patients, RMSE {100 * clinic.metrics['rmse']:.1f}")
train, held_out = frame[~frame["held_out"]]["target"], frame[frame["held_out"]]["target"]
of_mean = ((held_out - train.mean()) ** 2).mean() ** 0.5
print(f"RMSE {100 * result.metrics['clients_rmse']:.1f}, of the mean {100 * of_mean:.1f}")
