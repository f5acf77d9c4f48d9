"""Noise in shares: the published bounds, and that what we account for agrees with them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special

from folkmoot.codecs import gaussian_shares, rotate, skellam_shares, to_field
from folkmoot.core.codec import Bounds, Layout, chain
from folkmoot.core.errors import BudgetError, SettingsError
from folkmoot.privacy import (
    Gaussian,
    Ledger,
    LocalGaussian,
    Pure,
    Skellam,
    adjacency,
    delta_of,
    epsilon,
    epsilon_bound,
    noise_for,
    rounds_for,
)
from folkmoot.privacy.distributed import concentration, distance, rho
from folkmoot.privacy.divergences import ORDERS, _once, skellam_divergences
from folkmoot.privacy.events import as_json, from_json, is_open

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text())
ROWS = VECTORS["distributed_discrete_gaussian"]["rows"]
CLIENTS, SIZE, DELTA = 100, 2**17, 1e-5
RELEASES = [(0.7, 1), (1.0, 1), (4.0, 30), (10.0, 500)]


def behind(shares, noise, clients=CLIENTS, size=SIZE):
    """One client's share in steps, and the bounds, of noise in shares at 16 bits."""
    codec = chain(rotate(), to_field(noise=noise, bits=16), shares(noise, providers=clients))
    bounds = Bounds(l2=1.0, weight=1.0, clients=clients, size=size)
    state, bounds = codec.init(bounds, Layout.of({"w": torch.zeros(size)}))
    return float(state["2"]["share"]), bounds


def by_orders(divergences, delta):
    """Epsilon from divergences of all orders, by Canonne, Kamath, Steinke, proposition 12."""
    found = divergences + np.log1p(-1 / ORDERS) - np.log(delta * ORDERS) / (ORDERS - 1)
    return found.min()


# Discrete Gaussian shares


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['sigma2_per_client']} x {row['n']}")
def test_the_published_bound_is_that_of_the_reference_values(row):
    variance, n, l2, size = (row[name] for name in ("sigma2_per_client", "n", "D2", "d"))

    assert distance(variance, n) == pytest.approx(row["tau"], rel=1e-9)
    assert concentration(variance, n, l2, size) == pytest.approx(row["eps_zcdp"], rel=1e-9)
    assert rho(variance, n, l2, size) == pytest.approx(row["rho"], rel=1e-9)


def test_one_share_alone_is_a_discrete_gaussian():
    assert distance(0.1, 1) == 0
    assert concentration(4.0, 1, 6.0, 10**6) == 3.0
    assert rho(4.0, 1, 6.0, 10**6) == 4.5


@pytest.mark.parametrize(("variance", "clients"), [(0.3, 2), (0.5, 3), (0.5, 6), (1.0, 4)])
def test_a_sum_of_shares_is_no_further_from_a_discrete_gaussian_than_stated(variance, clients):
    values = np.arange(-60, 61)
    share = np.exp(-(values**2) / (2 * variance))
    total = share
    for _ in range(clients - 1):
        total = np.convolve(total, share)
    reach = np.arange(len(total)) - len(total) // 2
    wanted = np.exp(-(reach**2) / (2 * variance * clients))

    near = abs(reach) <= 6
    apart = np.log(total[near] / total.sum()) - np.log(wanted[near] / wanted.sum())
    assert 0 < abs(apart).max() <= distance(variance, clients)


def test_shares_from_three_steps_on_add_up_without_loss():
    assert distance(9.0, 10**6) < 1e-31
    assert rho(9.0, 100, 30.0, 10**9) == pytest.approx(30.0**2 / (2 * 900), rel=1e-12)


@pytest.mark.parametrize(("noise", "times"), RELEASES)
def test_what_we_account_for_is_the_published_bound_and_a_little_more(noise, times):
    share, bounds = behind(gaussian_shares, noise)
    event = Gaussian(bounds.noise)

    published = rho(share**2, CLIENTS, bounds.l2, bounds.size)

    # The sum has (z l2)^2 + 4 of variance, of which we count (z l2)^2.
    more = 1 + 4 / (noise * bounds.l2) ** 2
    assert 50 < share < 260
    assert distance(share**2, CLIENTS) == 0
    assert published * more == pytest.approx(1 / (2 * noise**2), rel=1e-9)
    theirs = by_orders(times * published * ORDERS, DELTA)
    ours = epsilon_bound([(event, times)], DELTA)
    assert theirs <= ours <= 1.05 * theirs
    # Continuous noise has a closed form, which needs no orders.
    assert epsilon([(event, times)], DELTA) < theirs


def test_too_small_shares_are_what_the_published_bound_warns_of():
    assert rho(0.5, 1000, 10.0, 2**16) > 10_000 * rho(1.0, 500, 10.0, 2**16)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: distance(0.0, 5), "variance must be a finite number above 0"),
        (lambda: distance(1.0, 0), "clients must be at least 1, but is 0"),
        (lambda: rho(1.0, 5, -1.0, 3), "l2 must be a finite number of at least 0"),
        (lambda: rho(1.0, 5, 1.0, math.nan), "size must be a finite number of at least 0"),
    ],
)
def test_shares_of_nothing_are_refused(build, message):
    with pytest.raises(SettingsError, match=message):
        build()


# Skellam shares


@pytest.mark.parametrize("row", VECTORS["skellam_rdp"]["rows"], ids=lambda row: f"{row['alpha']}")
def test_skellam_divergences_are_those_of_the_reference_values(row):
    orders, gaussian = np.array([row["alpha"]]), row["gaussian_same_variance"]

    found = skellam_divergences(orders, row["mu"], row["D2"], row["D1"])

    assert found[0] == pytest.approx(row["rdp"], rel=1e-12)
    assert found[0] > gaussian == pytest.approx(row["alpha"] * row["D2"] ** 2 / (2 * row["mu"]))


@pytest.mark.parametrize("shift", [1, 3, 10])
@pytest.mark.parametrize("sigma", [3.0, 10.0, 40.0])
def test_no_divergence_is_larger_than_what_an_event_is_charged(shift, sigma):
    # One coordinate, moved by `shift`: the divergence is a sum over whole numbers.
    values = np.arange(-math.ceil(22 * sigma), math.ceil(22 * sigma) + 1)
    logs = np.log(special.ive(abs(values), sigma**2))
    here, there = logs[shift:], logs[:-shift]
    charged = _once(Skellam(sigma / shift, reach=shift, size=1))

    for order, most in zip(ORDERS, charged, strict=True):
        if order <= 12:
            exact = special.logsumexp(order * here + (1 - order) * there) / (order - 1)
            assert exact <= most * (1 + 1e-9)
            if order == int(order) and shift < sigma >= 10:
                # And little is charged in vain.
                assert exact >= 0.85 * most


def test_orders_of_which_nothing_is_proved_are_charged_as_the_next_whole_one():
    charged = dict(zip(ORDERS.tolist(), _once(Skellam(2.0, 50.0, 10)), strict=True))

    assert charged[1.1] == charged[1.9] == charged[2.0] < charged[2.1] == charged[3.0]


@pytest.mark.parametrize(("noise", "times"), RELEASES)
def test_skellam_noise_at_16_bits_costs_what_gaussian_noise_does_within_5_percent(noise, times):
    _, bounds = behind(skellam_shares, noise)
    charges = [(Skellam(noise, bounds.l2, bounds.size), times)]
    gaussian = [(Gaussian(noise), times)]

    found = epsilon(charges, DELTA)

    assert found == epsilon_bound(charges, DELTA)
    assert epsilon_bound(gaussian, DELTA) <= found <= 1.05 * epsilon_bound(gaussian, DELTA)
    # What continuous noise really costs is always less.
    assert found > epsilon(gaussian, DELTA)


def test_coarse_steps_cost_more():
    fine, coarse = ([(Skellam(1.0, reach, SIZE), 1)] for reach in (2000.0, 4.0))

    assert epsilon(coarse, DELTA) > 1.02 * epsilon(fine, DELTA)
    # Where few numbers can be moved, the sum of their lengths is bounded by how many they are.
    few = [(Skellam(1.0, 4.0, 2), 1)]
    assert epsilon(few, DELTA) < epsilon(coarse, DELTA)


def test_skellam_noise_adds_up_with_gaussian_noise():
    both = [(Skellam(2.0, 1e6, SIZE), 10), (Gaussian(2.0), 10)]
    fine = [(Gaussian(2.0), 20)]

    assert epsilon(both, DELTA) == pytest.approx(epsilon_bound(fine, DELTA), rel=0.01)
    assert adjacency(both[0][0]) == "add-or-remove-one"
    with pytest.raises(SettingsError, match="hide different things"):
        epsilon([both[0], (LocalGaussian(1.0), 1)], DELTA)
    assert epsilon([both[0], (Pure(0.5), 1)], DELTA) > epsilon([both[0]], DELTA)


def test_delta_is_the_one_at_which_epsilon_was_spent():
    charges = [(Skellam(3.0, 500.0, SIZE), 5)]

    for delta in (1e-3, 1e-6, 1e-9):
        assert delta_of(charges, epsilon(charges, delta)) == pytest.approx(delta, rel=1e-6)
    assert delta_of([(Skellam(0.0, 500.0, SIZE), 1)], 5.0) == 1.0


def test_skellam_noise_is_never_pure_and_without_noise_open():
    with pytest.raises(SettingsError, match="delta must be above 0 and below 1, but is 0"):
        epsilon([(Skellam(3.0, 500.0, SIZE), 1)], 0)
    assert is_open(Skellam(0.0, 1.0, 1))
    assert epsilon([(Skellam(0.0, 1.0, 1), 1)], DELTA) == math.inf


def test_a_skellam_event_comes_back_from_json():
    event = Skellam(np.float64(1.5), 2170.25, np.int64(SIZE))

    written = as_json(event)

    assert written == {
        "event": "Skellam",
        "noise_multiplier": 1.5,
        "reach": 2170.25,
        "size": SIZE,
    }
    assert from_json(json.loads(json.dumps(written))) == event


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Skellam(-1.0, 5.0, 3), "noise_multiplier must be a finite number of at least 0"),
        (lambda: Skellam(1.0, 0.0, 3), "reach must be a finite number above 0, but is 0"),
        (lambda: Skellam(1.0, math.inf, 3), "reach .* but is inf"),
        (lambda: Skellam(1.0, 5.0, 0), "size must be a whole number of at least 1, but is 0"),
        (lambda: Skellam(1.0, 5.0, 2.5), "size must be a whole number .* 2.5"),
    ],
)
def test_skellam_noise_that_cannot_have_been_is_refused(build, message):
    with pytest.raises(SettingsError, match=message):
        build()


def test_a_ledger_counts_skellam_noise_and_refuses_what_overspends(tmp_path):
    event = Skellam(8.0, 2000.0, SIZE)
    budget = epsilon([(event, 3)], DELTA) * 1.001

    with Ledger(tmp_path / "spent.jsonl", epsilon=budget, delta=DELTA) as ledger:
        for step in range(3):
            ledger.charge(event, key=(step,))
        with pytest.raises(BudgetError):
            ledger.charge(event, key=(3,))
    with Ledger(tmp_path / "spent.jsonl", delta=DELTA) as again:
        assert again.charges == [(event, 3)]
        assert again.spent == epsilon([(event, 3)], DELTA)


@pytest.mark.parametrize("target", [0.5, 2.0, 10.0])
def test_noise_for_a_budget_never_overspends_and_uses_it(target):
    def charges_of(noise):
        _, bounds = behind(skellam_shares, noise, size=2**14)
        return [(Skellam(noise, bounds.l2, bounds.size), 20)]

    def of_fixed_reach(noise):
        return [(Skellam(noise, 2000.0, SIZE), 20)]

    noise = noise_for(target, DELTA, of_fixed_reach)

    assert 0.99 * target <= epsilon(of_fixed_reach(noise), DELTA) <= target
    most = rounds_for(target, DELTA, lambda rounds: [(Skellam(noise, 2000.0, SIZE), rounds)])
    assert 20 <= most <= 21
    # The steps that noise leaves room for are finer than that.
    assert epsilon(charges_of(noise), DELTA) == pytest.approx(target, rel=0.02)
