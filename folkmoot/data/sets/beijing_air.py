"""Beijing air: hourly pollution and weather at twelve stations, to foretell the next hour's PM2.5.

Zhang et al., "Cautionary Tales on Air-Quality Improvement in Beijing", Proc. R. Soc. A 2017; UCI,
"Beijing Multi-Site Air-Quality Data". Licence: CC BY 4.0.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from folkmoot.core import tree as trees
from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData, Id
from folkmoot.data.sets.files import find, floats

INPUTS = ("PM2.5", "PM10", "SO2", "NO2", "CO", "O3", "TEMP", "PRES", "DEWP", "RAIN", "WSPM")
"""Columns of x: six pollutants in microgram/m3, then degrees C, hPa, degrees C, mm, m/s."""

HOURS = 24
"""Length of a window."""

PM25_MEAN, PM25_DEVIATION = 80.3624, 80.1692
"""Of the train hours of all stations: y * PM25_DEVIATION + PM25_MEAN is in microgram/m3."""

_MISSING = -32768


def beijing_air(folder: str | Path | None = None) -> tuple[ClientData, Tree]:
    """Load Beijing air with one client a station: regression, PM2.5 one hour ahead.

    An example is the 24 hours before the one to be foretold. Gaps in the inputs are filled with the
    last value seen (never with a later one), hours whose PM2.5 is missing are no targets. Wind
    direction is left out. Windows are cut when a client is asked for (28 MB a client) and not kept.

    The last value itself has an RMSE of 19.8 microgram/m3 on the pooled test set, ridge regression
    18.5.

    Args:
        folder: Where `beijing_air.npz` lies; by default the usual places of `load`.

    Returns:
        Twelve clients by station name, about 25,700 train hours (March 2013 to February 2016) and
        8,600 test hours (the year after) each, and the pooled test set of all stations (109 MB). x:
        (n, 24, 11), float32, oldest hour first, the columns of `INPUTS`, standardised by all
        stations' train hours; y: (n, 1), float32, PM2.5 standardised by `PM25_MEAN` and
        `PM25_DEVIATION`.

    Raises:
        DataError: If the file is not found.
    """
    path = find("beijing_air", "beijing_air.npz", folder)
    with np.load(path, allow_pickle=False) as arrays:
        raw, step, split = arrays["x"], arrays["step"], arrays["split"].astype(bool)
        names = arrays["client_names"].tolist()
    values = np.where(raw == _MISSING, np.nan, raw * step.astype(np.float64))
    train_hours = values[:, ~split].reshape(-1, len(INPUTS))
    scaled = (values - np.nanmean(train_hours, axis=0)) / np.nanstd(train_hours, axis=0)
    stations = dict(zip(names, scaled.astype(np.float32), strict=True))
    targets = {name: _target_hours(series) for name, series in stations.items()}
    hours = {name: (rows[~split[rows]], rows[split[rows]]) for name, rows in targets.items()}
    inputs = {name: _fill(series) for name, series in stations.items()}

    def windows(part: int, station: Id) -> Tree:
        name = str(station)
        return _windows(inputs[name], stations[name], hours[name][part])

    clients = ClientData(
        names,
        partial(windows, 0),
        test=partial(windows, 1),
        sizes=[len(hours[name][0]) for name in names],
        name="beijing_air",
        content=lambda: hashlib.sha256(raw.tobytes()).hexdigest(),
    )
    tests = [windows(1, name) for name in sorted(names)]
    return clients, trees.map(lambda *parts: torch.cat(parts), *tests)


def _target_hours(series: NDArray[np.float32]) -> NDArray[np.int64]:
    hours = np.flatnonzero(~np.isnan(series[:, 0]))
    return hours[hours >= HOURS]


def _windows(
    inputs: NDArray[np.float32], series: NDArray[np.float32], hours: NDArray[np.int64]
) -> Tree:
    # Window i of the view is hours i .. i + 23, as (columns, hours).
    view = torch.from_numpy(inputs).unfold(0, HOURS, 1)
    x = view[torch.from_numpy(hours - HOURS)].transpose(1, 2).contiguous()
    return {"x": x, "y": floats(series[hours, :1])}


def _fill(series: NDArray[np.float32]) -> NDArray[np.float32]:
    known = ~np.isnan(series)
    last = np.maximum.accumulate(np.where(known, np.arange(len(series))[:, None], 0), axis=0)
    filled = np.take_along_axis(series, last, axis=0)
    # Before the first value of a column stands the mean, which is 0.
    return np.nan_to_num(filled, nan=0.0)
