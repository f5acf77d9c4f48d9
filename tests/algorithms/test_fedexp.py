"""FedExp: how far the server steps, by hand, and that it never divides by zero."""

import pytest
import torch

import folkmoot as fm
from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError

F64 = torch.float64


def ends(algorithm, deltas, one_round, pull, rows=None):
    """Return where clients who move by these deltas bring a model that begins at 0."""
    rows = rows or [1] * len(deltas)
    moves = [[-number for number in delta] for delta in deltas]
    clients = {
        client: pull(move, rows=count, dtype=F64)
        for client, (move, count) in enumerate(zip(moves, rows, strict=True))
    }
    snapshot, report = one_round(algorithm, clients)
    assert report.left_out == []
    return snapshot.state["params"]["w"].tolist()


def test_clients_at_right_angles_are_extrapolated_as_worked_by_hand(line, pull, one_round):
    algorithm = fm.fedexp(fm.local.sgd(line([0.0, 0.0, 0.0], F64), lr=1.0), eps=0.25)

    found = ends(algorithm, [[3, 0, 0], [0, 3, 0], [0, 0, 3]], one_round, pull)

    # Squares add up to 27; the mean is (1, 1, 1), of square 3: 27 / (2 * 3 * 3.25) = 18 / 13.
    assert found == pytest.approx([18 / 13] * 3, rel=1e-12)


def test_clients_who_agree_are_averaged_plainly(line, pull, one_round):
    algorithm = fm.fedexp(fm.local.sgd(line([0.0, 0.0], F64), lr=1.0), eps=1e-9)

    found = ends(algorithm, [[2, 1], [2, 1]], one_round, pull)

    assert found == [2.0, 1.0]  # 10 / (2 * 2 * 5) is a half, so the rate is 1.


def test_clients_who_cancel_are_bounded_by_eps(line, pull, one_round):
    algorithm = fm.fedexp(fm.local.sgd(line([0.0], F64), lr=1.0), eps=0.5)

    # The mean is 0.001: (1.001^2 + 0.999^2) / (2 * 2 * (0.000001 + 0.5)).
    found = ends(algorithm, [[1.001], [-0.999]], one_round, pull)

    assert found == pytest.approx([0.001 * 1.0], rel=1e-9)
    algorithm = fm.fedexp(fm.local.sgd(line([0.0], F64), lr=1.0), eps=1e-6)
    found = ends(algorithm, [[1.001], [-0.999]], one_round, pull)
    assert found == pytest.approx([0.001 * 2.000002 / (4 * 2e-6)], rel=1e-9)


def test_weights_of_a_weighted_mean_weigh_the_squares_too(line, pull, one_round):
    work = fm.local.sgd(line([0.0, 0.0], F64), lr=1.0, batch_size=None)
    algorithm = fm.fedexp(work, eps=0.5, aggregator=fm.aggregators.weighted_mean())

    found = ends(algorithm, [[8, 0], [0, 8]], one_round, pull, rows=[3, 1])

    # Mean (6, 2); squares 64: 64 / (2 * 40.5).
    assert found == pytest.approx([6.0, 2.0], rel=1e-12)  # 0.79, so the rate is 1.
    found = ends(algorithm, [[8, 0], [0, 24]], one_round, pull, rows=[3, 1])
    # Mean (6, 6); squares (3 * 64 + 576) / 4 = 192: 192 / (2 * 72.5).
    assert found == pytest.approx([6 * 192 / 145] * 2, rel=1e-12)


@pytest.mark.parametrize("idle", [{"steps": 0}, {"epochs": 0}, {"lr": 0.0}], ids=str)
def test_without_any_delta_nothing_is_divided_by_zero(idle, line, pull, one_round):
    algorithm = fm.fedexp(fm.local.sgd(line(2.5), **{"lr": 0.1, **idle}))

    snapshot, report = one_round(algorithm, {0: pull(1.0), 1: pull(3.0)})

    assert report.left_out == []
    assert snapshot.state["params"]["w"].item() == 2.5


def test_the_square_is_over_all_parameters_and_over_no_buffer(one_round):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2)).double()
    # The same rows under opposite labels: clients disagree, but for what the second step on adds.
    torch.nn.init.zeros_(model[1].weight)
    torch.nn.init.zeros_(model[1].bias)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=F64) + 9
    clients = {c: {"x": x, "y": torch.tensor([c, c, 1 - c, 1 - c])} for c in (0, 1)}
    work = fm.local.sgd(fm.classifier(model), lr=0.5, steps=3, batch_size=None)
    mean = fm.aggregators.uniform_mean()

    begun = work.init()
    exp, _ = one_round(fm.fedexp(work, eps=1e-6), clients)
    avg, _ = one_round(fm.fedavg(work, aggregator=mean), clients)
    alone = [one_round(fm.fedavg(work), {c: clients[c]})[0] for c in clients]

    squares = [trees.norm(trees.sub(one.state["params"], begun["params"])) ** 2 for one in alone]
    delta = trees.sub(avg.state["params"], begun["params"])
    rate = sum(squares) / (2 * 2 * (trees.norm(delta) ** 2 + 1e-6))
    expected = trees.axpy(max(1.0, rate.item()), delta, begun["params"])
    assert rate > 1.1
    torch.testing.assert_close(exp.state["params"], expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(exp.state["buffers"], avg.state["buffers"], rtol=0, atol=0)


@pytest.mark.parametrize("eps", [0.0, -1e-3, float("nan"), float("inf")])
def test_an_eps_out_of_range_is_refused(eps, line):
    with pytest.raises(SettingsError, match="eps must be a finite number above 0"):
        fm.fedexp(fm.local.sgd(line(), lr=0.1), eps=eps)


def test_work_and_aggregators_that_do_not_fit_are_refused(line):
    with pytest.raises(SettingsError, match=r"fedexp\(\) needs local work"):
        fm.fedexp(line())
    with pytest.raises(SettingsError, match=r"fedexp\(\) needs the mean over clients"):
        fm.fedexp(fm.local.sgd(line(), lr=0.1), aggregator=fm.aggregators.total())
