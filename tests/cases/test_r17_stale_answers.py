"""Case R17: a late answer is a change of the model that its client got, and counts by its age."""

from pathlib import Path

import pytest
import torch
import yaml

import folkmoot as fm
from folkmoot.core.engine import Cohort, Setting
from folkmoot.train.gathering import Part
from folkmoot.train.link import Link
from folkmoot.train.loop import first_snapshot, run_round

CASE = yaml.safe_load((Path(__file__).parent / "R17.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED = CASE["input"], CASE["expected"]
NOW, A, B = INPUT["global_now"], INPUT["client_A"], INPUT["client_B"]
WEIGHT = fm.staleness.polynomial(0.5).weight


class Held:
    test = None

    def __init__(self, train):
        self.train = train


@pytest.fixture
def asked(line, pull):
    """One step of rate 1 whose gradient takes each client from what it got to what it returns."""
    moves = {client: [one["got_x"] - one["returns"]] for client, one in enumerate((A, B))}
    clients = {client: Held(pull(move, dtype=torch.float64)) for client, move in moves.items()}
    algorithm = fm.fedavg(
        fm.local.sgd(line(NOW["x"], dtype=torch.float64), lr=1.0),
        server=fm.optimizers.sgd(INPUT["server_lr"]),
        aggregator=fm.aggregators.uniform_mean(),
    )
    return algorithm, clients


def test_the_weights_are_those_of_the_case():
    assert [WEIGHT(stale) for stale in EXPECTED["staleness"]] == EXPECTED["weights"]


def test_one_round_gives_the_model_of_the_case(asked):
    algorithm, clients = asked
    snapshot = first_snapshot(algorithm)._replace(round=NOW["version"])
    got = {**snapshot.state, "params": {"w": torch.tensor([B["got_x"]], dtype=torch.float64)}}
    sent = {name: got[name] for name in ("params", "buffers", "counts", "round")}
    snapshot = snapshot._replace(bases={f"{B['got_version']}": sent})
    late = Part(
        Cohort(B["got_version"] + 1, (1,), 2, 2.0),
        B["got_version"],
        WEIGHT(NOW["version"] - B["got_version"]),
    )
    cohort = Cohort(NOW["version"] + 1, (0,), 2, float(INPUT["buffer_size"]))

    after, report = run_round(
        algorithm,
        snapshot,
        fm.engines.sequential()(Setting(clients, 0)),
        cohort,
        0,
        link=Link(late=(late,), live=frozenset()),
    )

    wanted = EXPECTED["x_divided_by_buffer_size"]
    assert after.state["params"]["w"].item() == pytest.approx(wanted, abs=CASE["tolerance"])
    assert (after.round, report.answered) == (EXPECTED["version_after"], 2)


def test_a_run_gives_the_model_of_the_case(line, pull):
    """The front door: client 0 answers after 1, 2, 3 and 4 s, each time about the newest model;
    client 1 after 4 s, where it was asked first, about the first one."""
    speeds = {0: 1.0, 1: 0.25}
    clients = [pull([-2.0], dtype=torch.float64), pull([-4.0], dtype=torch.float64)]
    result = fm.run(
        fm.fedavg(fm.local.sgd(line(4.0, dtype=torch.float64), lr=1.0)),
        clients,
        rounds=4,
        cohort=2,
        buffer=1,
        fleet=fm.Fleet(devices={at: fm.Device(examples_per_s=it) for at, it in speeds.items()}),
        workers=1,
        monitor=False,
        progress=False,
    )

    assert [row["staleness"] for row in result.history] == [[[0, 1]]] * 3 + [[[3, 1]]]
    # Three fresh steps of 2 lead from 4 to 10, the case's present model.
    found = result.model.w.item()
    assert found == pytest.approx(10 + WEIGHT(3) * 4, abs=CASE["tolerance"])
    assert found == EXPECTED["x_divided_by_buffer_size"]
