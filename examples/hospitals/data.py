"""Patients of four hospitals and of six regions, as numbers.

Inputs are centred and scaled by round numbers that a physician would name. Means and deviations of
the patients would be a release of their own, outside any budget.
"""

import os

import torch

import folkmoot as fm

QUICK = "FOLKMOOT_QUICK" in os.environ

# Age in years, blood pressure in mm Hg, cholesterol in mg/dl, pulse a minute, depression in mm.
USUAL = {0: (55, 10), 2: (130, 20), 3: (240, 50), 5: (140, 25), 7: (1, 1)}
CHOLESTEROL = 3


def heart_disease():
    """Return four hospitals; "x" is (n, 13) and "y" (n,), 1 where a patient is ill."""
    clients, _ = fm.data.heart_disease(scale=None)

    def scaled(rows):
        x = rows["x"].clone()
        # 0 stands for a value that nobody took down, as for all of Switzerland.
        x[x[:, CHOLESTEROL] == 0, CHOLESTEROL] = USUAL[CHOLESTEROL][0]
        for column, (centre, width) in USUAL.items():
            x[:, column] = (x[:, column] - centre) / width
        return {"x": x, "y": rows["y"]}

    return changed(clients, scaled)


def breast_cancer():
    """Return six regions; "x" is (n, 39), "y" (n, 2): years, and 1 where a death was seen."""
    clients, _ = fm.data.tcga_brca(scale=None)

    def scaled(rows):
        x, y = rows["x"].clone(), rows["y"].clone()
        x[:, 0] = (x[:, 0] - 60) / 12  # age in years; all other inputs are 0 or 1
        y[:, 0] /= 365.25
        return {"x": x, "y": y}

    return changed(clients, scaled)


def changed(clients, change):
    """Return the clients with changed rows."""
    parts = {name: (change(clients[name].train), change(clients[name].test)) for name in clients}
    return of_parts(parts)


def of_parts(parts):
    """Return clients of (train rows, test rows) by name."""
    rows = together(part for pair in parts.values() for part in pair)
    owner = [name for name, pair in parts.items() for part in pair for _ in part["y"]]
    split = [place for pair in parts.values() for place, part in enumerate(pair) for _ in part["y"]]
    return fm.data.from_arrays(rows, owner, split=split)


def together(parts):
    """Return the rows of several parts as one."""
    parts = list(parts)
    return {leaf: torch.cat([part[leaf] for part in parts]) for leaf in parts[0]}


def pooled(clients):
    """Return one client that has everyone's train rows."""
    return {"everyone": together(clients[name].train for name in clients)}


def kilobytes(clients):
    """Return what the train rows weigh: what pooling them would send."""
    rows = pooled(clients)["everyone"]
    return sum(leaf.float().numel() * 4 for leaf in rows.values()) / 1000
