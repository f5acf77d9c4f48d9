"""UCI heart disease: patients of four hospitals, disease or none.

R. Detrano, A. Janosi, W. Steinbrunn, M. Pfisterer, "Heart Disease", UCI Machine Learning
Repository, 1988. Licence: CC BY 4.0. Rows, inputs and split are those of FLamby (Ogier du Terrail
et al., NeurIPS 2022, arXiv:2210.04620): `slope`, `ca` and `thal` are dropped, then rows with a
missing value. The records are de-identified: nobody may try to identify anyone.
"""

from pathlib import Path

import numpy as np

from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData
from folkmoot.data.pooled import from_pool
from folkmoot.data.sets.files import (
    announce,
    find,
    floats,
    integers,
    numbers,
    read_csv,
    standardise,
)

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
"""Ids of the clients; "va" is the Veterans Affairs centre in Long Beach."""

INPUTS = (
    "age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak",
    "cp=2", "cp=3", "cp=4", "restecg=1", "restecg=2",
)  # fmt: skip
"""Columns of x, in order; `cp=2` is 1 where chest pain is of type 2 (first types are dropped)."""


def heart_disease(
    folder: str | Path | None = None, *, scale: str | None = "pooled"
) -> tuple[ClientData, Tree]:
    """Load heart disease with one client a hospital: a binary table, 13 inputs.

    The shift is strong: 46, 36, 93 and 75 % of all patients are ill. Logistic regression on the
    pooled data reaches an accuracy of 0.795 on the pooled test set, whichever scale.

    Args:
        folder: Where `heart_disease.csv` lies; by default the usual places of `load`.
        scale: How x is standardised. "pooled": everything by the mean and deviation of the pooled
            train data. "client": each hospital's data by its own train data's, the pooled test set
            by the pooled train data's (the protocol of FLamby's published figures). None: x as
            measured (years, mm Hg, mg/dl, beats a minute, mm).

    Returns:
        Clients "cleveland" (199 train, 104 test), "hungarian" (172, 89), "switzerland" (30, 16) and
        "va" (85, 45), and the pooled test set (254). x: (n, 13), float32, the columns of `INPUTS`;
        y: (n,), int64, 1 = disease.

    Raises:
        SettingsError: If `scale` is something else.
        DataError: If the file is not found.
    """
    if scale not in ("pooled", "client", None):
        raise SettingsError(f'scale must be "pooled", "client" or None, but is {scale!r}.')
    path = find("heart_disease", "heart_disease.csv", folder)
    table = read_csv(path)
    used = np.array([part != "" for part in table["flamby"]])
    rows = np.flatnonzero(used)
    hospital = numbers(table["client"])[rows].astype(int)
    held_out = np.array(table["flamby"])[rows] == "test"
    order = np.lexsort((held_out, hospital))
    hospital, held_out = hospital[order], held_out[order]
    x = _inputs(table)[rows][order]
    y = integers(numbers(table["label"])[rows][order])

    pooled = x if scale is None else standardise(x, x[~held_out])
    mine = pooled.copy()
    if scale == "client":
        for number in range(len(HOSPITALS)):
            own = hospital == number
            mine[own] = standardise(x[own], x[own & ~held_out])
    clients = from_pool(
        {"x": floats(mine), "y": y},
        HOSPITALS,
        np.bincount(hospital[~held_out]),
        np.bincount(hospital[held_out]),
        name="heart_disease",
        num_classes=2,
    )
    announce("heart_disease", path, "all 4 clients")
    return clients, {"x": floats(pooled[held_out]), "y": y[held_out]}


def _inputs(table: dict[str, list[str]]) -> np.ndarray:
    columns = []
    for name in INPUTS:
        variable, _, level = name.partition("=")
        values = numbers(table[variable])
        columns.append(values == float(level) if level else values)
    return np.stack(columns, axis=1).astype(np.float64)
