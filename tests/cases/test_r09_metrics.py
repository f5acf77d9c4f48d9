"""Case R09: values over clients are those of the pooled data, not means of means."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn, tensor

import folkmoot as fm
from folkmoot.engines import parallel, sequential
from folkmoot.local.evaluate import finished

CASE = yaml.safe_load((Path(__file__).parent / "R09.yaml").read_text(encoding="utf-8"))
INPUT, EXPECTED, TOLERANCE = CASE["input"], CASE["expected"], CASE["tolerance"]


class Given(nn.Module):
    """Output the input: what a client's rows say is what the model answers."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x):
        return x * self.w


def right_and_wrong(right, rows):
    """Logits of which so many of the rows are right."""
    x = tensor([1.0] * right + [-1.0] * (rows - right), dtype=torch.float64)
    return {"x": x, "y": torch.ones(rows, dtype=torch.int64)}


def counted(true_positive, false_positive, false_negative):
    said = [1.0] * (true_positive + false_positive) + [-1.0] * false_negative
    true = [1] * true_positive + [0] * false_positive + [1] * false_negative
    return {"x": tensor(said, dtype=torch.float64), "y": tensor(true)}


def off_by(error, rows):
    zeros = torch.zeros(rows, dtype=torch.float64)
    return {"x": zeros + error, "y": zeros}


CLIENTS = {
    "accuracy": (
        fm.classifier(Given()),
        [
            right_and_wrong(round(share * rows), rows)
            for share, rows in zip(*INPUT["accuracy"].values(), strict=True)
        ],
    ),
    "rmse": (
        fm.regressor(Given()),
        [off_by(error, rows) for error, rows in zip(*INPUT["rmse"].values(), strict=True)],
    ),
    "f1": (
        fm.classifier(Given(), metrics=[fm.metrics.f1()]),
        [counted(*counts) for counts in INPUT["f1_from_counts"]["tp_fp_fn"]],
    ),
}


def judged(objective, tests, engine=None, test=None):
    """The last row of a run that learns nothing and judges."""
    clients = fm.data.from_datasets(tests, tests)
    work = fm.local.sgd(objective, lr=0.0)
    result = fm.run(
        fm.fedavg(work), clients, rounds=1, test=test, engine=engine or sequential(), progress=False
    )
    return result.history[-1]


@pytest.mark.parametrize("name", CLIENTS)
def test_sums_of_clients_finish_to_the_pooled_value(name, local_update):
    objective, clients = CLIENTS[name]
    work = fm.local.evaluate(objective)

    total = fm.aggregate(fm.aggregators.total(), [local_update(work, client) for client in clients])

    assert finished(objective, total)[name] == pytest.approx(EXPECTED[name], abs=TOLERANCE)


@pytest.mark.parametrize("engine", [sequential(), parallel(2)], ids=["sequential", "processes"])
@pytest.mark.parametrize("name", CLIENTS)
def test_a_run_reports_the_pooled_value_over_clients(name, engine):
    row = judged(*CLIENTS[name], engine=engine)

    assert row[f"clients_{name}"] == pytest.approx(EXPECTED[name], abs=TOLERANCE)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_run_reports_the_same_on_the_pooled_rows_as_a_held_out_set(name):
    objective, clients = CLIENTS[name]
    pooled = {leaf: torch.cat([client[leaf] for client in clients]) for leaf in ("x", "y")}

    row = judged(objective, clients, test=pooled)

    assert row[f"test_{name}"] == pytest.approx(EXPECTED[name], abs=TOLERANCE)
    assert row["clients_loss"] == pytest.approx(row["test_loss"], abs=TOLERANCE)


@pytest.mark.parametrize("scalar", [False, True], ids=["loss by row", "loss of a batch"])
def test_a_loss_over_unequal_batches_is_the_mean_over_rows(scalar, local_update):
    case = INPUT["batch_loss_means"]
    rows = [value for size, value in zip(*case.values(), strict=True) for _ in range(size)]
    objective = fm.objective(
        Given(), lambda out, _: out.mean() if scalar else out.reshape(-1), target=None
    )
    work = fm.local.evaluate(objective, batch_size=case["sizes"][0])

    sums = local_update(work, {"x": tensor(rows, dtype=torch.float64)}).value

    assert finished(objective, sums)["loss"] == pytest.approx(EXPECTED["loss"], abs=TOLERANCE)


def test_perplexity_is_of_all_tokens():
    # One text with a probability of 1/2 for each of two tokens, one with 1/8 for its only one.
    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x):
            chance = torch.where(x == 0, 0.5, 0.125).double()
            return torch.stack([chance.log() + self.w, (1 - chance).log()], dim=-1)

    tests = [
        {"x": tensor([[0, 0]]), "y": tensor([[0, 0]])},
        {"x": tensor([[1, 1]]), "y": tensor([[0, -100]])},
    ]

    row = judged(fm.language_model(Sure()), tests)

    assert row["clients_perplexity"] == pytest.approx((2 * 2 * 8) ** (1 / 3), rel=1e-6)


def test_what_is_no_function_of_sums_is_a_mean_of_clients_by_examples():
    spread = fm.metrics.whole("range", lambda outputs, targets: float(outputs.max()))
    tests = [off_by(1.0, 10), off_by(3.0, 30)]

    row = judged(fm.regressor(Given(), metrics=[spread]), tests)

    assert row["clients_range"] == pytest.approx((1.0 * 10 + 3.0 * 30) / 40, abs=TOLERANCE)


def test_quantiles_and_the_worst_tenth_are_over_clients():
    tests = [off_by(float(error), rows) for error, rows in [(1, 50), (2, 1), (4, 1)]]

    row = judged(fm.regressor(Given()), tests)

    assert row["clients_rmse_median"] == pytest.approx(2.0)
    assert row["clients_rmse_worst_decile"] == pytest.approx(4.0)
    assert row["clients_rmse_p10"] == pytest.approx(1.2)  # 1 + 0.2 * (2 - 1)
    assert row["clients_rmse_p90"] == pytest.approx(3.6)
    # Of 1, 2 and 4 around 7 / 3: (16 + 1 + 25) / 9 is the mean square, 42 / 27.
    assert row["clients_rmse_std"] == pytest.approx(math.sqrt(42 / 27))
    assert row["clients_rmse"] == pytest.approx(math.sqrt((50 + 4 + 16) / 52))


def test_a_value_that_is_not_finite_is_not_hidden_by_leaving_out_where_it_stands():
    # 1,200 rows are judged in several pieces; one row's squared error is no float64 number.
    test = off_by(1.0, 1_200)
    test["x"][0] = 1e200

    row = judged(fm.regressor(Given()), [off_by(1.0, 4)], test=test)

    assert not math.isfinite(row["test_loss"])
    assert not math.isfinite(row["test_rmse"])


def test_a_client_whose_value_is_not_finite_is_not_hidden():
    bad = off_by(1.0, 4)
    bad["x"][0] = 1e200

    row = judged(fm.regressor(Given()), [off_by(1.0, 4), bad])

    assert not math.isfinite(row["clients_loss"])
    assert not math.isfinite(row["clients_loss_worst_decile"])
    assert not math.isfinite(row["clients_loss_std"])
