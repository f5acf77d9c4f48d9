"""Ways to train beside each other, over seeds: a table of means with 95 % intervals, and a picture.

An interval is Student's (1908): mean plus and minus t times the deviation by the root of the number
of seeds. It speaks of seeds alone, on the same clients and the same test: two ways whose intervals
touch may still differ seed by seed, which `table.gap` tells.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from folkmoot.core.errors import SettingsError
from folkmoot.train.panels import CLIENTS, HELD_OUT, INK, LINE, MUTED
from folkmoot.train.plot import draw_panel, write_picture
from folkmoot.train.words import number, plural

Way = Callable[[int], Mapping[str, float]]
"""From a seed to what it gave: numbers by name, such as accuracy, epsilon, megabytes."""

_QUANTILES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t that 97.5 % lie below, by degrees of freedom from 1 on, rounded up or to nearest."""


class Interval(NamedTuple):
    """A mean over seeds, and how far the true one may be from it, with 95 % confidence."""

    mean: float
    half_width: float
    """NaN of one seed, and where a value is a NaN or infinite."""

    def __str__(self) -> str:
        if math.isnan(self.half_width) or self.half_width == 0:
            return number(self.mean)
        return f"{number(self.mean)} ± {number(self.half_width)}"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Comparison:
    """What several ways gave for the same seeds. `print` it; `markdown()`, `plot(path)`."""

    seeds: tuple[int, ...]
    found: dict[str, dict[str, tuple[float, ...]]]
    """By way and by name: a value for each seed."""

    @property
    def names(self) -> list[str]:
        """What was measured, in the order in which it was first met."""
        return list(dict.fromkeys(name for values in self.found.values() for name in values))

    def interval(self, way: str, name: str) -> Interval:
        """Return a way's mean over seeds with its interval."""
        return interval(self._values(way, name))

    def gap(self, way: str, other: str, name: str) -> Interval:
        """Return how much more a way gives than another, paired seed by seed."""
        pairs = zip(self._values(way, name), self._values(other, name), strict=True)
        return interval([one - two for one, two in pairs])

    def _values(self, way: str, name: str) -> tuple[float, ...]:
        if way not in self.found:
            raise SettingsError(f"There is no way {way!r}; there are {_listed(self.found)}.")
        if name not in self.found[way]:
            raise SettingsError(f"{way!r} has no {name!r}; it has {_listed(self.found[way])}.")
        return self.found[way][name]

    def rows(self) -> list[list[str]]:
        """Return the table's cells: a heading, then a row a way; "–" where a way has no value."""
        cells = [
            [
                way,
                *(str(interval(values[name])) if name in values else "–" for name in self.names),
            ]
            for way, values in self.found.items()
        ]
        return [["", *self.names], *cells]

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, self._note()])

    def markdown(self) -> str:
        """Return the table as Markdown."""
        head, *rest = (f"| {' | '.join(row)} |" for row in self.rows())
        rule = "| --- " * (len(self.names) + 1) + "|"
        return "\n".join([head, rule, *rest, "", f"{self._note().capitalize()}."])

    def _note(self) -> str:
        if len(self.seeds) == 1:
            return "one seed, so nothing is known of the spread"
        return f"means over {plural(len(self.seeds), 'seed')}, with 95 % intervals"

    def plot(self, path: str | Path, name: str | None = None) -> Path:
        """Draw a dot for each way and seed, with the interval, and write it as PNG, SVG or PDF.

        Args:
            path: Where; its ending is the format.
            name: What is drawn; None is what was measured first.
        """
        shown = self.names[0] if name is None else name
        values = {way: had[shown] for way, had in self.found.items() if shown in had}
        if not values:
            raise SettingsError(f"No way has a {shown!r}; there are {_listed(self.names)}.")

        def draw(comparison: Comparison) -> Any:
            inches = (7.2, 0.42 * len(values) + 1.0)
            return draw_panel(inches, lambda axes: _dots(axes, values, shown))

        return write_picture(Path(path), self, draw)


def compare(ways: Mapping[str, Way], *, seeds: Iterable[int] = range(5)) -> Comparison:
    """Run each way with each seed, and lay what they give beside each other.

        table = fm.compare({"federated": federated, "pooled": pooled}, seeds=range(5))

    Args:
        ways: By name, a function from a seed to numbers by name. What a way has no number for
            stays out of its mapping, as the megabytes of training that sends nothing.
        seeds: Which; the same for all ways, so that they can be paired.

    Raises:
        SettingsError: If there is nothing to compare, a seed stands twice, a way is no function or
            gives no numbers, or names other things for one seed than for another.
    """
    if not isinstance(ways, Mapping) or not isinstance(seeds, Iterable):
        raise SettingsError(
            'compare() takes functions by name, {"federated": federated}, and seeds one by one, '
            f"seeds=range(5), but was given a {type(ways).__name__} and seeds={seeds!r}."
        )
    seeds = tuple(seeds)
    if not ways or not seeds:
        raise SettingsError("compare() needs at least one way and one seed.")
    if len(set(seeds)) < len(seeds):
        raise SettingsError(
            f"A seed stands twice in seeds={seeds!r}, so that one result would count as two and "
            "intervals would be too narrow. State each once."
        )
    for way, run in ways.items():
        if not callable(run):
            raise SettingsError(f"The way {way!r} must be a function of a seed, but is {run!r}.")
    found = {way: _over(way, run, seeds) for way, run in ways.items()}
    if not any(found.values()):
        raise SettingsError('No way gave a number. Return numbers by name: {"accuracy": 0.9}.')
    return Comparison(seeds=seeds, found=found)


def _over(way: str, run: Way, seeds: Sequence[int]) -> dict[str, tuple[float, ...]]:
    """Return a way's values for all seeds, by name."""
    rows = []
    for seed in seeds:
        row = run(seed)
        if not isinstance(row, Mapping):
            raise SettingsError(
                f"The way {way!r} gave {type(row).__name__} for seed {seed}, but must give numbers "
                'by name, such as {"accuracy": 0.9}.'
            )
        rows.append({name: _number(way, seed, name, value) for name, value in row.items()})
        if rows[0].keys() != rows[-1].keys():
            raise SettingsError(
                f"The way {way!r} gave {_listed(rows[-1])} for seed {seed}, but "
                f"{_listed(rows[0])} for seed {seeds[0]}. Give the same names for every seed."
            )
    return {name: tuple(row[name] for row in rows) for name in rows[0]}


def _number(way: str, seed: int, name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"The way {way!r} gave {name!r} as {value!r} for seed {seed}, which is no number. "
            "Leave out what was not measured, for all seeds."
        ) from error


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of values and half the width of its 95 % interval."""
    if not all(map(math.isfinite, values)):
        # A way that diverges is told as what it gave; Python's deviation knows no such numbers.
        return Interval(sum(values) / len(values), math.nan)
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Interval(mean, math.nan)
    freedom = len(values) - 1
    # Cornish and Fisher's first terms: beyond 30 they are right to the third decimal.
    beyond = 1.95996 + 2.37227 / freedom + 2.8225 / freedom**2
    quantile = _QUANTILES[freedom - 1] if freedom <= len(_QUANTILES) else beyond
    return Interval(mean, quantile * statistics.stdev(values) / math.sqrt(len(values)))


def _dots(axes: Any, values: Mapping[str, Sequence[float]], shown: str) -> None:
    for row, found in enumerate(values.values()):
        mean, half = interval(found)
        axes.plot(found, [row] * len(found), "o", color=HELD_OUT, alpha=0.35, markersize=5, mew=0)
        if not math.isnan(half):
            axes.plot([mean - half, mean + half], [row, row], color=CLIENTS, linewidth=1.6)
        axes.plot([mean], [row], "|", color=INK, markersize=13, markeredgewidth=1.8)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=MUTED)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(
        f"{shown}: each seed, the mean, its 95 % interval", loc="left", fontsize=10, color=INK
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
