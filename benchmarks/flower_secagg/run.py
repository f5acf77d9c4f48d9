"""A secure sum by Flower's SecAgg+ and by folkmoot, by turns in one process: processor time, bytes.

    python3.11 -m venv /tmp/flower && /tmp/flower/bin/pip install flwr==1.42.0 -e '.[secure]'
    OMP_NUM_THREADS=1 /tmp/flower/bin/python benchmarks/flower_secagg/run.py

50 clients with a million numbers each, one of whom vanishes before it sends its masked input. Both
with 24 neighbours each and 14 shares to open a secret, and both with all others and 34 shares.
Flower's mod and workflow run as they are. It is given some things for nothing: its messages are
handed over as objects, where folkmoot's are written and read as bytes; the model on its way to the
clients, and the strategy's averaging of 49 equal models afterwards, are not counted.

Flower's mod also makes floats whole numbers, which folkmoot's protocol leaves to a codec: both are
timed apart, and "rounded" counts them.
"""

import os

# Before Flower is imported: it would report this run to its makers.
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import copy
import gc
import importlib
import json
import logging
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.compat.common import recorddict_compat as compat
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.secure_aggregation import SecAggPlusWorkflow
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from folkmoot.cli.bench.machine import machine, moment, others
from folkmoot.cli.bench.secagg import play
from folkmoot.codecs import clip, to_field
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.secagg import terms

# The package has a function of the same name in the module's place.
mod: Any = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")

CLIENTS, NUMBERS, ROUNDS = 50, 1_000_000, 3
WEIGHT = 1000
"""Of every client: what Flower divides by unless told otherwise, so that nothing is lost to it."""
RESULTS = Path(__file__).with_name("results.json")


class Graph(NamedTuple):
    """Who masks with whom."""

    neighbours: int
    threshold: int


GRAPHS = {"24 neighbours": Graph(24, 14), "all 49 others": Graph(49, 34)}


class Cost(NamedTuple):
    """What one sum took: seconds of processor time, and bytes."""

    client_s: float
    """The median client's, all but rounding."""
    rounding_s: float
    server_s: float
    bytes_a_number: float


class First(FedAvg):
    """Takes the secure mean as it is; FedAvg would average it with itself."""

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return results[0][1].parameters, {}


class InProcess(Grid):
    """Hands a stage's messages to clients, one after another, and times those."""

    def __init__(self, values: dict[int, np.ndarray], lost: int) -> None:
        self.values, self.lost = values, lost
        self.contexts = {node: Context(1, node, {}, RecordDict(), {}) for node in values}
        self.client_s: Counter[int] = Counter()
        self.away_s = 0.0
        self.rounding_s: dict[int, float] = defaultdict(float)
        self.sent_bytes = 0
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

    def get_node_ids(self) -> Iterable[int]:
        return list(self.values)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        begun = process_time()
        found = [reply for message in messages if (reply := self._answer(message))]
        self.away_s += process_time() - begun
        return found

    def _answer(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        # As over a network, nobody reads what another has changed.
        own = copy.copy(message)
        own.content = copy.deepcopy(message.content)
        stage = own.content.config_records[mod.RECORD_KEY_CONFIGS][mod.Key.STAGE]
        masks = stage == mod.Stage.COLLECT_MASKED_VECTORS
        if masks and node == self.lost:
            return None
        trained = self._trained(own, node) if masks else None
        rounded = _timed_rounding(self.rounding_s, node)
        begun = process_time()
        reply = mod.secaggplus_mod(own, self.contexts[node], lambda *_: trained)
        self.client_s[node] += process_time() - begun
        mod.quantize, mod.parameters_multiply = rounded
        if masks:
            sent = reply.content.config_records[mod.RECORD_KEY_CONFIGS][mod.Key.MASKED_PARAMETERS]
            self.sent_bytes = sum(map(len, sent))
        return reply

    def _trained(self, message: Message, node: int) -> Message:
        found = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.values[node]]), WEIGHT, {})
        return Message(compat.fitres_to_recorddict(found, False), reply_to=message)

    def _unused(self, *_: Any) -> Any:
        raise RuntimeError("The workflow does not call this.")

    run = property(_unused)
    set_run = create_message = push_messages = pull_messages = _unused


def _timed_rounding(seconds: dict[int, float], node: int) -> tuple[Any, Any]:
    """Let the mod's two steps from floats to whole numbers tell how long they take."""
    before = mod.quantize, mod.parameters_multiply

    def timed(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            begun = process_time()
            found = step(*given)
            seconds[node] += process_time() - begun
            return found

        return run

    mod.quantize, mod.parameters_multiply = (timed(step) for step in before)
    return before


def by_flower(graph: Graph, values: dict[int, np.ndarray], lost: int) -> Cost:
    """Run one round of the workflow; check its mean."""
    grid, manager = InProcess(values, lost), SimpleClientManager()
    for node in values:
        manager.register(GridClientProxy(node, grid, 1))
    everybody = {"fraction_fit": 1.0, "min_fit_clients": CLIENTS, "min_available_clients": CLIENTS}
    context = LegacyContext(
        Context(1, 0, {}, RecordDict(), {}), strategy=First(**everybody), client_manager=manager
    )
    # The model that clients would begin from; a small one, for its way to them is not measured.
    first = ArrayRecord([np.zeros(1, dtype=np.float32)])
    context.state.array_records[MAIN_PARAMS_RECORD] = first
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({"current_round": 1})
    # Its shares count the client itself.
    workflow = SecAggPlusWorkflow(graph.neighbours + 1, graph.threshold)
    begun = process_time()
    workflow(grid, context)
    whole_s = process_time() - begun
    (mean,) = context.state.array_records[MAIN_PARAMS_RECORD].to_numpy_ndarrays()
    plain = np.mean([value for node, value in values.items() if node != lost], axis=0)
    # 2^22 steps of 16 units, rounded at random.
    assert np.abs(mean - plain).max() < 16 / 2**22, np.abs(mean - plain).max()
    clients = [s - grid.rounding_s[node] for node, s in grid.client_s.items() if node != lost]
    return Cost(
        statistics.median(clients),
        statistics.median(s for s in grid.rounding_s.values() if s),
        whole_s - grid.away_s,
        grid.sent_bytes / NUMBERS,
    )


def by_folkmoot(graph: Graph, values: dict[int, np.ndarray], lost: int) -> Cost:
    """Play one sum; check it."""
    agreed = terms(
        CLIENTS,
        [(NUMBERS, 32)],
        degree=graph.neighbours,
        threshold=graph.threshold,
        dropped=1 / CLIENTS,
    )
    played = play(agreed, {lost - 1})
    assert played.exact
    return Cost(
        sum(played.client().values()),
        _rounding_s(values[lost]),
        sum(played.server.values()),
        played.bytes["vectors"] / (CLIENTS - 1) / NUMBERS,
    )


def _rounding_s(value: np.ndarray) -> float:
    """Return the seconds from floats to whole numbers, by clip and field."""
    stages, layout = chain(clip(1e3), to_field()), Layout.of({"w": torch.zeros(NUMBERS)})
    state, _ = stages.init(Bounds(weight=1.0, clients=CLIENTS, size=NUMBERS), layout)
    vector, taken = torch.from_numpy(value), []
    for key in range(5):
        begun = process_time()
        stages.encode(state, vector.clone(), key)
        taken.append(process_time() - begun)
    return statistics.median(taken)


def _median(costs: list[Cost]) -> Cost:
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def compare(graph: Graph) -> dict[str, Any]:
    """Let both take turns; return medians and how many times less folkmoot takes."""
    draw = np.random.default_rng(2026)
    values = {
        node: draw.uniform(-1, 1, NUMBERS).astype(np.float32) for node in range(1, CLIENTS + 1)
    }
    before = moment()
    pairs = [(by_flower(graph, values, 7), by_folkmoot(graph, values, 7)) for _ in range(ROUNDS)]
    theirs, ours = (_median([pair[place] for pair in pairs]) for place in range(2))
    return {
        "flower": theirs._asdict(),
        "folkmoot": ours._asdict(),
        "client": theirs.client_s / ours.client_s,
        "client_rounded": (theirs.client_s + theirs.rounding_s) / (ours.client_s + ours.rounding_s),
        "server": theirs.server_s / ours.server_s,
        "others_cores": others(before, moment()),
    }


def main() -> None:
    """Compare on both graphs, print what is found and write it beside this file."""
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    # The collector would look through the objects of all parties, which here lie in one process.
    gc.disable()
    packages = ("flwr", "cryptography", "numpy", "torch", "folkmoot")
    found: dict[str, Any] = {
        "versions": {name: version(name) for name in packages},
        "machine": {key: fact for key, fact in machine().items() if key != "system"},
    }
    for name, graph in GRAPHS.items():
        found[name] = compare(graph)
        print(name, json.dumps(found[name]), flush=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
