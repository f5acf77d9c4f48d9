"""The two-verb process: drive the rounds by hand.

process = fm.process(algorithm)
state = process.initialize()
state, metrics = process.next(state, clients)
"""

import contextlib
from typing import Any

from torch import nn

from folkmoot.core.algorithm import Algorithm
from folkmoot.core.engine import Cohort, Opener, Setting
from folkmoot.core.errors import SettingsError
from folkmoot.core.fold import ascending
from folkmoot.data import as_clients, as_examples
from folkmoot.engines import sequential
from folkmoot.local.evaluate import evaluate
from folkmoot.train.evaluation import on_held_out, shards
from folkmoot.train.loop import Snapshot, first_snapshot, run_round
from folkmoot.train.options import refuse_engine, refuse_no_algorithm, refuse_seed
from folkmoot.train.preflight import first_client


class Process:
    """An algorithm as two verbs; it holds no state of its own, so any state may be gone on from."""

    def __init__(self, algorithm: Algorithm, seed: int, engine: Opener) -> None:
        self.algorithm = algorithm
        self.seed = seed
        self._engine = engine

    def initialize(self) -> Snapshot:
        """Return the state before any round."""
        return first_snapshot(self.algorithm)

    def next(self, state: Snapshot, clients: Any) -> tuple[Snapshot, dict[str, Any]]:
        """Run one round with all of the clients that are given.

        Args:
            state: What `initialize` or the last `next` returned; it stays as it is.
            clients: This round's clients: a `ClientData`, or a list or dict of Datasets, (x, y)
                pairs or trees.

        Returns:
            The next state, and what happened: round, clients asked and answered, who was left out
            and why, seconds of client work, bytes.
        """
        if not isinstance(state, Snapshot):
            raise SettingsError(
                "next() needs the state that initialize() or the last next() returned, but was "
                f"given a {type(state).__name__}."
            )
        federation = as_clients(clients)
        setting = Setting(federation, self.seed)
        if state.round == 0:
            first_client(self.algorithm, setting, None)
        cohort = Cohort(state.round + 1, ascending(federation), len(federation), len(federation))
        with contextlib.closing(self._engine(setting)) as engine:
            following, report = run_round(self.algorithm, state, engine, cohort, self.seed)
        return following, report._asdict()

    def evaluate(self, state: Snapshot, examples: Any) -> dict[str, float]:
        """Return the objective's metrics of a state's model on some examples.

        Args:
            state: From `initialize` or `next`.
            examples: A tree, an (x, y) pair or a Dataset.
        """
        objective = self.algorithm.objective
        pieces = shards(as_examples(examples), objective)
        with contextlib.closing(sequential()(Setting({}, self.seed, pieces))) as engine:
            work = evaluate(objective)
            return on_held_out(work, state.state, engine, len(pieces), state.round)

    def model(self, state: Snapshot) -> nn.Module:
        """Return a state's global model as an ordinary module."""
        return self.algorithm.objective.module(state.state)


def process(algorithm: Algorithm, *, seed: int = 0, engine: Opener | None = None) -> Process:
    """Drive rounds by hand, with clients of your own choice in each.

    Args:
        algorithm: What is done, such as `fedavg(work)`.
        seed: The one seed.
        engine: Where clients run; None is one after another, in this process.

    Raises:
        SettingsError: If the first argument is no algorithm.
    """
    refuse_no_algorithm("process", algorithm)
    refuse_seed(seed)
    refuse_engine(engine, None)
    return Process(algorithm, seed, engine or sequential())
