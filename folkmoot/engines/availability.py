"""When devices can be asked: always, at night, now and then, or as a trace has recorded it.

Every kind answers one question, without state and in any order: which is the first window of these
devices that closes after these times? A window [opens, closes) of a drawn kind follows from an
integer hash of (the device's key, the number of the slot): time is cut into slots, at most one
window lies in each, and two windows never touch. Times are seconds from the start of the run, which
is midnight in the middle of the time zones.
"""

from typing import NamedTuple

import numpy as np

from folkmoot.core import rng
from folkmoot.core.errors import SettingsError, not_negative, positive

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SEAM_S = 1.0
"""Seconds at both ends of a slot without a window, so that rounding cannot choose another slot."""
LEAST_CHANCE = 0.001
_HABIT_S = 6 * HOUR_S  # From the start of a night's slot to the device's usual hour.
_ROOM_S = DAY_S - _HABIT_S - SEAM_S


class Always(NamedTuple):
    """Every device can be asked at any time."""


class Nightly(NamedTuple):
    """A phone that is charged once a day: most at night, some at an hour of their own.

    A share `nights` of the devices has its habit around `evening` in local time, triangular over 3
    hours to either side; the habits of the others lie anywhere in the day. Each day a window opens
    with probability `chance`, up to 1.5 hours before or after the habit, and lasts `mean_s` times a
    uniform number in [0.5, 1.5].
    """

    nights: float = 0.5
    evening: float = 22.5
    """Hour of the day, 0 to 24."""
    mean_s: float = 7 * HOUR_S
    chance: float = 0.6
    zones: tuple[float, ...] = (-1.5, -0.5, 0.5, 1.5)
    """Hours by which local clocks are ahead of the run's; each as likely as the others."""


class Sessions(NamedTuple):
    """A browser that is open for minutes: in every slot at most one session, at a random time.

    Durations are Weibull, cut at half a slot. Slots of two devices do not begin together.
    """

    slot_s: float = 4 * HOUR_S
    chance: float = 0.5
    """Probability that a slot has a session."""
    median_s: float = 300.0
    shape: float = 0.8
    """Below 1, who has stayed long stays longer; 1 is exponential."""


class Upkeep(NamedTuple):
    """A machine that is always on, but for one outage in every slot.

    An outage lasts `away_s` times a uniform number in [0.5, 1.5].
    """

    slot_s: float = 7 * DAY_S
    away_s: float = 4 * HOUR_S


class Intervals(NamedTuple):
    """Recorded windows of named devices, which repeat after a period."""

    names: tuple[str, ...]
    """Devices of the trace, ascending."""
    first: np.ndarray
    """(devices + 1,): the windows of device i are first[i] to first[i + 1]."""
    opens: np.ndarray
    """(windows,), seconds: ascending and disjoint within a device, which no two windows touch."""
    closes: np.ndarray
    period_s: np.ndarray
    """(devices,): what is recorded begins again after so long; infinity is never. One window may
    close after the period: it goes on in the next one."""


Drawn = Nightly | Sessions | Upkeep
Availability = Always | Drawn | Intervals
Windows = tuple[np.ndarray, np.ndarray]
"""When each opens and closes; infinity where there is none."""


def uniform(keys: np.ndarray, purpose: str, index: np.ndarray | int = 0) -> np.ndarray:
    """Return a number in [0, 1) for each key, by purpose and index; no order, no state."""
    mixed = rng.mix_array(keys ^ np.uint64(rng.label(purpose)))
    if np.ndim(index) or index:
        mixed = rng.mix_array(mixed ^ np.asarray(index).astype(np.uint64))
    return (mixed >> np.uint64(11)) * 2.0**-53


def check(kind: Availability) -> None:
    """Refuse numbers that describe no windows.

    Raises:
        SettingsError: If a chance or a duration is out of its range; it says which range.
    """
    match kind:
        case Nightly():
            positive(mean_s=kind.mean_s)
            _share("nights", kind.nights, 0)
            _share("chance", kind.chance, LEAST_CHANCE)
            if 1.5 * (kind.mean_s + HOUR_S) > _ROOM_S:
                raise SettingsError(
                    f"A night of {kind.mean_s / HOUR_S:g} hours on average may run into the next "
                    "one. Use at most 10.9 hours."
                )
            if not kind.zones or not np.isfinite([kind.evening, *kind.zones]).all():
                raise SettingsError(
                    f"evening={kind.evening} and zones={kind.zones} must be finite hours, and at "
                    "least one zone. Use zones=(0,) for one."
                )
        case Sessions():
            positive(slot_s=kind.slot_s, median_s=kind.median_s, shape=kind.shape)
            _share("chance", kind.chance, LEAST_CHANCE)
            if kind.slot_s < 60:
                raise SettingsError(f"slot_s={kind.slot_s:g} is too short; use at least 60 s.")
        case Upkeep():
            positive(slot_s=kind.slot_s)
            not_negative(away_s=kind.away_s)
            if 1.5 * kind.away_s > kind.slot_s / 2:
                raise SettingsError(
                    f"Outages of {kind.away_s:g} s fill slots of {kind.slot_s:g} s. Use at most a "
                    "third of a slot."
                )


def phases(kind: Drawn, keys: np.ndarray) -> np.ndarray:
    """Return when slot 0 of each device begins, in seconds, (devices,)."""
    own = uniform(keys, "phase")
    if not isinstance(kind, Nightly):
        return -own * kind.slot_s
    around = (own + uniform(keys, "phase", 1) - 1) * 3 * HOUR_S + kind.evening * HOUR_S
    by_night = uniform(keys, "by night") < kind.nights
    zone = np.asarray(kind.zones)[(uniform(keys, "zone") * len(kind.zones)).astype(np.int64)]
    habit: np.ndarray = np.where(by_night, around, own * DAY_S)
    return habit - zone * HOUR_S - _HABIT_S


def drawn(kind: Drawn, keys: np.ndarray, phase: np.ndarray, t_s: np.ndarray) -> Windows:
    """Return the first window of each device that closes after its time.

    Args:
        kind: What draws the windows.
        keys: The devices' keys, (devices,), uint64.
        phase: What `phases` said of them, (devices,).
        t_s: A time for each, (devices,), finite.
    """
    slot_s = DAY_S if isinstance(kind, Nightly) else kind.slot_s
    slot = np.floor((t_s - phase) / slot_s).astype(np.int64)
    opens, closes = np.full(len(keys), np.inf), np.full(len(keys), np.inf)
    left = np.arange(len(keys))
    while len(left):
        there, start_s, end_s = _in_slot(kind, keys[left], slot[left])
        begin = phase[left] + slot[left] * slot_s
        found = there & (begin + end_s > t_s[left])
        opens[left[found]] = (begin + start_s)[found]
        closes[left[found]] = (begin + end_s)[found]
        left = left[~found]
        slot[left] += 1
    return opens, closes


def _in_slot(kind: Drawn, keys: np.ndarray, slot: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return whether each slot has a window, and where in the slot it opens and closes."""
    where = uniform(keys, "window", slot)
    size = uniform(keys, "length", slot)
    if isinstance(kind, Upkeep):
        start = SEAM_S + kind.away_s * (0.5 + size)
        return np.ones(len(keys), bool), start, np.full(len(keys), kind.slot_s - SEAM_S)
    there = uniform(keys, "there", slot) < kind.chance
    if isinstance(kind, Nightly):
        start = _HABIT_S + (2 * where - 1) * 1.5 * HOUR_S
        return there, start, start + kind.mean_s * (0.5 + size)
    scale = kind.median_s / np.log(2) ** (1 / kind.shape)
    length = np.minimum(scale * (-np.log1p(-size)) ** (1 / kind.shape), kind.slot_s / 2)
    start = SEAM_S + where * (kind.slot_s - length - 2 * SEAM_S)
    return there, start, start + length


def recorded(trace: Intervals, rows: np.ndarray, t_s: np.ndarray) -> Windows:
    """Return the first window of each device that closes after its time.

    Args:
        trace: The windows.
        rows: Which of the trace's devices each is, (devices,).
        t_s: A time for each, (devices,), finite.
    """
    low, period = trace.first[rows], trace.period_s[rows]
    count = trace.first[rows + 1] - low
    repeats = np.isfinite(period) & (count > 0)
    cycle = np.floor(np.divide(t_s, period, out=np.zeros(len(rows)), where=repeats))
    step = np.where(repeats, period, 0.0)

    def window(number: np.ndarray) -> Windows:
        """The windows of all cycles are numbered through."""
        there = repeats | ((number >= 0) & (number < count))
        turn, place = np.divmod(number, np.maximum(count, 1))
        begin, place = turn * step, np.where(there, low + place, 0)
        opens = np.where(there, begin + trace.opens[place], np.inf)
        return opens, np.where(there, begin + trace.closes[place], np.inf)

    place = _first_after(trace.closes, low, low + count, t_s - cycle * step) - low
    number = cycle.astype(np.int64) * count + place
    # A window may lie across the period's end, and rounding may have chosen a neighbour: what
    # counts is when it closes, in the run's own time.
    number -= (repeats | (number > 0)) & (window(number - 1)[1] > t_s)
    number += window(number)[1] <= t_s
    return window(number)


def _first_after(
    closes: np.ndarray, low: np.ndarray, high: np.ndarray, t_s: np.ndarray
) -> np.ndarray:
    """Return the first place in [low, high) of each whose window closes after its time, or high."""
    while (between := low < high).any():
        middle = (low + high) // 2
        later = closes[np.minimum(middle, len(closes) - 1)] > t_s
        low, high = (
            np.where(between & ~later, middle + 1, low),
            np.where(between & later, middle, high),
        )
    return low


def _share(name: str, value: float, least: float) -> None:
    if not least <= value <= 1:
        raise SettingsError(f"{name} must be a probability in [{least:g}, 1], but is {value!r}.")
