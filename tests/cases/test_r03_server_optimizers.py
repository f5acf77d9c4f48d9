"""Case R03: the first two rounds of FedAdam, FedYogi and FedAdagrad."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import tensor

import folkmoot as fm
from folkmoot import optimizers

CASE = yaml.safe_load((Path(__file__).parent / "R03.yaml").read_text(encoding="utf-8"))
INPUT, ROWS = CASE["input"], CASE["expected"]["x_after_rounds_1_2"]
BETAS = {"beta_1": INPUT["beta1"], "beta_2": INPUT["beta2"]}
ETA, TAU = INPUT["eta"], INPUT["tau"]

SERVERS = {
    "fedadam_v0=0": optimizers.adam(ETA, tau=TAU, v_0=0.0, **BETAS),
    "fedadam_v0=tau^2": optimizers.adam(ETA, tau=TAU, **BETAS),
    "fedyogi_v0=0": optimizers.yogi(ETA, tau=TAU, v_0=0.0, **BETAS),
    "fedadagrad_beta1=0_v0=0": optimizers.adagrad(ETA, tau=TAU, v_0=0.0),
    "fedadam_bias_corrected_v0=0": optimizers.adam(ETA, tau=TAU, bias_correction=True, **BETAS),
}


def test_every_row_of_the_case_has_a_server():
    assert set(SERVERS) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_server_s_steps_give_its_row(name, dtype):
    server = SERVERS[name]
    params = {"x": tensor(INPUT["x0"], dtype=dtype)}
    state = server.init(params)

    for number, change in enumerate(INPUT["mean_client_change_per_round"], 1):
        server.step(params, {"x": tensor(change, dtype=dtype)}, state, number, 1.0)
        assert params["x"].tolist() == pytest.approx(ROWS[name][number - 1], abs=CASE["tolerance"])


@pytest.mark.parametrize("name", ROWS)
def test_fedavg_with_that_server_gives_its_row(name, line, pull, one_round):
    # Two clients whose changes average to the case's; with lr 1 a change is minus the gradient.
    algorithm = fm.fedavg(
        fm.local.sgd(line([float(number) for number in INPUT["x0"]]), lr=1.0), server=SERVERS[name]
    )

    snapshot = None
    for expected, change in zip(ROWS[name], INPUT["mean_client_change_per_round"], strict=True):
        clients = {side: pull([-number + side for number in change]) for side in (-1, 1)}
        snapshot, _ = one_round(algorithm, clients, snapshot)
        found = snapshot.state["params"]["w"].tolist()
        assert found == pytest.approx(expected, abs=CASE["tolerance"])


NAMED = {
    "fedadam_v0=0": (fm.fedadam, {"v_0": 0.0, **BETAS}),
    "fedadam_v0=tau^2": (fm.fedadam, BETAS),
    "fedyogi_v0=0": (fm.fedyogi, {"v_0": 0.0, **BETAS}),
    "fedadagrad_beta1=0_v0=0": (fm.fedadagrad, {"v_0": 0.0}),
    "fedadam_bias_corrected_v0=0": (fm.fedadam, {"bias_correction": True, **BETAS}),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_algorithm_of_that_name_gives_its_row(name, line, pull, one_round):
    build, options = NAMED[name]
    x0 = [float(number) for number in INPUT["x0"]]
    algorithm = build(fm.local.sgd(line(x0), lr=1.0), lr=ETA, tau=TAU, **options)

    snapshot = None
    for expected, change in zip(ROWS[name], INPUT["mean_client_change_per_round"], strict=True):
        clients = {side: pull([-number + side for number in change]) for side in (-1, 1)}
        snapshot, _ = one_round(algorithm, clients, snapshot)
        found = snapshot.state["params"]["w"].tolist()
        assert found == pytest.approx(expected, abs=CASE["tolerance"])


@pytest.mark.parametrize("corrected", [False, True], ids=["plain", "bias correction"])
@pytest.mark.parametrize("v_0", [None, 0.0, 1.0], ids=str)
def test_yogi_s_second_moment_stays_a_number_whatever_changes_come(v_0, corrected):
    server = optimizers.yogi(ETA, tau=TAU, v_0=v_0, bias_correction=corrected, **BETAS)
    params = {"x": torch.zeros(3)}
    state = server.init(params)

    # Nothing at all, then much, then nearly nothing: v rises and falls, never below 0.
    for number, change in enumerate((0.0, 1e4, 1e-4, -1e4, 0.0, 1e-4) * 5, 1):
        server.step(params, {"x": tensor([change, -change, 0.0])}, state, number, 1.0)

        assert (state["v"]["x"] >= 0).all()
        assert torch.isfinite(params["x"]).all()
    assert params["x"][2].item() == 0.0
