"""The report of a check: facts as fields, faults as sentences, and a calm table to print."""

import statistics
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from folkmoot.core.engine import ClientId
from folkmoot.train.census import Fault, Held, spelled
from folkmoot.train.summary import duration, plural, size

_MOST_OF_A_KIND = 3
_WIDTH = 80
_LABEL_WIDTH = 10


class Cost(NamedTuple):
    """What the run would cost: estimates, from a few steps of a few clients on this machine."""

    probed: tuple[ClientId, ...]
    """The clients that did them."""
    streams: int
    """Clients that are trained at the same time."""
    round_s: float
    evaluation_s: float
    total_s: float
    """All rounds and evaluations; beside that come importing, loading, and writing the result."""
    download_bytes: int
    """From the server to the clients, in a round."""
    upload_bytes: int
    """From the clients to the server, in a round."""
    model_bytes: int
    server_bytes: int
    """The algorithm's state, the broadcast, and the sums that are being made."""
    stream_bytes: int
    """One client at work: models, gradient, optimizer, one batch's activations, its examples."""


@dataclass(frozen=True, kw_only=True, repr=False)
class CheckReport:
    """What `check` found. Print it; `ok` says whether anything stands in the way."""

    algorithm: str
    rounds: int
    data: str = ""
    """Name of the data set."""
    clients: int = 0
    """The population."""
    looked_at: int = 0
    """Clients whose examples were loaded; their facts and faults are all that is known."""
    held: tuple[Held, ...] = ()
    """What those clients hold that can be used."""
    classes: int | None = None
    """Classes that the model has outputs for; None where it learns none."""
    non_iid: tuple[float, float] | None = None
    """Mean total variation distance of clients' labels to the pooled ones, and that by chance."""
    cohort: float | None = None
    """Clients asked in a round, on average; None where the settings are at fault."""
    evaluations: int = 0
    cost: Cost | None = None
    """None where not one client could do a step."""
    faults: tuple[Fault, ...] = ()
    """What stands in the way."""
    cautions: tuple[Fault, ...] = ()
    """What does not, but should be known."""

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.faults

    @property
    def problems(self) -> list[str]:
        """Everything that stands in the way, as sentences."""
        return [fault.sentence for fault in self.faults]

    @property
    def warnings(self) -> list[str]:
        """Everything else that should be known, as sentences."""
        return [fault.sentence for fault in self.cautions]

    @property
    def leaves(self) -> str:
        """The leaves of most clients' examples, with dtype and shape."""
        found = Counter(client.signature for client in self.held)
        return spelled(found.most_common(1)[0][0]) if found else ""

    def facts(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        rows = [client.rows for client in self.held]
        return {
            "ok": self.ok,
            "problems": self.problems,
            "warnings": self.warnings,
            "algorithm": self.algorithm,
            "rounds": self.rounds,
            "data": self.data,
            "clients": self.clients,
            "looked_at": self.looked_at,
            "examples": [min(rows), statistics.median(rows), max(rows)] if rows else None,
            "leaves": self.leaves,
            "classes": self.classes,
            "non_iid": list(self.non_iid) if self.non_iid else None,
            "cohort": self.cohort,
            "evaluations": self.evaluations,
            "cost": self.cost._asdict() if self.cost else None,
        }

    def __repr__(self) -> str:
        about = f"Check of {self.algorithm}" + (f" on {self.data}" if self.data else "")
        problems = plural(len(self.faults), "problem") if self.faults else "no problem"
        cautions = f", {plural(len(self.cautions), 'warning')}" if self.cautions else ""
        lines = [f"{about}: {problems}{cautions}"]
        table = [*_data_lines(self), *_cost_lines(self)]
        lines += [""] if table else []
        for label, text in table:
            lines += _wrapped(f"{label:{_LABEL_WIDTH}}", text)
        for title, faults in (("Problems", self.faults), ("Warnings", self.cautions)):
            if faults:
                lines += ["", title]
            for sentence in _folded(faults):
                lines += _wrapped("-", sentence)
        return "\n".join(lines).rstrip()


def _data_lines(report: CheckReport) -> list[tuple[str, str]]:
    """Say what clients hold."""
    if not report.clients:
        return []
    some = report.looked_at < report.clients
    looked_at = f", of which {report.looked_at:,} were looked at" if some else ""
    lines = [("clients", f"{report.clients:,}{looked_at}")]
    if not report.held:
        return lines
    rows = [client.rows for client in report.held]
    tests = sum(client.test_rows > 0 for client in report.held)
    with_tests = f"; {tests:,} have tests of their own" if tests else ""
    middle = f"{statistics.median(rows):,.10g}"
    spread = f"{min(rows):,} to {max(rows):,} a client, median {middle}"
    examples = f"{spread if min(rows) < max(rows) else middle + ' a client'}{with_tests}"
    lines += [("examples", examples), ("leaves", report.leaves)]
    labels = {label for client in report.held for label in client.labels}
    if labels:
        outputs = f"; the model has outputs for {report.classes}" if report.classes else ""
        lines.append(("labels", f"{len(labels):,} from {min(labels)} to {max(labels)}{outputs}"))
    if report.non_iid:
        score, chance = report.non_iid
        scale = f"0 is iid, 1 the most; chance alone gives about {chance:.2f}"
        lines.append(("non-iid", f"{score:.2f} ({scale})"))
    return lines


def _cost_lines(report: CheckReport) -> list[tuple[str, str]]:
    """Say what a round and the whole run would take."""
    if report.cohort is None:
        return []
    asked = f"{report.cohort:,.4g} client{'' if report.cohort == 1 else 's'}"
    cost = report.cost
    if cost is None:
        return [("a round", asked)]
    streams = f"each of {cost.streams:,} streams" if cost.streams > 1 else "the stream"
    judged = f", {plural(report.evaluations, 'evaluation')} of {_brief(cost.evaluation_s)}"
    return [
        ("a round", f"{asked}, {size(cost.download_bytes)} down, {size(cost.upload_bytes)} up"),
        (
            "memory",
            f"model {size(cost.model_bytes)}, server {size(cost.server_bytes)}, {streams} "
            f"{size(cost.stream_bytes)}; beside Python, PyTorch and the data",
        ),
        (
            "time",
            f"about {_brief(cost.total_s)}: {plural(report.rounds, 'round')} of "
            f"{_brief(cost.round_s)}{judged if cost.evaluation_s else ''}",
        ),
        ("", f"Estimates, from a few steps of {plural(len(cost.probed), 'client')} here and now."),
    ]


def _brief(seconds: float) -> str:
    """Write a short time with three digits at most."""
    return f"{1000 * seconds:.2g} ms" if seconds < 0.0995 else duration(seconds)


def _wrapped(label: str, text: str) -> list[str]:
    hanging = " " * (len(label) + 3)
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"  {label} ",
        subsequent_indent=hanging,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _folded(faults: Sequence[Fault]) -> list[str]:
    """Name the first of each kind, and count the others."""
    lines = []
    for kind in dict.fromkeys(fault.kind for fault in faults):
        of_a_kind = [fault.sentence for fault in faults if fault.kind == kind]
        lines += of_a_kind[:_MOST_OF_A_KIND]
        rest = len(of_a_kind) - _MOST_OF_A_KIND
        if rest > 0:
            lines.append(f"and {rest:,} more of this kind: see .problems and .warnings")
    return lines
