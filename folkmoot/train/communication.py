"""What a run has cost beside arithmetic, in words: bytes, virtual time, and who was never heard."""

import math

from folkmoot.train.outcome import Outcome
from folkmoot.train.words import duration, number, plural, size


def traffic(outcome: Outcome) -> str:
    """Say how many bytes went up and down."""
    moved = outcome.traffic
    return f"{size(moved.upload_bytes)} up, {size(moved.download_bytes)} down"


def virtual_time(outcome: Outcome) -> str:
    """Say how long the fleet would have taken; nothing where there was none."""
    ends = [row["virtual_s"] for row in outcome.history if "virtual_s" in row]
    if not ends or not math.isfinite(ends[-1]):
        return ""
    took = sorted(row["round_s"] for row in outcome.history if "round_s" in row)
    middle = f", {duration(took[len(took) // 2])} a round (median)" if took else ""
    return f"{duration(ends[-1])} on the fleet's clock{middle}"


def heard(outcome: Outcome) -> str:
    """Say how much of the population the model knows of; nothing where that was not counted."""
    silent = outcome.never_heard
    if silent is None:
        return ""
    population = len(outcome.roll.ids) if outcome.roll else 0
    told = f"{population - len(silent.clients):,} of {plural(population, 'client')}"
    if not silent.clients:
        return f"all of {plural(population, 'client')}"
    lost = len(silent.clients) - silent.unasked
    parts = [
        f"{count:,} {'was' if count == 1 else 'were'} {what}"
        for count, what in ((silent.unasked, "never asked"), (lost, "asked in vain"))
        if count
    ]
    return f"{told}; {' and '.join(parts)}"


def centralising(outcome: Outcome) -> str:
    """Compare bytes and work with those of sending every client's examples to one place, once."""
    data = outcome.settings.get("data_bytes")
    moved = sum(outcome.traffic)
    parts = []
    if data:
        parts.append(
            f"all examples have {size(data)}, once; this run moved {size(moved)}, "
            f"{_times(moved / data)} as much"
        )
    if outcome.passes is not None:
        parts.append(
            f"clients went through all examples {_times(outcome.passes)}; in one place, that work "
            "would be the server's"
        )
    return "\n".join(parts)


def _times(ratio: float) -> str:
    """Write a factor with few digits: 0.012 times, 13 times."""
    return f"{number(ratio)} times" if ratio < 0.001 else f"{ratio:,.3g} times"
