"""Flower's differential privacy at the setting of docs/results.md, section 3.1.

    python3.11 -m venv /tmp/flower && /tmp/flower/bin/pip install flwr==1.42.0 -e '.[privacy]'
    OMP_NUM_THREADS=1 /tmp/flower/bin/python benchmarks/flower_dp/run.py

Same writers, model, rounds, cohort on average, budget and stated federation; rate and clip norm are
searched for in the same way. Flower's strategies run as they are, FedAvg inside a DP wrapper;
messages are handed over in this process instead of over a network, so its simulation engine (Ray)
is not needed. A larger federation is stated as ours is: the noise multiplier is multiplied by
cohort / stated cohort.

The noise is solved by dp-accounting for what Flower does: it draws cohorts of fixed size, whose sum
moves by up to twice the clip norm when one client's data are replaced, which is proved by Rényi
divergences (`FixedSizeGaussian`). The rows "as if Poisson" grant it the amplification of Poisson
sampling, which it does not have. All rows grant it equal weights.
"""

import os

# Before Flower is imported: it would report this run to its makers.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import itertools
import json
import logging
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    Strategy,
)
from flwr.supercore.task_identity import TaskIdentity

sys.path.insert(0, str(Path(__file__).parents[1]))

from chapters import privacy

import folkmoot as fm
from folkmoot.privacy.calibrate import noise_for
from folkmoot.privacy.events import Event, FixedSizeGaussian, PoissonGaussian

SEEDS = range(3)
EPSILON = 8.0


class Row(NamedTuple):
    """One way to run Flower."""

    name: str
    fixed: bool
    """Whether its cohorts are accounted for as what they are, of fixed size."""
    adaptive: bool = False


ROWS = (
    Row("fixed clipping, fixed cohorts", True),
    Row("fixed clipping, as if Poisson", False),
    Row("adaptive clipping, as if Poisson", False, adaptive=True),
)


class InProcess(Grid):
    """Hands a round's messages to clients, one after another."""

    def __init__(self, clients: Any, rate: float, seed: int) -> None:
        self.ids = dict(enumerate(clients, 1))
        self.clients, self.rate, self.model = clients, rate, privacy.network(seed)
        self.order = torch.Generator().manual_seed(seed)
        # What Flower's processes are given when they are started; messages carry it.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

    def get_node_ids(self) -> Iterable[int]:
        return list(self.ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return [self._train(message) for message in messages]

    def _train(self, message: Message) -> Message:
        """Train as `fm.local.sgd` does: one epoch of shuffled batches."""
        self.model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        rows = self.clients[self.ids[message.metadata.dst_node_id]].train
        optimizer = torch.optim.SGD(self.model.parameters(), lr=self.rate)
        shuffled = torch.randperm(len(rows["y"]), generator=self.order)
        for batch in shuffled.split(privacy.BATCH):
            optimizer.zero_grad()
            F.cross_entropy(self.model(rows["x"][batch]), rows["y"][batch]).backward()
            optimizer.step()
        # Every client says the same number: weights by examples have no bound.
        content = {
            "arrays": ArrayRecord(self.model.state_dict()),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        return Message(RecordDict(content), reply_to=message)

    def _unused(self, *_: Any) -> Any:
        raise RuntimeError("No strategy of Flower calls this.")

    run = property(_unused)
    set_run = create_message = push_messages = pull_messages = _unused


def noise(row: Row, federation: privacy.Federation) -> float:
    """Solve the noise multiplier for what Flower does, or for what it is granted."""

    def event(z: float) -> Event:
        if row.fixed:
            return FixedSizeGaussian(z, federation.cohort, federation.population)
        return PoissonGaussian(z, federation.rate)

    return noise_for(EPSILON, federation.delta, lambda z: [(event(z), privacy.ROUNDS)])


def strategy(row: Row, z: float, clip: float, population: int) -> Strategy:
    """Return FedAvg in a wrapper; z is of this run's own cohort."""
    averaging = FedAvg(
        fraction_train=privacy.COHORT / population,
        fraction_evaluate=0.0,
        min_train_nodes=privacy.COHORT,
        min_available_nodes=population,
    )
    if row.adaptive:
        return DifferentialPrivacyServerSideAdaptiveClipping(averaging, z, privacy.COHORT)
    return DifferentialPrivacyServerSideFixedClipping(averaging, z, clip, privacy.COHORT)


def accuracy(
    row: Row, z: float, rate: float, clip: float, data: privacy.Data, test: fm.Tree, seed: int
) -> float:
    """Train once; return the accuracy on test digits."""
    random.seed(seed)
    np.random.seed(seed)
    grid = InProcess(data.clients, rate, seed)
    found = strategy(row, z, clip, len(data.clients)).start(
        grid=grid,
        # The model that ours begins from.
        initial_arrays=ArrayRecord(privacy.network(seed).state_dict()),
        num_rounds=privacy.ROUNDS,
        train_config=ConfigRecord(),
    )
    grid.model.load_state_dict(found.arrays.to_torch_state_dict())
    with torch.no_grad():
        return float((grid.model(test["x"]).argmax(1) == test["y"]).double().mean())


def main() -> None:
    """Print a JSON line for each row."""
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    data, size = privacy.data(), privacy.FULL
    for federation in privacy.FEDERATIONS:
        for row in ROWS:
            z = noise(row, federation)
            own = z * privacy.COHORT / federation.cohort
            clips = [0.1] if row.adaptive else size.clips

            def scored(setting: tuple[float, float], row: Row = row, own: float = own) -> float:
                return accuracy(row, own, *setting, data, data.unused, privacy.TUNING_SEED)

            best = max(itertools.product(size.rates, clips), key=scored)
            found = [accuracy(row, own, *best, data, data.test, seed) for seed in SEEDS]
            told = {"federation": str(federation), "row": row.name, "noise_multiplier": z}
            told |= {"rate": best[0], "clip": best[1], "accuracy": found}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
