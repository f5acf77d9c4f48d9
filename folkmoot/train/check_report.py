"""The report of a check: facts as fields, faults as sentences, and a calm table to print."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from folkmoot.core.engine import ClientId
from folkmoot.train.census import Fault, Held, spelled

_MOST_OF_A_KIND = 3
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


@dataclass(frozen=True, kw_only=True)
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
            "leaves": spelled(self.held[0].signature) if self.held else None,
            "classes": self.classes,
            "non_iid": list(self.non_iid) if self.non_iid else None,
            "cohort": self.cohort,
            "evaluations": self.evaluations,
            "cost": self.cost._asdict() if self.cost else None,
        }

    def __str__(self) -> str:
        about = f"Check of {self.algorithm}" + (f" on {self.data}" if self.data else "")
        verdict = (
            _counted(len(self.faults), "problem") if self.faults else "nothing stands in the way"
        )
        more = f", {_counted(len(self.cautions), 'warning')}" if self.cautions else ""
        lines = [f"{about}: {verdict}{more}.", ""]
        lines += [f"  {label:{_LABEL_WIDTH}} {text}" for label, text in self._table()]
        for title, faults in (("Problems", self.faults), ("Warnings", self.cautions)):
            if faults:
                lines += ["", title, *(f"  - {sentence}" for sentence in _folded(faults))]
        return "\n".join(line for line in lines).rstrip()

    def _table(self) -> list[tuple[str, str]]:
        table = []
        if self.clients:
            part = (
                ""
                if self.looked_at == self.clients
                else f", {self.looked_at:,} of them were looked at"
            )
            table.append(("clients", f"{self.clients:,}{part}"))
        if self.held:
            table += self._data_lines()
        if self.cohort is not None and self.cost is None:
            table.append(("a round", f"{self.cohort:,.4g} clients"))
        return table + (self._cost_lines(self.cost) if self.cost else [])

    def _data_lines(self) -> list[tuple[str, str]]:
        rows = [client.rows for client in self.held]
        tests = sum(client.test_rows > 0 for client in self.held)
        with_tests = f"; {tests:,} with tests of their own" if tests else ""
        middle = f"{statistics.median(rows):,.10g}"
        found = [
            ("examples", f"{min(rows):,} to {max(rows):,} a client, median {middle}{with_tests}"),
            ("leaves", spelled(self.held[0].signature)),
        ]
        labels = {label for client in self.held for label in client.labels}
        if labels:
            outputs = f", of {self.classes} the model has outputs for" if self.classes else ""
            found.append(
                ("labels", f"{len(labels):,} from {min(labels)} to {max(labels)}{outputs}")
            )
        if self.non_iid:
            score, chance = self.non_iid
            found.append(
                (
                    "non-iid",
                    f"{score:.2f} (0 is iid, 1 the most; chance alone gives about {chance:.2f})",
                )
            )
        return found

    def _cost_lines(self, cost: Cost) -> list[tuple[str, str]]:
        down, up = size(cost.download_bytes), size(cost.upload_bytes)
        streams = _counted(cost.streams, "stream")
        each = f"each of {streams}" if cost.streams > 1 else "the stream"
        judged = (
            f", {_counted(self.evaluations, 'evaluation')} of {duration(cost.evaluation_s)}"
            if cost.evaluation_s
            else ""
        )
        return [
            ("a round", f"{self.cohort:,.4g} clients, {down} down, {up} up"),
            (
                "memory",
                f"model {size(cost.model_bytes)}; server {size(cost.server_bytes)}; {each} "
                f"{size(cost.stream_bytes)}; beside Python, PyTorch and the data",
            ),
            (
                "time",
                f"about {duration(cost.total_s)}: {_counted(self.rounds, 'round')} of "
                f"{duration(cost.round_s)}{judged}",
            ),
            (
                "",
                f"an estimate from a few steps of {_counted(len(cost.probed), 'client')}, for {streams}",
            ),
        ]


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _folded(faults: Sequence[Fault]) -> list[str]:
    """Name the first of each kind, and count the others."""
    lines = []
    for kind in dict.fromkeys(fault.kind for fault in faults):
        of_a_kind = [fault.sentence for fault in faults if fault.kind == kind]
        lines += of_a_kind[:_MOST_OF_A_KIND]
        rest = len(of_a_kind) - _MOST_OF_A_KIND
        if rest > 0:
            lines.append(f"... and {rest:,} more of this kind, in `.problems` or `.warnings`.")
    return lines


def size(count: float) -> str:
    """Write bytes as people do: 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            break
        count /= 1000
    else:
        unit = "TB"
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """Write seconds as people do: 12 ms, 3.4 s, 5 min, 2.1 h."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else f"{1000 * seconds:.1g} ms"
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
