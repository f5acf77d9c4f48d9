"""What came of a run, without its live modules: all that is stored, and comes back as it was."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from folkmoot.core.engine import ClientId, LeftOut
from folkmoot.core.tree import Tree
from folkmoot.train.environment import environment, peak_memory_bytes
from folkmoot.train.evaluation import ClientResult
from folkmoot.train.guarantee import Guarantee, guarantee_of
from folkmoot.train.participation import NeverHeard, Roll, Traffic
from folkmoot.train.stopping import Best, Row

METRICS = ("test_", "clients_")
"""How the names of columns begin that are metrics: on the held-out set, and over clients."""


class Times(NamedTuple):
    """Where a run's seconds went; client work runs in several streams, the rest in one."""

    total_s: float
    client_s: float
    """Client work, per stream: loading, training, making updates."""
    evaluation_s: float
    overhead_s: float
    """All other seconds of the rounds: handing out, adding, waiting, the server's step."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Outcome:
    """A finished run as data."""

    best: Best
    """The best evaluated round, and its own score."""
    history: list[Row]
    """A row a round: who answered, seconds, bytes, and metrics where the round was evaluated."""
    clients: dict[ClientId, ClientResult]
    """The final model on each client's own test examples, or the client's own model, by id."""
    settings: dict[str, Any]
    """What was asked for, as plain JSON."""
    times: Times
    ended: str | None = None
    """Why the run ended before its last round."""
    environment: dict[str, Any] = field(default_factory=environment)
    """Versions, machine, and the digest of the code."""
    peak_memory: dict[str, int] = field(default_factory=peak_memory_bytes)
    """Peak resident bytes of the process and of its largest worker."""
    state_dict: dict[str, Tensor] = field(default_factory=dict)
    """The final global model, for `load_state_dict`; there also without the model's class."""
    best_state_dict: dict[str, Tensor] = field(default_factory=dict)
    """The global model of the best evaluated round; `state_dict` itself where that is the same."""
    state: Tree = field(default_factory=dict)
    """The algorithm's whole last state."""
    roll: Roll | None = None
    """The population, and how often each was asked and heard; None in a private run."""
    passes: float | None = None
    """How often clients have gone through all examples, counting answers that arrived; None where
    numbers of examples, or who took part, are not known."""

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.settings.get("name", "run"))

    @property
    def rounds(self) -> int:
        """Rounds done."""
        return self.history[-1]["round"] if self.history else 0

    @property
    def privacy(self) -> Guarantee | None:
        """What the run promised and has spent; None where nothing was promised."""
        return guarantee_of(self.settings)

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the last evaluated round; empty where none was evaluated."""
        return metrics_of(next((row for row in self.history[::-1] if row["evaluated"]), {}))

    @property
    def best_metrics(self) -> dict[str, float]:
        """The metrics of the best round; empty where no round has a score."""
        return metrics_of(
            next((row for row in self.history if row["round"] == self.best.round), {})
        )

    @property
    def judged(self) -> dict[ClientId, ClientResult]:
        """Those of the clients whose model was judged; others have a model of their own only."""
        return {client: found for client, found in self.clients.items() if found.metrics}

    @property
    def traffic(self) -> Traffic:
        """Bytes (up, down), of packed forms; also `by_round`, and `by_client`."""
        return Traffic(self.history, self.roll)

    @property
    def participation(self) -> dict[ClientId, tuple[int, int]] | None:
        """How often each client was asked, and how often its answer counted, by id.

        None where that is not counted: in a private run, which hides who took part.
        """
        return None if self.roll is None else self.roll.asked_and_answered()

    @property
    def never_heard(self) -> NeverHeard | None:
        """Clients of which no answer counted; None where that is not counted."""
        return None if self.roll is None else self.roll.never_heard()

    @property
    def left_out(self) -> list[LeftOut]:
        """Every answer that did not count, with round, client and reason."""
        return [
            LeftOut(client, row["round"], reason)
            for row in self.history
            for client, reason in row["left_out"]
        ]

    def table(self) -> list[dict[str, Any]]:
        """Return the history as a tidy table: a dict a round, all with the same columns.

        Metrics are NaN in rounds that were not evaluated; `left_out` is the number of clients, and
        `staleness` the mean over answers.
        """
        keys = dict.fromkeys(key for row in self.history for key in row if key != "spans")
        # Metrics last: rounds without an evaluation would have them in the middle.
        columns = sorted(keys, key=lambda key: key.startswith(METRICS))
        missing = dict.fromkeys(columns, math.nan) | {"advice": None}
        cells = [missing | row | _cells(row) for row in self.history]
        return [{key: row[key] for key in columns} for row in cells]


def _cells(row: Row) -> Row:
    """Return one value for each list in a row."""
    found: Row = {"left_out": len(row["left_out"])}
    if "staleness" in row:
        answers = sum(count for _, count in row["staleness"])
        late = sum(staleness * count for staleness, count in row["staleness"])
        found["staleness"] = late / answers if answers else math.nan
    return found


def metrics_of(row: Row) -> dict[str, float]:
    """Return the part of a row that is metrics."""
    return {key: value for key, value in row.items() if key.startswith(METRICS)}
