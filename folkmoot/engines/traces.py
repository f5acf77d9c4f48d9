"""Read who was there when, and with which device, from files.

Two forms. Ours is CSV with a header: `device,start_s,end_s` for windows, and for devices the fields
of `Device` after their name. FedScale's (Lai et al., ICML 2022, arXiv:2105.11367) is a dictionary
by client, which they keep as a pickle; we read the same dictionary as JSON, as loading a pickle
runs what is in it.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.core.errors import DataError
from folkmoot.engines.availability import Intervals
from folkmoot.engines.devices import Device, Table, fault

WINDOWS = ("device", "start_s", "end_s")
DEVICES = ("device", *Device._fields)
ABSENT = {"flops": math.nan, "examples_per_s": math.nan, "memory_bytes": math.inf, "dropout": 0.0}
"""What an empty field of a device means; the others must not be empty."""


def read_windows(path: str | Path, repeat_s: float | None = None) -> Intervals:
    """Read an availability trace: one line a window, `device,start_s,end_s`, in any order.

    Args:
        path: The file.
        repeat_s: Seconds after which the trace begins again; None is the last end in the file,
            infinity is never.

    Raises:
        DataError: If the file cannot be used; the sentence names file and line.
    """
    path = Path(path)
    found: dict[str, list[tuple[float, float, int]]] = {}
    for line, row in _rows(path, WINDOWS):
        start, end = (_number(path, line, name, row[name]) for name in WINDOWS[1:])
        if not 0 <= start < end < math.inf:
            raise DataError(
                f"{path}, line {line}: a window from {start:g} to {end:g} s. It must begin at 0 or "
                "later and end after it begins."
            )
        found.setdefault(row["device"], []).append((start, end, line))
    for device, windows in found.items():
        windows.sort()
        for (_, end, line), (start, _, next_line) in pairwise(windows):
            if start < end:
                raise DataError(
                    f"{path}, lines {line} and {next_line}: device {device!r} has two windows that "
                    f"overlap, one until {end:g} s, one from {start:g} s. Write them as one."
                )
    last = max(end for windows in found.values() for _, end, _ in windows)
    period = last if repeat_s is None else repeat_s
    if period < last:
        raise DataError(
            f"{path} records windows until {last:g} s, which is after repeat_s={period:g}. Repeat "
            "no sooner than the trace ends, or cut the trace."
        )
    return intervals((device, [row[:2] for row in found[device]], period) for device in found)


def read_devices(path: str | Path) -> Table:
    """Read a table of devices: one line a device, with the fields of `Device` as columns.

    An empty flops or examples_per_s means that the other one counts; an empty memory_bytes is no
    limit, and an empty dropout 0.

    Raises:
        DataError: If the file cannot be used; the sentence names file and line.
    """
    path = Path(path)
    found: dict[str, list[float]] = {}
    lines: dict[str, int] = {}
    for line, row in _rows(path, DEVICES):
        name = row["device"]
        values = [
            ABSENT[field]
            if not row[field] and field in ABSENT
            else _number(path, line, field, row[field])
            for field in Device._fields
        ]
        for field, value in zip(Device._fields, values, strict=True):
            if row[field] and (wanted := fault(field, value)):
                raise DataError(f"{path}, line {line}: {field} is {value:g}, but must be {wanted}.")
        if math.isnan(values[0]) == math.isnan(values[1]):
            raise DataError(
                f"{path}, line {line}: exactly one of flops and examples_per_s must be given. "
                "Leave the other one empty."
            )
        if name in found:
            raise DataError(
                f"{path}, lines {lines[name]} and {line}: device {name!r} stands there twice. Keep "
                "one line."
            )
        found[name], lines[name] = values, line
    return _table(found)


def read_behaviour(path: str | Path) -> Intervals:
    """Read FedScale's availability trace, exported as JSON.

    A client is there from `active[i]` to `inactive[i]`, again after each `finish_time`. Windows
    that overlap or meet become one; windows of no length are left out.

    Raises:
        DataError: If the file cannot be used; the sentence names file and client.
    """
    path, devices = Path(path), []
    for name, entry in _clients(path).items():
        starts, ends, finish = _fields(path, name, entry, "active", "inactive", "finish_time")
        if not _numbers([finish]) or finish <= 0:
            raise _broken(path, name, f"finish_time is {finish!r}, not a number above 0")
        if not _numbers(starts) or not _numbers(ends) or len(starts) != len(ends):
            raise _broken(path, name, "active and inactive are not lists of equally many numbers")
        backwards = [pair for pair in zip(starts, ends, strict=True) if pair[1] < pair[0]]
        if backwards:
            raise _broken(path, name, f"it is active from {backwards[0][0]} to {backwards[0][1]}")
        inside = ((max(a, 0), min(b, finish)) for a, b in zip(starts, ends, strict=True))
        devices.append((name, sorted(pair for pair in inside if pair[0] < pair[1]), float(finish)))
    return intervals(devices)


def read_capacity(path: str | Path, reference_flops: float | None = None) -> Table:
    """Read FedScale's trace of devices, exported as JSON.

    `computation` is the milliseconds that inference of one example takes. As in FedScale, training
    takes three times as long. `communication` is kilobits a second, both ways.

    Args:
        path: The file.
        reference_flops: Floating operations that training takes for one example of the model that
            was timed; devices then have flops. None is the speed in examples, whatever the model.

    Raises:
        DataError: If the file cannot be used; the sentence names file and client.
    """
    path, found = Path(path), {}
    for name, entry in _clients(path).items():
        both = _fields(path, name, entry, "computation", "communication")
        if not _numbers(both) or min(both) <= 0:
            raise _broken(path, name, f"computation and communication are {both}, not above 0")
        speed, link = 1000 / (3 * both[0]), both[1] * 1000 / 8
        device = Device(
            flops=None if reference_flops is None else speed * reference_flops,
            examples_per_s=speed if reference_flops is None else None,
            down_bytes_per_s=link,
            up_bytes_per_s=link,
        )
        found[name] = [math.nan if value is None else value for value in device]
    return _table(found)


def intervals(devices: Iterable[tuple[str, list[tuple[float, float]], float]]) -> Intervals:
    """Pack (name, windows in ascending order, period) into arrays; windows that meet become one."""
    names, periods, counts, packed = [], [], [], []
    for name, windows, period in sorted(devices):
        merged = _merged(windows)
        if merged and merged[0][0] == 0 and merged[-1][1] == period:
            # The last window goes on where the trace begins again.
            start, _ = merged.pop()
            if merged:
                merged = [*merged[1:], (start, period + merged[0][1])]
            else:
                merged, period = [(0.0, math.inf)], math.inf
        names.append(name)
        periods.append(period)
        counts.append(len(merged))
        packed.extend(merged)
    # One entry that is never meant keeps lookups in range where nobody has a window.
    opens, closes = np.array(packed or [(math.inf, math.inf)], dtype=np.float64).T
    first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return Intervals(tuple(names), first, opens.copy(), closes.copy(), np.array(periods))


def _merged(windows: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in windows:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _table(found: dict[str, list[float]]) -> Table:
    names = sorted(found)
    return Table(tuple(names), np.array([found[name] for name in names], dtype=np.float64).T)


def _rows(path: Path, header: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, fields by column) of a CSV file with exactly this header."""
    reader = csv.reader(_text(path).splitlines())
    wanted, found = ",".join(header), ",".join(next(reader, []))
    if found.replace(" ", "") != wanted:
        raise DataError(f"{path}, line 1: the header must be {wanted!r}, but is {found!r}.")
    empty = True
    for fields in reader:
        if not fields:
            continue
        if len(fields) != len(header) or not fields[0].strip():
            raise DataError(
                f"{path}, line {reader.line_num}: {fields} are not the {len(header)} fields "
                f"{wanted}, of which the first names a device. Quote what holds a comma."
            )
        empty = False
        yield reader.line_num, dict(zip(header, (field.strip() for field in fields), strict=True))
    if empty:
        raise DataError(f"{path} has a header but no device. Write one line a device or window.")


def _number(path: Path, line: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise DataError(
            f"{path}, line {line}: {name} is {text!r}, not a number. Write it like 0.25 or 1e9."
        )
    return value


def _clients(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON: {error}. Export FedScale's dictionary with json.dump."
        ) from error
    if not isinstance(found, dict) or not found:
        raise DataError(f"{path} must hold a dictionary by client that is not empty.")
    return found


def _fields(path: Path, client: str, entry: Any, *names: str) -> list[Any]:
    if not isinstance(entry, dict) or not set(names) <= set(entry):
        raise _broken(path, client, f"it must have {', '.join(names)}, but is {str(entry)[:80]}")
    return [entry[name] for name in names]


def _broken(path: Path, client: str, what: str) -> DataError:
    return DataError(f"{path}, client {client!r}: {what}. Export FedScale's dictionary unchanged.")


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    )


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        advice = (
            "A pickle is never loaded: fm.fleets.fedscale says how to export it."
            if isinstance(error, UnicodeDecodeError)
            else "Check the path."
        )
        raise DataError(f"{path} cannot be read: {error}. {advice}") from error
