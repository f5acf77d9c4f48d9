"""What comes out of a run: the model, its history, and what it cost."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn

from folkmoot.core.engine import ClientId, LeftOut
from folkmoot.core.tree import Tree
from folkmoot.train.environment import environment, peak_memory_bytes
from folkmoot.train.evaluation import ClientResult
from folkmoot.train.standing import Program, Standing
from folkmoot.train.stopping import Best, Row


class Times(NamedTuple):
    """Where a run's seconds went; client work runs in several streams, the rest in one."""

    total_s: float
    client_s: float
    """Client work, per stream: loading, training, making updates."""
    evaluation_s: float
    overhead_s: float
    """All other seconds of the rounds: handing out, adding, waiting, the server's step."""


class Traffic(NamedTuple):
    """Bytes that a deployment would have moved, over all rounds and clients."""

    upload_bytes: int
    download_bytes: int


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run. `print` it, `plot` it, `save` it; `model` is an ordinary module."""

    model: nn.Module
    """The global model after the last round."""
    best_model: nn.Module
    """The global model of the best evaluated round; `model` where none was evaluated."""
    best: Best
    """Which round that was, and its own score."""
    history: list[Row]
    """A row a round: who answered, seconds, bytes, and metrics where the round was evaluated."""
    clients: dict[ClientId, ClientResult]
    """The final model on each client's own test examples, by id."""
    settings: dict[str, Any]
    """What was asked for."""
    times: Times
    ended: str | None = None
    """Why the run ended before its last round."""
    environment: dict[str, Any] = field(default_factory=environment)
    """Versions, machine, and the digest of the code."""
    peak_memory: dict[str, int] = field(default_factory=peak_memory_bytes)
    """Peak resident bytes of the process and of its largest worker."""
    state: Tree = field(default_factory=dict, repr=False)
    """The algorithm's whole last state."""

    @property
    def rounds(self) -> int:
        """Rounds done."""
        return self.history[-1]["round"] if self.history else 0

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the last evaluated round."""
        for row in reversed(self.history):
            if row["evaluated"]:
                return {key: row[key] for key in row if key.startswith(("test_", "clients_"))}
        return {}

    @property
    def traffic(self) -> Traffic:
        """Bytes up and down."""
        up = sum(row["upload_bytes"] for row in self.history)
        return Traffic(up, sum(row["download_bytes"] for row in self.history))

    @property
    def left_out(self) -> list[LeftOut]:
        """Every answer that did not count, with round, client and reason."""
        return [
            LeftOut(client, row["round"], reason)
            for row in self.history
            for client, reason in row["left_out"]
        ]


def result_of(
    program: Program,
    standing: Standing,
    judged: dict[ClientId, ClientResult],
    settings: dict[str, Any],
    total_s: float,
) -> Result:
    """Make the result of a run from where it stands."""
    objective, state = program.algorithm.objective, standing.snapshot.state
    history = standing.history
    client_s = sum(row["client_s"] for row in history)
    times = Times(
        total_s,
        client_s,
        sum(row["evaluation_s"] for row in history),
        max(0.0, sum(row["train_s"] for row in history) - client_s),
    )
    return Result(
        model=objective.module(state),
        best_model=objective.module(standing.best_model or state),
        best=standing.best,
        history=history,
        clients=judged,
        settings=settings,
        times=times,
        ended=standing.ended,
        state=state,
    )
