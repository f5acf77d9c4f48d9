"""Case R12: a client's optimizer state reaches neither another round nor another client."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import tensor

import folkmoot as fm
from folkmoot import optimizers
from folkmoot.core.engine import Cohort, Setting
from folkmoot.data import as_clients
from folkmoot.engines import parallel, sequential

CASE = yaml.safe_load((Path(__file__).parent / "R12.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED, TOLERANCE = CASE["input"], CASE["expected"], CASE["tolerance"]
STEPS = INPUT["local_steps_per_round"]
ENGINES = {
    "sequential": sequential(),
    "one process": parallel(1),
    "processes": parallel(2),
    "threads": parallel(2, threads=True),
}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_momentum_begins_anew_in_each_round(engine, line, pull):
    work = fm.local.sgd(line(), steps=STEPS, **INPUT["sgd"])
    clients = [pull(INPUT["gradient"])]

    found = [
        fm.run(
            fm.fedavg(work), clients, rounds=rounds, engine=engine, progress=False
        ).model.w.item()
        for rounds in range(1, INPUT["rounds"] + 1)
    ]

    assert found == pytest.approx(EXPECTED["a_default_reset_each_round"], abs=TOLERANCE)


def answers(engine, work, clients):
    """The updates of clients that one open engine trains one after another, twice over."""
    opened = engine(Setting(as_clients(clients), 0))
    sent = {**work.objective.init(), "round": tensor(1)}
    task = fm.Task(sent, work, fm.aggregators.total())
    cohort = Cohort(1, tuple(range(len(clients))), len(clients), len(clients))
    found = [
        [update.value["params"]["w"].item() for _, update in opened.stream(task, cohort, {})]
        for _ in range(2)
    ]
    opened.close()
    return found


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_a_client_does_not_inherit_the_momentum_of_the_one_before(engine, line, pull):
    work = fm.local.sgd(line(), steps=STEPS, **INPUT["sgd"])

    first, second = answers(engine, work, [pull(g) for g in INPUT["gradients_of_a_and_b"]])

    assert first[1] == pytest.approx(EXPECTED["b_x_of_client_B"], abs=TOLERANCE)
    assert first == second


OPTIMIZERS = {
    "momentum": optimizers.sgd(0.1, momentum=0.9),
    "nesterov": optimizers.sgd(0.1, momentum=0.9, nesterov=True),
    "adagrad": optimizers.adagrad(0.1),
    "adam": optimizers.adam(0.1),
    "adam with bias correction": optimizers.adam(0.1, bias_correction=True),
    "adamw": optimizers.adamw(0.1),
    "yogi": optimizers.yogi(0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_s_state_passes_from_client_to_client(name, line, pull):
    work = fm.local.descent(line(), OPTIMIZERS[name], steps=3)
    gradients = [1.0, -1.0, 30.0, 0.5]

    together = answers(sequential(), work, [pull(gradient) for gradient in gradients])
    alone = [answers(sequential(), work, [pull(gradient)])[0][0] for gradient in gradients]

    assert together == [alone, alone]


def test_the_server_s_state_does_go_from_round_to_round(line, pull, one_round):
    # Momentum 0.5 on the server: moves of -1, then of -1 - 0.5.
    server = optimizers.sgd(1.0, momentum=0.5)
    algorithm = fm.fedavg(fm.local.sgd(line(), lr=1.0), server=server)

    first, _ = one_round(algorithm, {0: pull(1.0)})
    second, _ = one_round(algorithm, {0: pull(1.0)}, first)

    assert first.state["params"]["w"].item() == -1.0
    assert second.state["params"]["w"].item() == -2.5
    assert torch.equal(second.state["optimizer"]["velocity"]["w"], tensor([-1.5]))
