"""How numbers are written in reports: metrics, bytes, seconds, counts."""

import math


def number(value: float) -> str:
    """Write a metric: four decimals, or four digits where that would hide it."""
    if not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "NaN")
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.4g}"


def size(amount: float) -> str:
    """Write bytes in powers of 1,000: 999 B, 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return (
                f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"
            )
        amount /= 1000
    return f"{amount:,.1f} TB"


def duration(seconds: float) -> str:
    """Write seconds as people do: 0.25 s, 12.3 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def plural(amount: int, what: str) -> str:
    """Write a count with its noun: 1 client, 2 clients."""
    return f"{amount:,} {what}{'' if amount == 1 else 's'}"
