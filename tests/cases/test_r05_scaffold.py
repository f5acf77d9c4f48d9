"""Case R05: SCAFFOLD's controls where half of the clients answer, with unequal local steps."""

import contextlib
from pathlib import Path

import pytest
import torch
import yaml

import folkmoot as fm
from folkmoot.core.engine import Cohort, Setting
from folkmoot.train.loop import first_snapshot, run_round
from folkmoot.train.states import ClientStates

CASE = yaml.safe_load((Path(__file__).parent / "R05.yaml").read_text(encoding="utf-8"))
GIVEN, EXPECTED, WRONG = CASE["input"], CASE["expected"], CASE["wrong"]
SAMPLED, NEAR = tuple(GIVEN["sampled"]), {"rel": 0, "abs": CASE["tolerance"]}
ENGINES = {
    "sequential": fm.engines.sequential(),
    "threads": fm.engines.parallel(2, threads=True),
    "vectorized": fm.engines.vectorized(),
}


def number(value):
    return {"w": torch.tensor([value], dtype=torch.float64)}


@pytest.fixture(params=ENGINES, ids=str)
def engine(request):
    return ENGINES[request.param]


@pytest.fixture(params=[1, 2], ids=["option I", "option II"])
def option(request):
    """A constant gradient is what both options must find."""
    return request.param


def one_round_of(algorithm, datas, population, engine):
    """Do the case's round, from its controls, with the sampled clients of a population."""
    begun = first_snapshot(algorithm)
    own = {client: {"control": number(GIVEN[f"c_{client}"])} for client in SAMPLED}
    state = {**begun.state, "control": number(GIVEN["c"])}
    clients = fm.data.from_datasets(dict(zip(SAMPLED, datas, strict=True)))
    cohort = Cohort(1, SAMPLED, population, len(SAMPLED))
    with contextlib.closing(engine(Setting(clients, 0))) as opened:
        begun = begun._replace(state=state, own=ClientStates(own))
        snapshot, report = run_round(algorithm, begun, opened, cohort, 0)
    assert (report.answered, report.left_out) == (len(SAMPLED), [])
    return snapshot


@pytest.fixture
def after(line, pull, engine, option):
    """The snapshot after the case's round."""
    # A row a step: as many rows as the case has steps, in batches of one.
    amounts = zip(GIVEN["constant_gradient"], GIVEN["local_steps"], strict=True)
    datas = [pull(gradient, rows=steps, dtype=torch.float64) for gradient, steps in amounts]
    work = fm.local.sgd(line(GIVEN["x"], torch.float64), lr=GIVEN["local_lr"], batch_size=1)
    server = fm.optimizers.sgd(GIVEN["server_lr"])
    algorithm = fm.scaffold(work, option=option, server=server)
    return one_round_of(algorithm, datas, GIVEN["N_clients"], engine)


def test_the_model_is_moved_by_the_mean_of_the_corrected_paths(after):
    assert after.state["params"]["w"].item() == pytest.approx(EXPECTED["x_new"], **NEAR)
    assert EXPECTED["x_new"] == pytest.approx(sum(EXPECTED["y"]) / len(SAMPLED), **NEAR)


def test_each_client_s_control_is_read_off_its_own_number_of_steps(after):
    found = [after.own[client]["control"]["w"].item() for client in SAMPLED]

    assert found == pytest.approx(EXPECTED["c_i_new"], **NEAR)
    assert found[0] != pytest.approx(WRONG["c_1_new_of_one_epoch_instead_of_two_steps"], abs=0.1)


def test_the_server_s_control_moves_by_changes_shared_among_all_clients(after):
    found = after.state["control"]["w"].item()

    assert found == pytest.approx(EXPECTED["c_new"], **NEAR)
    assert found != pytest.approx(WRONG["c_new_divided_by_the_number_sampled"], abs=0.1)
    assert found != pytest.approx(WRONG["c_new_of_whole_controls_instead_of_changes"], abs=0.1)


def test_a_client_keeps_its_control_and_nothing_else(after):
    assert set(after.own) == set(SAMPLED)
    for client in SAMPLED:
        assert set(after.own[client]) == {"control"}


@pytest.mark.parametrize("idle", [{"steps": 0}, {"epochs": 0}, {"lr": 0.0}], ids=str)
def test_a_client_that_takes_no_step_keeps_its_control(idle, line, pull, engine):
    work = fm.local.sgd(line(GIVEN["x"], torch.float64), **{"lr": GIVEN["local_lr"], **idle})
    datas = [pull(1.0, dtype=torch.float64)] * len(SAMPLED)

    after = one_round_of(fm.scaffold(work, option=2), datas, GIVEN["N_clients"], engine)

    assert after.state["params"]["w"].item() == GIVEN["x"]
    assert after.state["control"]["w"].item() == GIVEN["c"]
    for client in SAMPLED:
        assert after.own[client]["control"]["w"].item() == GIVEN[f"c_{client}"]
