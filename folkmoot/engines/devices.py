"""What a device can do: how fast it trains, how fast its link is, how much it holds.

Three ways to say it: one `Device` for all or one a client, rows of a table that are dealt to
clients, and makes of which each client draws one. A client's device follows from (seed, client id)
alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from folkmoot.core import rng
from folkmoot.core.engine import ClientId
from folkmoot.core.errors import SettingsError, did_you_mean
from folkmoot.engines.availability import uniform


class Device(NamedTuple):
    """One device. Of `flops` and `examples_per_s`, exactly one is given."""

    flops: float | None = None
    """Floating operations a second that it sustains while it trains, not the peak of its chip."""
    examples_per_s: float | None = None
    """Examples of this very model that it trains in a second."""
    down_bytes_per_s: float = math.inf
    up_bytes_per_s: float = math.inf
    latency_s: float = 0.0
    """One way; an attempt waits for it twice, before the download and before the upload arrives."""
    memory_bytes: float = math.inf
    """What training may use."""
    dropout: float = 0.0
    """Chance that it never answers once it was asked, whatever its windows say."""


class Spread(NamedTuple):
    """A log-normal number: half of the devices lie below the median.

    Of all devices, 5 % lie below median / exp(1.645 sigma), and 5 % above median * exp(1.645
    sigma); sigma 0 is the median for all.
    """

    median: float
    sigma: float = 0.0


class Make(NamedTuple):
    """One kind of device in a fleet, of which each client's is drawn.

    A device's links down and up are fast or slow together. Its drop-out chance is uniform within
    25 % of the mean.
    """

    flops: Spread
    down_bytes_per_s: Spread
    up_bytes_per_s: Spread
    latency_s: Spread
    memory_bytes: Spread
    dropout: float
    """On average."""
    share: float = 1.0
    """Of the fleet; the shares of all makes sum to 1."""


PHONES = Make(
    flops=Spread(4e9, 0.9),
    down_bytes_per_s=Spread(0.6e6, 1.0),
    up_bytes_per_s=Spread(0.3e6, 1.0),
    latency_s=Spread(0.05, 0.5),
    memory_bytes=Spread(1e9, 0.5),
    dropout=0.08,
)
"""Phones of all prices; `fm.fleets.phones` says where the numbers come from."""


class Table(NamedTuple):
    """Rows of devices with names, in ascending order of their names."""

    names: tuple[str, ...]
    columns: np.ndarray
    """(fields of Device, rows); NaN is None."""


Devices = Device | Mapping[ClientId, Device] | Table | tuple[Make, ...]


def check_device(device: Device, whose: str) -> None:
    """Refuse a device that cannot train or send.

    Raises:
        SettingsError: If a number is out of its range; it names whose device, and the field.
    """
    if not isinstance(device, Device):
        raise SettingsError(f"{whose} must be an fm.Device, but is {device!r}.")
    if (device.flops is None) == (device.examples_per_s is None):
        raise SettingsError(
            f"{whose} has flops={device.flops} and examples_per_s={device.examples_per_s}. Give "
            "exactly one of them, the other as None."
        )
    for name, value in zip(device._fields, device, strict=True):
        if value is not None and (wanted := fault(name, value)):
            raise SettingsError(f"{whose} has {name}={value!r}, which must be {wanted}.")


def fault(name: str, value: float) -> str | None:
    """Return what a field's number must be where it is not, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return "a number"
    if name == "dropout":
        return None if 0 <= value <= 1 else "a probability in [0, 1]"
    if name == "latency_s":
        return None if 0 <= value < math.inf else "a finite number of at least 0"
    if name in ("flops", "examples_per_s"):
        return None if 0 < value < math.inf else "a finite number above 0"
    return None if value > 0 else "above 0"


def check_makes(makes: tuple[Make, ...]) -> None:
    """Refuse makes that cannot be drawn.

    Raises:
        SettingsError: If shares do not sum to 1, or a number is out of its range.
    """
    if not makes or abs(sum(make.share for make in makes) - 1) > 1e-9:
        raise SettingsError(
            f"The shares of a fleet's makes must sum to 1, but are {[m.share for m in makes]}."
        )
    for make in makes:
        if not 0 <= make.share <= 1 or not 0 <= make.dropout <= 0.8:
            raise SettingsError(
                f"A make has share={make.share} and dropout={make.dropout}. A share lies in [0, 1],"
                " a drop-out chance, which varies by a quarter of itself, in [0, 0.8]."
            )
        for name, spread in zip(make._fields[:5], make[:5], strict=True):
            if not (0 < spread.median < math.inf and 0 <= spread.sigma < math.inf):
                raise SettingsError(
                    f"{name} has median {spread.median} and sigma {spread.sigma}. The median must "
                    "be finite and above 0, sigma finite and at least 0."
                )


def columns_of(devices: Devices, ids: Sequence[ClientId], keys: np.ndarray) -> np.ndarray:
    """Return the devices of clients, (fields of Device, clients), float64; NaN is None.

    Raises:
        SettingsError: If one device a client was given, and a client has none.
    """
    if isinstance(devices, Device):
        return np.repeat(np.array([devices], dtype=np.float64).T, len(ids), axis=1)
    if isinstance(devices, Table):
        return devices.columns[:, deal(devices.names, ids, keys)]
    if isinstance(devices, Mapping):
        missing = [client for client in ids if client not in devices]
        if missing:
            near = did_you_mean(str(missing[0]), map(str, devices), listed=False)
            raise SettingsError(
                f"{len(missing)} of {len(ids)} clients have no device, such as {missing[0]!r}."
                f"{near} Name a Device for each client, or give one Device for all."
            )
        given = [devices[client] for client in ids]
        return np.array(given, dtype=np.float64).reshape(len(ids), -1).T
    return _draw(devices, keys)


def deal(names: Sequence[str], ids: Sequence[ClientId], keys: np.ndarray) -> np.ndarray:
    """Return each client's row of a table, (clients,): that of its own name, else one by hash.

    The hash is the same for every table: two tables of the same names deal a client one device.
    """
    rows = (uniform(keys, "row") * len(names)).astype(np.int32)
    known = {name: row for row, name in enumerate(names)}
    for place, client in enumerate(ids):
        row = known.get(str(client))
        if row is not None:
            rows[place] = row
    return rows


def _draw(makes: tuple[Make, ...], keys: np.ndarray) -> np.ndarray:
    edges = np.cumsum([make.share for make in makes])[:-1]
    which = np.searchsorted(edges, uniform(keys, "make"), side="right")
    columns = np.full((len(Device._fields), len(keys)), np.nan)
    scores = {
        name: _normal(keys, purpose)
        for name, purpose in (
            ("flops", "speed"),
            ("down_bytes_per_s", "link"),
            ("up_bytes_per_s", "link"),
            ("latency_s", "latency"),
            ("memory_bytes", "memory"),
        )
    }
    for field, name in enumerate(Device._fields):
        if name in scores:
            medians, sigmas = np.array([getattr(make, name) for make in makes]).T
            columns[field] = medians[which] * np.exp(sigmas[which] * scores[name])
        elif name == "dropout":
            means = np.array([make.dropout for make in makes])
            columns[field] = means[which] * (0.75 + 0.5 * uniform(keys, "dropout"))
    return columns


def _normal(keys: np.ndarray, purpose: str) -> np.ndarray:
    """Return a standard normal number for each key (Box and Muller, 1958)."""
    radius = np.sqrt(-2 * np.log1p(-uniform(keys, purpose)))
    normal: np.ndarray = radius * np.cos(2 * np.pi * uniform(keys, purpose, 1))
    return normal


def keys_of(ids: Sequence[ClientId], seed: int) -> np.ndarray:
    """Return the key of each client's device, (clients,), uint64."""
    base = np.uint64(rng.derive(seed, purpose="fleet"))
    labels = np.fromiter((rng.label(client) for client in ids), np.uint64, len(ids))
    return rng.mix_array(base ^ labels)
