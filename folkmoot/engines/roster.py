"""A fleet bound to a population: arrays over its places, and what they say of any moment.

All that a roster says is a pure function of (seed, client id, time): neither the order of questions
nor who else is in the population changes it. What it remembers between questions only saves work.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from folkmoot.core import rng
from folkmoot.core.errors import SettingsError
from folkmoot.engines import availability as when
from folkmoot.engines.availability import Always, Availability, Intervals, Windows

UNBOUNDED = 2**63 - 1
"""What `examples_until` says where nothing ends the work."""


class Attempt(NamedTuple):
    """What becomes of one request; the times it does not reach are infinite."""

    asked_s: float
    received_s: float
    """The broadcast has arrived."""
    trained_s: float
    ended_s: float
    """The answer has arrived, or the device is lost."""
    reason: str | None
    """Why there is no answer, as part of a sentence; None where it has arrived."""


class Presence:
    """The windows of a population, with those of the last moment asked for kept at hand."""

    def __init__(self, kind: Availability, keys: np.ndarray, own: np.ndarray):
        self.kind, self.keys, self.own = kind, keys, own
        self.as_of, self.opens, self.closes = math.inf, np.zeros(0), np.zeros(0)

    def at(self, t_s: float) -> Windows:
        """Return the first window of everyone that closes after t; to be read only."""
        _check_time(t_s)
        if t_s < self.as_of:
            self.opens, self.closes = self._windows(np.arange(len(self.keys)), t_s)
        elif len(stale := np.flatnonzero(self.closes <= t_s)):
            self.opens[stale], self.closes[stale] = self._windows(stale, t_s)
        self.as_of = t_s
        return self.opens, self.closes

    def of(self, place: int, t_s: float) -> tuple[float, float]:
        """Return the first window of one device that closes after t."""
        if t_s == math.inf:
            return math.inf, math.inf
        if self.as_of <= t_s < self.closes[place]:
            return float(self.opens[place]), float(self.closes[place])
        _check_time(t_s)
        opens, closes = self._windows(np.array([place]), t_s)
        return float(opens[0]), float(closes[0])

    def _windows(self, places: np.ndarray, t_s: float) -> Windows:
        times = np.full(len(places), t_s, dtype=np.float64)
        if isinstance(self.kind, Always):
            return np.full(len(places), -np.inf), np.full(len(places), np.inf)
        if isinstance(self.kind, Intervals):
            return when.recorded(self.kind, self.own[places], times)
        return when.drawn(self.kind, self.keys[places], self.own[places], times)


_DROPS, _DROPS_AT = rng.label("drops out"), rng.label("drops out at")


def _chance(key: int, purpose: int, index: int) -> float:
    """Return what `availability.uniform` gives for one key, many times faster."""
    mixed = rng.mix(key ^ purpose)
    return ((rng.mix(mixed ^ index) if index else mixed) >> 11) * 2.0**-53


def _check_time(t_s: float) -> None:
    if not -math.inf < t_s < math.inf:
        raise SettingsError(f"A time must be finite, but is {t_s!r}.")


@dataclass(frozen=True, eq=False)
class Roster:
    """A population's devices: arrays over places 0 to N - 1, in the order of the ids.

    Windows are half open: a device is there at the second when one opens, and gone when it closes.
    """

    keys: np.ndarray
    fits: np.ndarray
    """(N,), bool: memory suffices for training."""
    example_s: np.ndarray
    """(N,): seconds that one example takes."""
    down_bytes_per_s: np.ndarray
    up_bytes_per_s: np.ndarray
    latency_s: np.ndarray
    dropout: np.ndarray
    presence: Presence

    def __len__(self) -> int:
        return len(self.keys)

    def available(self, t_s: float) -> np.ndarray:
        """Return who can be asked at t, (N,), bool, whether the model fits or not."""
        opens, _ = self.presence.at(t_s)
        there: np.ndarray = opens <= t_s
        return there

    def is_available(self, place: int, t_s: float) -> bool:
        """Return whether one device can be asked at t."""
        return self.presence.of(place, t_s)[0] <= t_s

    def until(self, place: int, t_s: float) -> float:
        """Return when the present window closes: infinity is never; t itself if there is none."""
        opens, closes = self.presence.of(place, t_s)
        return closes if opens <= t_s else t_s

    def next_start(self, place: int, t_s: float) -> float:
        """Return when the next window opens, at t or later; infinity is never again.

        A window that is open at t and opened before is not the next one.
        """
        opens, closes = self.presence.of(place, t_s)
        return opens if opens >= t_s else self.presence.of(place, closes)[0]

    def coming(self, t_s: float) -> float:
        """Return when the next device comes that fits and is not there at t; infinity is never."""
        opens, _ = self.presence.at(t_s)
        later = self.fits & (opens > t_s)
        return float(np.min(opens, where=later, initial=math.inf))

    def expected_s(
        self, examples: float | np.ndarray, down_bytes: float, up_bytes: float
    ) -> np.ndarray:
        """Return how long an attempt takes that nothing disturbs, (N,), in seconds."""
        transfer = down_bytes / self.down_bytes_per_s + up_bytes / self.up_bytes_per_s
        took: np.ndarray = 2 * self.latency_s + transfer + examples * self.example_s
        return took

    def attempt(
        self,
        place: int,
        t_s: float,
        *,
        number: int,
        examples: float,
        down_bytes: float,
        up_bytes: float,
    ) -> Attempt:
        """Ask one device at t: latency and download, training, latency and upload.

        Args:
            place: The device.
            t_s: When it is asked.
            number: Which request to this client it is in the run; draws whether it drops out, and
                after which part of its time.
            examples: How many it trains, counted once for each pass.
            down_bytes: Size of the broadcast.
            up_bytes: Size of the answer.
        """
        if not self.fits[place]:
            return Attempt(t_s, math.inf, math.inf, t_s, "the model does not fit into its memory")
        if not self.is_available(place, t_s):
            return Attempt(t_s, math.inf, math.inf, t_s, "it was offline when it was asked")
        received, trained, ended = self._times(place, t_s, examples, down_bytes, up_bytes)
        closes, key = self.until(place, t_s), int(self.keys[place])
        lost, what = (closes, "went offline") if closes < ended else (math.inf, "")
        if _chance(key, _DROPS, number) < self.dropout[place]:
            drops = t_s + _chance(key, _DROPS_AT, number) * (ended - t_s)
            lost, what = (drops, "dropped out") if drops < lost else (lost, what)
        if lost == math.inf:
            return Attempt(t_s, received, trained, ended, None)
        doing = "received the model" if lost < received else "trained"
        doing = "sent its answer" if lost >= trained else doing
        received, trained = (time if time <= lost else math.inf for time in (received, trained))
        reason = f"it {what} at {lost:,.0f} s while it {doing}"
        return Attempt(t_s, received, trained, lost, reason)

    def examples_until(
        self, place: int, t_s: float, deadline_s: float, down_bytes: float, up_bytes: float
    ) -> int:
        """Return how many examples it can train if asked at t, to answer by the deadline.

        The answer arrives in its window, too. 0 where not even an answer without training does, or
        the device cannot be asked. `UNBOUNDED` where neither deadline nor window ends.
        """
        end = min(deadline_s, self.until(place, t_s))
        if not (self.fits[place] and self.is_available(place, t_s)):
            return 0
        each = float(self.example_s[place])
        if end == math.inf:
            return UNBOUNDED

        def in_time(examples: int) -> bool:
            return self._times(place, t_s, examples, down_bytes, up_bytes)[2] <= end

        left = end - self._times(place, t_s, 0, down_bytes, up_bytes)[2]
        count = max(0, math.floor(min(left / max(each, math.ulp(0.0)), UNBOUNDED // 2)))
        # Rounding may be one off; what counts is when the answer arrives.
        count += in_time(count + 1)
        return max(0, count if in_time(count) else count - 1)

    def _times(
        self, place: int, t_s: float, examples: float, down_bytes: float, up_bytes: float
    ) -> tuple[float, float, float]:
        latency = float(self.latency_s[place])
        received = t_s + latency + down_bytes / float(self.down_bytes_per_s[place])
        trained = received + examples * float(self.example_s[place])
        return received, trained, trained + latency + up_bytes / float(self.up_bytes_per_s[place])
