"""Linear regression by mean products is the estimator's own fit of all rows in one place."""

import numpy as np
import pytest
import torch

import folkmoot as fm
from folkmoot.adapters.least_squares import least_squares

linear = pytest.importorskip("sklearn.linear_model")


def clients(shift=1.0):
    """Clients whose inputs lie apart, so that no mean of local solutions is the pooled one."""
    draw, found = torch.Generator().manual_seed(0), {}
    for client, rows in enumerate((5, 40, 60)):
        x = torch.randn(rows, 3, generator=draw, dtype=torch.float64) * (1 + client)
        y = x.square().sum(1) + torch.randn(rows, generator=draw, dtype=torch.float64)
        found[client] = (x + shift * client, y)
    return found


def pooled(estimator, data):
    x, y = (torch.cat(parts).numpy() for parts in zip(*data.values(), strict=True))
    return estimator.fit(x, y)


def run(estimator, data, **more):
    options = {"workers": 1, "progress": False, **more}
    return fm.run(least_squares(estimator, inputs=3), data, rounds=1, **options)


@pytest.mark.parametrize(
    "estimator",
    [
        linear.LinearRegression(),
        linear.LinearRegression(fit_intercept=False),
        linear.Ridge(alpha=7.0),
        linear.Ridge(alpha=7.0, fit_intercept=False),
    ],
    ids=repr,
)
def test_one_round_is_the_pooled_fit(estimator):
    result = run(estimator, clients(), test=clients()[0])

    expected, found = pooled(estimator, clients()), result.model.learner
    assert found.coef_ == pytest.approx(expected.coef_, rel=1e-9)
    assert found.intercept_ == pytest.approx(expected.intercept_, rel=1e-9)
    x, y = (part.numpy() for part in clients()[0])
    error = np.square(expected.predict(x) - y).mean()
    assert result.metrics["test_loss"] == pytest.approx(error, rel=1e-9)
    # Products of three inputs, 1 and y, in float64, and a weight; of Ridge also the rows.
    counted = 16 if isinstance(estimator, linear.Ridge) else 0
    assert result.traffic.upload_bytes == 3 * (5 * 5 * 8 + 8 + counted)


@pytest.mark.parametrize("estimator", [linear.LinearRegression(), linear.Ridge(alpha=1e-13)])
def test_inputs_that_hang_on_each_other_get_the_shortest_coefficients(estimator):
    data = {
        client: (torch.cat([x[:, :2], x[:, :1]], dim=1), y) for client, (x, y) in clients().items()
    }

    found = run(estimator, data).model.learner

    assert found.coef_ == pytest.approx(pooled(linear.LinearRegression(), data).coef_, rel=1e-6)
    assert found.coef_[0] == pytest.approx(found.coef_[2])


def test_ridge_counts_the_rows_of_those_whose_products_count():
    vast = torch.full((300, 3), 1e200, dtype=torch.float64), torch.ones(300, dtype=torch.float64)

    result = run(linear.Ridge(alpha=20.0), {**clients(), 3: vast})

    expected = pooled(linear.Ridge(alpha=20.0), clients())
    assert {left.client for left in result.left_out} == {3}
    assert result.model.learner.coef_ == pytest.approx(expected.coef_, rel=1e-9)


def test_ridge_keeps_inputs_of_the_smallest_scale():
    scale = torch.tensor([1e5, 1e-4, 1.0], dtype=torch.float64)
    data = {client: (x * scale, y) for client, (x, y) in clients().items()}

    found = run(linear.Ridge(alpha=1e-9), data).model.learner

    # The same in the units of the others, where scales only weigh the penalty.
    x, y = (torch.cat(parts) for parts in zip(*clients().values(), strict=True))
    x, y = x - x.mean(0), y - y.mean()
    expected = torch.linalg.solve(x.T @ x + torch.diag(1e-9 / scale.square()), x.T @ y)
    assert found.coef_ * scale.numpy() == pytest.approx(expected.numpy(), rel=1e-6)


@pytest.mark.parametrize("estimator", [linear.LinearRegression(), linear.Ridge(alpha=2.0)])
def test_sums_may_be_secure(estimator):
    algorithm = least_squares(estimator, inputs=3, length=500.0)

    # No client has more than 60 rows: room for larger weights would make the steps coarse.
    sums = fm.Secure(weight_cap=60)

    result = fm.run(algorithm, clients(), rounds=1, secure=sums, workers=1, progress=False)

    expected, found = pooled(estimator, clients()), result.model.learner
    assert result.history[0]["clipped"] == 0
    assert found.coef_ == pytest.approx(expected.coef_, abs=2e-4)
    assert found.intercept_ == pytest.approx(expected.intercept_, abs=2e-3)


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (lambda: least_squares(linear.Lasso(), inputs=3), "solves LinearRegression"),
        (lambda: least_squares(linear.Ridge(positive=True), inputs=3), "without positive="),
        (
            lambda: run(
                linear.Ridge(), clients(), privacy=fm.DP(noise_multiplier=1e-3, delta=1e-3)
            ),
            "cannot be private",
        ),
        (lambda: run(linear.Ridge(), clients(), compress=fm.codecs.quantize(8)), "compress="),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(program, sentence):
    with pytest.raises(fm.SettingsError, match=sentence):
        program()


def test_rows_of_another_shape_are_told_with_their_client():
    with pytest.raises(fm.ClientError, match=r"are not \(rows, 3\)") as caught:
        run(linear.Ridge(), {"oslo": (torch.zeros(4, 2), torch.zeros(4))})

    assert "'oslo'" in "".join(caught.value.__notes__)


def test_no_leaf_of_a_model_that_is_never_sent_can_stay_with_a_client():
    with pytest.raises(fm.SettingsError, match="sent no model, so no leaf of one can stay"):
        run(linear.LinearRegression(), clients(), personal="coef_")
