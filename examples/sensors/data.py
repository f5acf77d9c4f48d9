"""Air and engines as clients with numbers that a small network can learn from.

What is standardised is so by the train rows of all clients together, which a federation would have
from sums. Each function returns clients and what a model is judged on, by name.
"""

import os
from pathlib import Path

import numpy as np
import torch

import folkmoot as fm

FOLDER = Path(__file__).resolve().parents[2] / "data"
QUICK = "FOLKMOOT_QUICK" in os.environ
AHEAD = 6
"""Hours of PM2.5 that are foretold."""
PM25_DEVIATION = 80.1692
"""Of the train hours of all stations, in microgram/m3; what the other columns are divided by, too,
is theirs."""
LAGS = np.array([0, 1, 2, 3, 5, 8, 12, 23])
"""Hours before the last known one that a forecast looks at."""
SENSORS = [2, 3, 4, *range(6, 17)]
"""Columns of the engines that wear moves: not the two settings, and not sensor 6."""


def air():
    """Return twelve stations of Beijing and the year that follows, (x, y) by "all".

    x: (n, 114), at each lag eleven columns, the wind as two, and whether PM2.5 was known; then the
    hour of the day. Gaps are filled with the last value seen. y: (n, 12), six hours of PM2.5 and
    a mask: 0 where the station has not measured, and nothing is learnt or judged.
    """
    with np.load(FOLDER / "beijing_air" / "beijing_air.npz", allow_pickle=False) as file:
        raw, step, wind = file["x"], file["step"], file["wind"]
        stations, first_test = file["client_names"], int(file["split"].argmax())
    values = np.where(raw == -32768, np.nan, raw * step).astype(np.float32)
    train = values[:, :first_test].reshape(-1, 11)
    values = (values - np.nanmean(train, axis=0)) / np.nanstd(train, axis=0)
    # A cloudburst is 58 deviations; no PM2.5 is 12.
    values = np.clip(values, -12, 12)
    known = ~np.isnan(values)
    angle = wind[..., None] * (np.pi / 8)
    blows = np.where(wind[..., None] == 255, 0, np.concatenate([np.sin(angle), np.cos(angle)], 2))
    columns = np.concatenate([filled(values, known), blows, known[..., :1]], axis=2)

    hours = values.shape[1]
    now = np.arange(LAGS.max(), hours - 1)[:: 50 if QUICK else 1]
    clock = 2 * np.pi * (now % 24) / 24
    seen = columns[:, now[:, None] - LAGS].reshape(len(stations), len(now), -1)
    day = np.broadcast_to(np.stack([np.sin(clock), np.cos(clock)], 1), (*seen.shape[:2], 2))
    # Behind the last hour of all nothing is known.
    later = np.pad(values[..., 0], ((0, 0), (0, AHEAD)), constant_values=np.nan)
    later = later[:, now[:, None] + np.arange(1, AHEAD + 1)]
    there = ~np.isnan(later)
    x = np.concatenate([seen, day], axis=2, dtype=np.float32)
    y = np.concatenate([np.nan_to_num(later), there], axis=2, dtype=np.float32)
    # A target of the test year is none of a train row.
    split = np.where(now + 1 >= first_test, 1, np.where(now + AHEAD < first_test, 0, -1))
    use = there.any(axis=2) & (split >= 0)
    owner, place = np.nonzero(use)
    clients = fm.data.from_arrays(
        {"x": x[use], "y": y[use]}, stations[owner], split=split[place], name="beijing_air"
    )
    return clients, {"all": joined([client.test for client in clients.values()])}


def filled(values, known):
    """Put the last value seen where one is missing, and the mean, 0, before the first."""
    last = np.maximum.accumulate(np.where(known, np.arange(values.shape[1])[:, None], 0), axis=1)
    return np.nan_to_num(np.take_along_axis(values, last, axis=1))


def engines():
    """Return 100 engines that ran to failure, and the last windows of 100 others as "unseen".

    x: (n, 42), of each of 14 sensors the mean of the last ten cycles and of all thirty, and the
    slope. y: (n, 1), cycles left, at most 125, over 125.
    """
    clients, test = fm.data.load("turbofan")
    owner = np.repeat(clients.ids, clients.sizes())
    train = joined([client.train for client in clients.values()])
    time = torch.linspace(-1, 1, train["x"].shape[1])[:, None]

    def features(x):
        x = x[:, :, SENSORS]
        return torch.cat([x[:, -10:].mean(1), x.mean(1), (x * time).mean(1)], dim=1)

    x = features(train["x"])
    mean, deviation = x.mean(0), x.std(0)
    scaled = {"x": (x - mean) / deviation, "y": train["y"]}
    unseen = {"x": (features(test["x"]) - mean) / deviation, "y": test["y"]}
    return fm.data.from_arrays(scaled, owner, name="turbofan"), {"unseen": unseen}


def joined(parts):
    """Lay examples of several clients behind each other."""
    return {name: torch.cat([part[name] for part in parts]) for name in ("x", "y")}
