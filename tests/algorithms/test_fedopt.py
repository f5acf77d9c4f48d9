"""FedAvgM, FedAdagrad, FedAdam and FedYogi are FedAvg with one server optimizer each."""

import math

import pytest
import torch

import folkmoot as fm
from folkmoot import optimizers
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError

PAIRS = {
    "fedavgm": (lambda work: fm.fedavgm(work), optimizers.sgd(1.0, momentum=0.9)),
    "fedavgm with nesterov": (
        lambda work: fm.fedavgm(work, momentum=0.5, lr=0.3, nesterov=True),
        optimizers.sgd(0.3, momentum=0.5, nesterov=True),
    ),
    "fedadagrad": (lambda work: fm.fedadagrad(work, lr=0.1), optimizers.adagrad(0.1)),
    "fedadagrad with all": (
        lambda work: fm.fedadagrad(work, lr=0.1, tau=0.2, beta_1=0.3, v_0=0.4),
        optimizers.adagrad(0.1, tau=0.2, beta_1=0.3, v_0=0.4),
    ),
    "fedadam": (lambda work: fm.fedadam(work, lr=0.1), optimizers.adam(0.1)),
    "fedadam with all": (
        lambda work: fm.fedadam(
            work, lr=0.1, beta_1=0.5, beta_2=0.6, tau=0.2, v_0=0.4, bias_correction=True
        ),
        optimizers.adam(0.1, beta_1=0.5, beta_2=0.6, tau=0.2, v_0=0.4, bias_correction=True),
    ),
    "fedyogi": (lambda work: fm.fedyogi(work, lr=0.1), optimizers.yogi(0.1)),
    "fedyogi with all": (
        lambda work: fm.fedyogi(
            work, lr=0.1, beta_1=0.5, beta_2=0.6, tau=0.2, v_0=0.4, bias_correction=True
        ),
        optimizers.yogi(0.1, beta_1=0.5, beta_2=0.6, tau=0.2, v_0=0.4, bias_correction=True),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_fedavg_with_that_server_to_the_bit(name, line, pull, one_round):
    build, server = PAIRS[name]
    work = fm.local.sgd(line([0.0, 1.0]), lr=0.5)
    named, plain = build(work), fm.fedavg(work, server=server)

    one = other = None
    for gradient in ([1.0, -2.0], [-3.0, 0.5], [0.25, 0.0]):
        one, _ = one_round(named, {0: pull(gradient)}, one)
        other, _ = one_round(plain, {0: pull(gradient)}, other)

    assert named.name == name.split()[0]
    for left, right in zip(trees.leaves(one.state), trees.leaves(other.state), strict=True):
        assert torch.equal(left, right)


def test_fedavgm_keeps_a_share_of_its_last_step(line, pull, one_round):
    algorithm = fm.fedavgm(fm.local.sgd(line(), lr=1.0), momentum=0.5, lr=2.0)

    snapshot = None
    for _ in range(3):
        snapshot, _ = one_round(algorithm, {0: pull(-1.0)}, snapshot)

    # v = 1, 1.5, 1.75; x = 2 * (1 + 1.5 + 1.75).
    assert snapshot.state["params"]["w"].item() == 8.5


def test_bias_correction_lets_the_first_step_of_yogi_be_the_rate(line, pull, one_round):
    # m = 0.1 d and v = 0.01 d^2 are divided by 0.1 and 0.01: the step is lr * d / (|d| + tau).
    work = fm.local.sgd(line([0.0, 0.0], torch.float64), lr=1.0)
    algorithm = fm.fedyogi(work, lr=0.25, tau=1.0, bias_correction=True)

    snapshot, _ = one_round(algorithm, {0: pull([-3.0, 1.0], dtype=torch.float64)})

    expected = [0.25 * 3 / 4, -0.25 * 1 / 2]
    assert snapshot.state["params"]["w"].tolist() == pytest.approx(expected, rel=1e-12)


def test_a_bias_corrected_yogi_is_the_formula_over_three_steps():
    beta_1, beta_2, tau, lr = 0.5, 0.75, 0.5, 2.0
    server = optimizers.yogi(lr, beta_1=beta_1, beta_2=beta_2, tau=tau, bias_correction=True)
    params = {"x": torch.zeros(1, dtype=torch.float64)}
    state = server.init(params)
    x = m = v = 0.0

    for number, d in enumerate((3.0, -1.0, 0.5), 1):
        server.step(params, {"x": torch.tensor([d], dtype=torch.float64)}, state, number, 1.0)
        m = beta_1 * m + (1 - beta_1) * d
        v -= (1 - beta_2) * d * d * math.copysign(1.0, v - d * d)
        root = math.sqrt(v / (1 - beta_2**number))
        x += lr * m / (1 - beta_1**number) / (root + tau)

        assert params["x"].item() == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize("build", [fm.fedavgm, fm.fedadagrad, fm.fedadam, fm.fedyogi])
def test_a_rate_may_be_a_function_of_the_round(build, line, pull, one_round):
    algorithm = build(fm.local.sgd(line(), lr=1.0), lr=lambda round: 0.5 if round == 1 else 0.0)

    first, _ = one_round(algorithm, {0: pull(1.0)})
    second, _ = one_round(algorithm, {0: pull(1.0)}, first)

    assert first.state["params"]["w"].item() < 0
    assert torch.equal(second.state["params"]["w"], first.state["params"]["w"])


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda work: fm.fedadam(torch.nn.Linear(1, 1), lr=0.1), r"fedadam\(\) needs local work"),
        (lambda work: fm.fedyogi(None, lr=0.1), r"fedyogi\(\) needs local work"),
        (lambda work: fm.fedadagrad(work, lr=-0.1), "lr must be a finite number of at least 0"),
        (lambda work: fm.fedadagrad(work.objective, lr=0.1), r"fedadagrad\(\) needs local work"),
        (lambda work: fm.fedadam(work, lr=0.1, tau=0.0), "tau must be a finite number above 0"),
        (lambda work: fm.fedyogi(work, lr=0.1, beta_2=1.0), r"beta_2 must be in \[0, 1\)"),
        (lambda work: fm.fedavgm(work, momentum=1.0), r"momentum must be in \[0, 1\)"),
        (lambda work: fm.fedavgm(work, momentum=0.0, nesterov=True), "nesterov=True looks ahead"),
        (lambda work: fm.fedavgm(work, aggregator="mean"), "aggregator must be built"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_built(build, reason, line):
    with pytest.raises(SettingsError, match=reason):
        build(fm.local.sgd(line(), lr=0.1))
