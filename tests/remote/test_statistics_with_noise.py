"""Statistics with noise: near the truth, as noisy as promised, paid for before they are drawn."""

import math

import pytest
import torch

import folkmoot as fm
from folkmoot.remote import private_count, private_histogram, private_mean

POLICY = fm.remote.Policy(min_rows=None, epsilon=1.0)


@pytest.fixture
def rows():
    """4,000 numbers in [0, 1]."""
    return torch.rand(4000, generator=torch.Generator().manual_seed(0))


def worker(rows, **policy):
    return fm.Worker("alice", {"t": rows}, fm.remote.Policy(min_rows=None, **policy))


def test_a_mean_is_near_the_truth(rows):
    alice = worker(rows, epsilon=10)

    noisy = private_mean(alice.data["t"].x, 0, 1, epsilon=5)

    # Noise of scale 1 / (5 * 4,000); 40 scales are exceeded once in e^40.
    assert noisy.item() == pytest.approx(rows.double().mean().item(), abs=40 / 20_000)
    assert alice.owner.spent() == 5


def test_noise_is_as_wide_as_its_epsilon_says():
    alice = worker(torch.zeros(10), epsilon=1e6)

    draws = torch.stack([private_count(alice.data["t"].x > 0, epsilon=0.5) for _ in range(400)])

    # Discrete Laplace of scale 2: variance 2 q / (1 - q)^2 with q = exp(-1/2).
    q = math.exp(-0.5)
    variance = 2 * q / (1 - q) ** 2
    # 400 draws of a law whose fourth moment is about 6 variances squared: a deviation of 0.11.
    assert draws.var().item() == pytest.approx(variance, rel=0.6)
    assert draws.mean().item() == pytest.approx(0, abs=6 * math.sqrt(variance / 400))
    assert torch.equal(draws, draws.round())


def test_rows_count_as_the_bounds_that_they_pass(rows):
    alice = worker(torch.tensor([1e30, -1e30, float("nan"), float("inf")] * 1000), epsilon=100)

    noisy = private_mean(alice.data["t"].x, -1, 3, epsilon=100)

    # 3, -1, -1 (what is no number counts as the least), 3.
    assert noisy.item() == pytest.approx(1.0, abs=1e-2)


def test_a_mean_of_columns_shares_its_epsilon(rows):
    alice = worker(rows.reshape(2000, 2), epsilon=20)

    noisy = private_mean(alice.data["t"].x, 0, 1, epsilon=20)

    assert noisy.shape == (2,) and noisy.dtype == torch.float64
    torch.testing.assert_close(noisy, rows.reshape(2000, 2).double().mean(0), atol=4e-3, rtol=0)


def test_a_histogram_counts_from_edge_to_edge(rows):
    alice = worker(rows, epsilon=50)

    noisy = private_histogram(alice.data["t"].x, [0, 0.25, 0.5, 2], epsilon=50)

    exact = torch.histogram(rows, torch.tensor([0, 0.25, 0.5, 2])).hist
    torch.testing.assert_close(noisy, exact.double(), atol=3, rtol=0)


def test_a_statistic_of_what_each_row_gives_is_one_of_rows(rows):
    alice = worker(rows, epsilon=50)

    noisy = private_mean((alice.data["t"].x[:1000] * 2 - 1).clamp(0, 1), 0, 1, epsilon=50)

    exact = (rows[:1000].double() * 2 - 1).clamp(0, 1).mean().item()
    assert noisy.item() == pytest.approx(exact, abs=1e-3)


def test_a_budget_that_is_gone_releases_nothing(rows):
    alice = worker(rows, epsilon=1.0)
    x = alice.data["t"].x
    private_mean(x, 0, 1, epsilon=0.6)

    with pytest.raises(fm.BudgetError, match=r"0.6 of 1 is spent. Nothing was released"):
        private_mean(x, 0, 1, epsilon=0.6)

    assert alice.owner.spent() == pytest.approx(0.6)
    private_count(x > 0.5, epsilon=0.4)


def test_a_ledger_outlasts_the_worker_and_a_kill(rows, tmp_path):
    policy = fm.remote.Policy(min_rows=None, epsilon=1.0, ledger=tmp_path / "alice.jsonl")
    first = fm.Worker("alice", {"t": rows}, policy, process=True)
    private_mean(first.data["t"].x, 0, 1, epsilon=0.7)
    first.close()

    with fm.Worker("alice", {"t": rows}, policy, process=True) as again:
        assert again.owner.spent() == pytest.approx(0.7)
        with pytest.raises(fm.BudgetError):
            private_mean(again.data["t"].x, 0, 1, epsilon=0.7)


def test_a_charge_is_written_before_noise_is_drawn(rows, monkeypatch):
    alice = worker(rows, epsilon=1.0)

    def broken(*given):
        raise ValueError("no noise")

    monkeypatch.setattr("folkmoot.remote.statistics.discrete_laplace", broken)
    with pytest.raises(fm.remote.RemoteError, match="could not answer"):
        private_mean(alice.data["t"].x, 0, 1, epsilon=0.5)

    assert alice.owner.spent() == 0.5


@pytest.mark.parametrize(
    "what",
    [
        lambda alice, x: x.sum(),
        lambda alice, x: x - x.mean(),
        lambda alice, x: x * alice.send(torch.arange(4000.0)),
        lambda alice, x: alice.send(torch.ones(10)),
        lambda alice, x: x.sort().values,
    ],
    ids=["a sum", "what others have entered", "a mask", "public numbers", "sorted"],
)
def test_noise_for_one_row_is_given_on_rows_alone(rows, what):
    alice = worker(rows, epsilon=1.0)

    with pytest.raises(fm.remote.Refused, match="hides one row of rows alone"):
        private_mean(what(alice, alice.data["t"].x), 0, 1, epsilon=0.5)

    assert alice.owner.spent() == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: private_mean(x, 1, 0, epsilon=1),
        lambda x: private_mean(x, 0, math.nan, epsilon=1),
        lambda x: private_mean(x, 0, 1, epsilon=0),
        lambda x: private_mean(x, 0, 1, epsilon=-1),
        lambda x: private_histogram(x, [1, 0], epsilon=1),
        lambda x: private_histogram(x, [1], epsilon=1),
        lambda x: private_count(x.unsqueeze(1), epsilon=1),
    ],
)
def test_impossible_statistics_are_refused_and_cost_nothing(rows, ask):
    alice = worker(rows, epsilon=1.0)

    with pytest.raises(fm.FolkmootError):
        ask(alice.data["t"].x)

    assert alice.owner.spent() == 0


def test_without_a_budget_there_are_none(rows):
    with pytest.raises(fm.remote.Refused, match="no epsilon="):
        private_count(worker(rows).data["t"].x > 0, epsilon=0.1)
    with pytest.raises(fm.SettingsError, match="pointer to a worker's rows"):
        private_count(rows, epsilon=0.1)


def test_bounds_whose_distance_is_no_number_are_refused(rows):
    alice = worker(rows, epsilon=1)

    # A row at the upper one would become NaN, and count as -2^63 of a grid's 2^20 steps.
    with pytest.raises(fm.remote.RemoteError, match="by a finite number"):
        private_mean(alice.data["t"].x * 1e308, -1.7e308, 1.7e308, epsilon=0.1)

    assert alice.owner.spent() == 0
