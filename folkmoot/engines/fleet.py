"""A fleet of devices: who can be asked when, and how long an answer takes.

`Fleet` is what a user gives. `Fleet.roster` binds it to a population.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.core.engine import ClientId
from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.engines.availability import Always, Availability, Intervals, check, phases
from folkmoot.engines.devices import (
    PHONES,
    Devices,
    Table,
    check_device,
    check_makes,
    columns_of,
    deal,
    keys_of,
)
from folkmoot.engines.roster import Presence, Roster
from folkmoot.engines.traces import read_devices, read_windows

MEMORY_FACTOR = 4
"""Training holds the broadcast, the model, its gradient and its optimizer's state; activations
come on top, and are not counted."""


@dataclass(frozen=True, eq=False)
class Fleet:
    """The devices of a population, for `fm.run(..., fleet=...)`.

        fm.Fleet("trace.csv", devices=fm.Device(flops=5e9, down_bytes_per_s=1e6, latency_s=0.05))

    Args:
        trace: When devices can be asked: a CSV file `device,start_s,end_s`, or a kind from
            `folkmoot.engines.availability`. None is always.
        devices: One `Device` for all, a dict with one for each client, or a CSV file with the
            fields of `Device` as columns. None is the devices of `fm.fleets.phones()`.
        repeat_s: Seconds after which a CSV trace begins again; None is its last end, infinity is
            never.
        name: What reports call it; None is the file's name.

    The devices of a file are dealt to clients by a hash of (seed, client id). A client whose id is
    the name of a device gets that one.

    Raises:
        DataError: If a file cannot be used; the sentence names the line.
        SettingsError: If a number is out of its range.
    """

    trace: str | Path | Availability | None = field(default=None, repr=False)
    devices: str | Path | Devices | None = field(default=None, repr=False)
    repeat_s: float | None = None
    name: str | None = None
    availability: Availability = field(init=False, repr=False)
    """What `trace` says, read."""
    table: Devices = field(init=False, repr=False)
    """What `devices` says, read."""

    def __post_init__(self) -> None:
        if isinstance(self.trace, str | Path):
            if self.repeat_s is not None and self.repeat_s != math.inf:
                positive(repeat_s=self.repeat_s)
            availability: Availability = read_windows(self.trace, self.repeat_s)
        elif self.repeat_s is not None:
            raise SettingsError(
                f"repeat_s={self.repeat_s} says when a CSV trace begins again, but no such trace "
                "was given. Leave it out."
            )
        else:
            availability = Always() if self.trace is None else self.trace
        if not isinstance(availability, Availability):
            raise SettingsError(
                f"trace must be a CSV file or an availability, but is {availability!r}. Use a "
                "preset such as fm.fleets.phones() for a fleet that is drawn."
            )
        check(availability)
        object.__setattr__(self, "availability", availability)
        object.__setattr__(self, "table", _read(self.devices))
        if self.name is None:
            name = Path(self.trace).name if isinstance(self.trace, str | Path) else "fleet"
            object.__setattr__(self, "name", name)

    def roster(
        self,
        ids: Sequence[ClientId],
        *,
        seed: int,
        flops_per_example: float | None,
        model_bytes: float,
    ) -> Roster:
        """Bind the fleet to a population.

        Args:
            ids: The clients; a client's place in it is how the roster calls it.
            seed: The run's.
            flops_per_example: Floating operations that training takes for one example, forward
                and backward; None where all devices say examples_per_s.
            model_bytes: The model's size; training takes `MEMORY_FACTOR` times as much.

        Raises:
            SettingsError: If a client has no device, or a device's speed cannot be told.
        """
        not_negative(model_bytes=model_bytes)
        keys = keys_of(ids, seed)
        # Copies, as a view would keep all columns alive.
        columns = (column.copy() for column in columns_of(self.table, ids, keys))
        flops, speed, down, up, latency, memory, dropout = columns
        if flops_per_example is None and np.isnan(speed).any():
            raise SettingsError(
                "flops_per_example is unknown, but the fleet's devices say flops. Give devices "
                "with examples_per_s, or count the operations of the model."
            )
        if flops_per_example is not None:
            positive(flops_per_example=flops_per_example)
            speed = np.where(np.isnan(speed), flops / flops_per_example, speed)
        fits = memory >= MEMORY_FACTOR * model_bytes
        return Roster(keys, fits, 1 / speed, down, up, latency, dropout, self._bind(ids, keys))

    def _bind(self, ids: Sequence[ClientId], keys: np.ndarray) -> Presence:
        kind = self.availability
        if isinstance(kind, Always):
            return Presence(kind, keys, np.zeros(0, np.float64))
        if isinstance(kind, Intervals):
            return Presence(kind, keys, deal(kind.names, ids, keys))
        return Presence(kind, keys, phases(kind, keys))


def _read(devices: Any) -> Devices:
    if devices is None:
        return (PHONES,)
    if isinstance(devices, str | Path):
        return read_devices(devices)
    if isinstance(devices, Table):
        return devices
    if isinstance(devices, Mapping):
        for client, device in devices.items():
            check_device(device, f"The device of client {client!r}")
    elif type(devices) is tuple:
        check_makes(devices)
    else:
        check_device(devices, "devices=")
    return devices
