"""Linear estimators of scikit-learn: closed forms, missing classes, the same model by PyTorch."""

import pickle
import sys

import numpy as np
import pytest
import torch
from torch import nn

import folkmoot as fm
from folkmoot.adapters.sklearn import sklearn

linear = pytest.importorskip("sklearn.linear_model")


def run(work, clients, rounds=1, **more):
    options = {"workers": 1, "progress": False, "client_tests": False, **more}
    return fm.run(fm.fedavg(work), clients, rounds=rounds, **options)


def numbers(rows=(20, 40, 60)):
    draw, found = torch.Generator().manual_seed(0), {}
    for client, count in enumerate(rows):
        x = torch.randn(count, 3, generator=draw, dtype=torch.float64) + client
        y = x @ torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64) + 4
        found[client] = (x, y + torch.randn(count, generator=draw, dtype=torch.float64))
    return found


def solved(x, y, alpha=0.0):
    """Ridge regression by its normal equations; the intercept is not pulled."""
    rows = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    pull = alpha * torch.diag(torch.tensor([1.0, 1, 1, 0], dtype=x.dtype))
    return torch.linalg.solve(rows.T @ rows + pull, rows.T @ y)


@pytest.mark.parametrize("estimator", [linear.LinearRegression(), linear.Ridge(alpha=2.0)])
def test_one_round_is_the_mean_of_closed_forms_by_examples(estimator):
    clients = numbers()
    alpha = getattr(estimator, "alpha", 0.0)
    shares = torch.tensor([20.0, 40, 60], dtype=torch.float64) / 120
    expected = shares @ torch.stack([solved(x, y, alpha) for x, y in clients.values()])

    result = run(sklearn(estimator, inputs=3), clients, test=clients[0])

    learnt = result.model.learner
    found = torch.tensor([*learnt.coef_, learnt.intercept_])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert type(learnt) is type(estimator) and not hasattr(estimator, "coef_")
    x, y = clients[0]
    error = x @ expected[:3] + expected[3] - y
    assert result.metrics["test_rmse"] == pytest.approx(float(error.square().mean().sqrt()))
    assert learnt.score(x.numpy(), y.numpy()) > 0.5


def test_clients_of_one_covariance_give_the_pooled_solution():
    x, y = numbers()[2]
    clients = {0: (x, y), 1: (x, y + 1), 2: (x, 2 * y)}
    pooled = solved(torch.cat([x, x, x]), torch.cat([y, y + 1, 2 * y]))

    learnt = run(sklearn(linear.LinearRegression(), inputs=3), clients).model.learner

    torch.testing.assert_close(torch.tensor([*learnt.coef_, learnt.intercept_]), pooled)


@pytest.mark.parametrize(
    ("estimator", "rounds"),
    [
        (linear.Lasso(alpha=1e-4), 1),
        (linear.ElasticNet(alpha=1e-4), 1),
        (linear.SGDRegressor(learning_rate="constant", eta0=5e-3, alpha=0), 100),
    ],
)
def test_others_come_near_the_closed_form_where_all_clients_are_alike(estimator, rounds):
    x, y = numbers()[0]
    expected = solved(x, y)

    found = run(sklearn(estimator, inputs=3), {0: (x, y), 1: (x, y)}, rounds).model.learner

    assert torch.as_tensor(found.coef_) == pytest.approx(expected[:3], abs=0.1)
    assert float(np.squeeze(found.intercept_)) == pytest.approx(float(expected[3]), abs=0.1)


def logistic_loss(weight, bias, x, y, c):
    """What LogisticRegression minimises: C times the cross-entropies, and half a squared norm."""
    logits = x @ weight.T + bias
    if len(weight) == 1:
        each = nn.functional.binary_cross_entropy_with_logits(
            logits[:, 0], y.double(), reduction="sum"
        )
    else:
        each = nn.functional.cross_entropy(logits, y, reduction="sum")
    return c * each + weight.square().sum() / 2


@pytest.mark.parametrize("has", [(0, 1, 2), (0, 2), (1,)], ids=["all", "two of three", "one"])
def test_a_client_that_lacks_classes_learns_the_loss_of_all_of_them(has):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=draw, dtype=torch.float64)
    y = torch.tensor(has)[torch.randint(len(has), (60,), generator=draw)]
    estimator = linear.LogisticRegression(C=0.5, tol=1e-10, max_iter=1000)

    found = run(sklearn(estimator, inputs=2, classes=3), {0: (x, y)}).model.learner

    weight, bias = (
        torch.tensor(part, requires_grad=True) for part in (found.coef_, found.intercept_)
    )
    logistic_loss(weight, bias, x, y, 0.5).backward()
    assert weight.shape == (3, 2)
    assert weight.grad.abs().max() < 1e-3
    # Without data of a class nothing holds its intercept, and the loss has no minimum there.
    assert bias.grad.abs().max() < (1e-3 if len(has) == 3 else 0.1)
    assert set(found.predict(x.numpy())) <= set(range(3))


@pytest.fixture(scope="module")
def hearts():
    return fm.data.heart_disease()


def descended(clients, steps):
    """One round of FedAvg by PyTorch, in which each client descends until it is there."""
    ends, sizes = [], []
    for data in clients.values():
        x, y = data["x"].double(), data["y"]
        weight = torch.zeros(1, 13, dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        search = {"tolerance_grad": 1e-9, "line_search_fn": "strong_wolfe"}
        solver = torch.optim.LBFGS([weight, bias], max_iter=steps, **search)

        def loss(weight=weight, bias=bias, x=x, y=y, solver=solver):
            solver.zero_grad()
            found = logistic_loss(weight, bias, x, y, 1.0)
            found.backward()
            return found

        solver.step(loss)
        ends.append(torch.cat([weight.detach()[0], bias.detach()]))
        sizes.append(len(x))
    mean = torch.tensor(sizes, dtype=torch.float64) @ torch.stack(ends) / sum(sizes)
    return mean[None, :-1], mean[-1:]


def test_hospitals_learn_what_pytorch_learns_of_the_same_loss(hearts):
    clients, test = hearts
    # All of Switzerland's patients are ill: nothing holds the intercept there.
    clients = {name: clients[name].train for name in ("cleveland", "hungarian", "va")}
    weight, bias = descended(clients, 200)

    work = sklearn(linear.LogisticRegression(tol=1e-8, max_iter=500), inputs=13, classes=2)
    result = run(work, clients, test=test)

    found = result.model.learner
    assert found.coef_ == pytest.approx(weight.numpy(), abs=1e-4)
    assert found.intercept_ == pytest.approx(bias.numpy(), abs=1e-4)
    right = (test["x"].double() @ weight[0] + bias > 0) == test["y"]
    assert result.metrics["test_accuracy"] == pytest.approx(float(right.double().mean()))


def test_short_rounds_of_hospitals_come_near_the_pooled_accuracy(hearts):
    clients, test = hearts
    x, y = (torch.cat([c.train[name] for c in clients.values()]).numpy() for name in "xy")
    pooled = linear.LogisticRegression().fit(x, y).score(test["x"].numpy(), test["y"].numpy())

    work = sklearn(linear.LogisticRegression(max_iter=1), inputs=13, classes=2)
    assert len(clients["switzerland"].train["y"].unique()) == 1
    one, two = (run(work, clients, 10, test=test, workers=count) for count in (1, 2))

    assert one.metrics["test_accuracy"] >= pooled - 0.02
    assert one.model.learner.coef_.tolist() == two.model.learner.coef_.tolist()
    assert one.model.learner.score(test["x"].numpy(), test["y"].numpy()) == pytest.approx(
        one.metrics["test_accuracy"]
    )


@pytest.mark.parametrize(
    "estimator",
    [
        linear.SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01),
        linear.Perceptron(),
    ],
)
def test_steps_train_classifiers_with_the_same_bits_at_any_number_of_workers(hearts, estimator):
    clients, test = hearts
    work = sklearn(estimator, inputs=13, classes=2, epochs=2)

    one, two = (run(work, clients, 5, test=test, workers=count) for count in (1, 2))

    assert one.metrics["test_accuracy"] > 0.65
    assert one.model.learner.coef_.tolist() == two.model.learner.coef_.tolist()


def test_a_model_is_pickled_as_any_module_is():
    model = run(sklearn(linear.Ridge(), inputs=3), numbers()).model

    read = pickle.loads(pickle.dumps(model))

    x = numbers()[0][0]
    assert torch.equal(read(x), model(x))
    assert read.learner.coef_.tolist() == model.learner.coef_.tolist()


def test_a_fitted_estimator_is_the_first_model():
    clients = numbers()
    x, y = (part.numpy() for part in clients[0])
    fitted = linear.Ridge().fit(x, y)

    state = sklearn(fitted, inputs=3).init()

    assert state["params"]["coef_"].tolist() == fitted.coef_.tolist()
    assert state["params"]["coef_"].dtype == torch.float64


@pytest.mark.parametrize(
    ("estimator", "options", "sentence"),
    [
        (linear.LogisticRegression(), {}, "how many classes there are in all"),
        (linear.LogisticRegression(solver="liblinear"), {"classes": 2}, "liblinear"),
        (linear.LogisticRegression(class_weight="balanced"), {"classes": 2}, "different losses"),
        (linear.SGDClassifier(average=True), {"classes": 2}, "second model"),
        (linear.SGDRegressor(early_stopping=True), {}, "early_stopping"),
        (linear.LogisticRegression(), {"classes": 2.0}, r"at least 2, but is 2\.0"),
        (linear.Perceptron(), {"classes": 2, "epochs": 1.5}, r"epochs must be a whole .* 1\.5"),
        (linear.LinearRegression(), {"classes": 2}, "learns numbers"),
        (linear.LinearRegression(), {"epochs": 3}, "Leave epochs= out"),
        (linear.LinearRegression, {}, "the class LinearRegression"),
        (linear.HuberRegressor(), {}, r"fm.adapters.functions"),
        (linear.Ridge().fit([[1.0], [2.0]], [1.0, 2.0]), {}, r"coef_ of shape \(1,\)"),
        (linear.Perceptron().fit(np.eye(3), ["a", "b", "b"]), {"classes": 2}, "from 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(estimator, options, sentence):
    with pytest.raises(fm.SettingsError, match=sentence):
        sklearn(estimator, inputs=3, **options)


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), "holds the label 2"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 0.5]), r"holds the label 0\.5"),
        (torch.zeros(3, 2), torch.zeros(3, 2), r"'y' \(3, 2\) are not"),
        (torch.zeros(3, 4), torch.tensor([0, 1, 0]), r"'x' \(3, 4\) .* not \(rows, 2\)"),
    ],
)
def test_rows_that_are_not_as_stated_are_told_with_their_client(x, y, sentence):
    work = sklearn(linear.LogisticRegression(), inputs=2, classes=2)

    with pytest.raises(fm.ClientError, match=sentence) as caught:
        run(work, {"oslo": (x, y)})

    assert "'oslo'" in "".join(caught.value.__notes__)


def test_labels_in_a_column_are_labels():
    x = torch.eye(3).repeat(10, 1)
    y = torch.arange(3).repeat(10)[:, None]
    work = sklearn(linear.LogisticRegression(), inputs=3, classes=np.int64(3))

    assert run(work, {0: (x, y)}, test=(x, y)).metrics["test_accuracy"] == 1


def test_without_the_library_a_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)

    with pytest.raises(fm.SettingsError, match=r"folkmoot\[sklearn\]"):
        sklearn(linear.Ridge(), inputs=3)
