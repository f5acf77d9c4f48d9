"""Turbofan: how many cycles an aircraft engine has left, from its sensors.

NASA C-MAPSS, data set FD001: Saxena, Goebel, Simon, Eklund, "Damage Propagation Modeling for
Aircraft Engine Run-to-Failure Simulation", PHM 2008. A simulation made by NASA; US government work,
public.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData
from folkmoot.data.pooled import from_pool
from folkmoot.data.sets.files import find, floats

CYCLES = 30
"""Length of a window."""

MOST_LIFE = 125
"""Remaining life is capped here, as is usual: a new engine shows nothing of its end."""

CONSTANT = ("setting3", "s1", "s5", "s10", "s16", "s18", "s19")
"""Columns that never change and are left out."""


def turbofan(folder: str | Path | None = None) -> tuple[ClientData, Tree]:
    """Load turbofan with one client an engine: regression of the remaining useful life.

    An example is 30 cycles in a row; its target is the life left after the last of them, capped at
    125 cycles and divided by 125. Multiply an RMSE by 125 to compare with published ones, which are
    taken over the last cycle of each test engine (as here): ridge regression reaches 15.9.

    Args:
        folder: Where `turbofan.npz` lies; by default the usual places of `load`.

    Returns:
        Clients 0 to 99, the engines that ran to failure (17,731 windows, 99 to 333 each; without
        tests of their own), and as test the last window of each of 100 other engines. x: (n, 30,
        17), float32, oldest cycle first: 2 settings and 15 sensors, standardised by the train
        engines; y: (n, 1), float32, from 0 to 1.

    Raises:
        DataError: If the file is not found.
    """
    path = find("turbofan", "turbofan.npz", folder)
    with np.load(path, allow_pickle=False) as arrays:
        x, rul, engine = arrays["x"], arrays["rul"], arrays["client"].astype(int)
        unseen, columns = arrays["split"].astype(bool), arrays["columns"].tolist()
    varying = [place for place, name in enumerate(columns) if name not in CONSTANT]
    x = x[:, varying].astype(np.float64)
    x = ((x - x[~unseen].mean(axis=0)) / x[~unseen].std(axis=0)).astype(np.float32)
    life = np.minimum(rul, MOST_LIFE) / MOST_LIFE

    # A window ends at every row whose engine is the same 29 rows before.
    ends = np.arange(CYCLES - 1, len(x))
    ends = ends[engine[ends] == engine[ends - CYCLES + 1]]
    train = ends[~unseen[ends]]
    last = np.flatnonzero(np.append(engine[1:] != engine[:-1], True) & unseen)
    clients = from_pool(
        _windows(x, life, train), range(100), np.bincount(engine[train]), name="turbofan"
    )
    return clients, _windows(x, life, last)


def _windows(x: NDArray[np.float32], life: NDArray[np.float64], ends: NDArray[np.int64]) -> Tree:
    rows = ends[:, None] + np.arange(1 - CYCLES, 1)
    return {"x": floats(x[rows]), "y": floats(life[ends, None])}
