"""Matrix mechanisms: errors and sensitivities against closed forms and jax-privacy."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.privacy.accountants import epsilon, epsilon_bound
from folkmoot.privacy.events import Gaussian
from folkmoot.privacy.matrix import (
    errors,
    optimal_bands,
    participations,
    sensitivity,
    square_root,
    toeplitz_inverse,
    tree_covariance,
    tree_height,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dp_epsilon.json").read_text("utf-8"))
PREFIX, TREES = VECTORS["matrix_mechanism_prefix_sum"], VECTORS["tree_aggregation"]
ROOTS = PREFIX["sqrt_toeplitz"]
BANDED = [(row["T"], banded) for row in ROOTS for banded in row["banded"]]
OPTIMISED = PREFIX["jax_privacy_optimised"]["toeplitz"]


def toeplitz(column, rounds):
    """The lower triangular matrix with this first column."""
    full = np.zeros(rounds)
    full[: min(len(column), rounds)] = column[:rounds]
    apart = np.subtract.outer(np.arange(rounds), np.arange(rounds))
    return np.where(apart >= 0, full[np.abs(apart)], 0.0)


# The square root


def test_the_square_root_times_itself_is_the_matrix_of_prefix_sums():
    root = toeplitz(square_root(40), 40)

    np.testing.assert_allclose(root @ root, np.tril(np.ones((40, 40))), atol=1e-12)


@pytest.mark.parametrize("row", ROOTS, ids=lambda row: f"T={row['T']}")
def test_the_square_root_has_the_published_errors(row):
    rounds = row["T"]
    root = square_root(rounds)

    moved = sensitivity(root, rounds)
    largest, rmse = errors(root, rounds)

    np.testing.assert_allclose(root[:6], row["sqrt_toeplitz_first_coeffs"])
    assert moved == pytest.approx(row["sens_single_participation"], rel=1e-12)
    assert moved * largest == pytest.approx(row["max_err"], rel=1e-9)
    assert moved * rmse == pytest.approx(row["rmse"], rel=1e-9)


@pytest.mark.parametrize("row", ROOTS, ids=lambda row: f"T={row['T']}")
def test_one_band_is_noise_that_is_drawn_anew(row):
    largest, rmse = errors([1.0], row["T"])

    assert largest == pytest.approx(row["identity_max"])
    assert rmse == pytest.approx(row["identity_dpsgd_rmse"])


@pytest.mark.parametrize(
    ("rounds", "row"), BANDED, ids=lambda x: x if isinstance(x, int) else x["band"]
)
def test_bands_of_the_square_root_have_the_published_errors(rounds, row):
    bands = square_root(rounds)[: row["band"]]
    times = row["participations"]

    moved = sensitivity(bands, rounds, times, row["min_sep"])

    assert moved == pytest.approx(row["sens"], rel=1e-12)
    assert moved * errors(bands, rounds)[1] == pytest.approx(row["rmse"], rel=1e-9)


# Optimal bands


@pytest.mark.parametrize("row", OPTIMISED, ids=lambda row: f"T={row['n']}, {row['bands']} bands")
def test_optimal_bands_are_as_good_as_those_of_jax_privacy(row):
    bands = optimal_bands(row["n"], row["bands"])

    moved = sensitivity(bands, row["n"])
    largest, rmse = errors(bands, row["n"])

    assert moved * rmse <= row["rmse"] * (1 + 1e-6)
    assert moved * largest == pytest.approx(row["max_err"], rel=1e-3)
    scaled = np.array(row["coefs"]) / row["coefs"][0]
    np.testing.assert_allclose(bands[: len(scaled)], scaled, atol=2e-3)


@pytest.mark.parametrize(("rounds", "bands"), [(1, 1), (1, 5), (5, 9), (300, 7), (2000, 64)])
def test_optimal_bands_begin_with_1_and_do_not_rise(rounds, bands):
    found = optimal_bands(rounds, bands)

    assert len(found) == min(rounds, bands)
    assert found[0] == 1
    assert all(before >= after >= 0 for before, after in itertools.pairwise(found))


def test_optimal_bands_are_a_minimum():
    rounds = 48
    best = np.array(optimal_bands(rounds, 6))
    draw = np.random.default_rng(0)

    def cost(bands):
        return sensitivity(list(bands), rounds) * errors(list(bands), rounds)[1]

    moved = [best + 1e-2 * np.r_[0, draw.standard_normal(5)] for _ in range(50)]
    assert all(cost(bands) >= cost(best) * (1 - 1e-9) for bands in moved)


# Errors and sensitivities are those of the matrices


@pytest.mark.parametrize("bands", [[1.0], [1.0, 0.5], [2.0, 1.0, 0.25], [1.0, 0.9, 0.9, 0.1]])
def test_errors_are_the_norms_of_the_rows_of_b(bands):
    rounds = 17
    c = toeplitz(bands, rounds)
    b = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(c)
    rows = np.linalg.norm(b, axis=1)

    np.testing.assert_allclose(toeplitz_inverse(bands, rounds), np.linalg.inv(c)[:, 0], atol=1e-12)
    assert errors(bands, rounds) == pytest.approx((rows.max(), math.sqrt((rows**2).mean())))


def test_no_client_moves_the_release_by_more_than_its_sensitivity():
    rounds, separation, bands = 23, 4, [1.0, 0.8, 0.5, 0.4]
    c = toeplitz(bands, rounds)
    times = participations(rounds, separation)
    bound = sensitivity(bands, rounds, times, separation)
    draw = np.random.default_rng(1)

    norms = []
    for _ in range(300):
        u = np.zeros((rounds, 3))
        place = int(draw.integers(separation))
        while place < rounds:
            u[place] = (vector := draw.standard_normal(3)) / np.linalg.norm(vector)
            place += separation + int(draw.integers(2))
        norms.append(np.linalg.norm(c @ u))

    assert max(norms) <= bound * (1 + 1e-12)
    assert max(norms) > 0.95 * bound


def test_overlapping_columns_of_one_client_are_refused():
    with pytest.raises(SettingsError, match=r"5 bands .* again after 4, .* at most 4 bands"):
        sensitivity([1.0] * 5, 100, 3, 4)
    # Once is no overlap, and bands beyond the last round are none.
    assert sensitivity([1.0] * 5, 100, 1, 4) == math.sqrt(5)
    assert sensitivity([1.0] * 5, 4, 2, 4) == math.sqrt(8)


@pytest.mark.parametrize(("rounds", "separation", "times"), [(10, 10, 1), (11, 10, 2), (9, 3, 3)])
def test_participations_are_counted_up(rounds, separation, times):
    assert participations(rounds, separation) == times


# Trees


@pytest.mark.parametrize("row", TREES["exact"], ids=lambda row: f"T={row['rounds']}")
def test_a_tree_costs_what_its_height_says(row):
    height = tree_height(row["rounds"])
    charge = (Gaussian(row["noise_multiplier_per_node"] / math.sqrt(height)), 1)

    assert height == row["height"]
    assert epsilon([charge], row["delta"]) == pytest.approx(row["epsilon_exact_gaussian"], rel=1e-9)


@pytest.mark.parametrize("row", TREES["rdp"], ids=lambda row: f"T={row['T']}")
def test_a_tree_s_bound_is_that_of_its_renyi_divergences(row):
    charge = (Gaussian(row["z"] / math.sqrt(tree_height(row["T"]))), 1)

    assert epsilon_bound([charge], row["delta"]) == pytest.approx(row["rdp_eps"], rel=2e-3)


def test_a_tree_s_sums_share_the_nodes_that_cover_both():
    # 1: {1}; 2: {1-2}; 3: {1-2, 3}; 4: {1-4}; 5: {1-4, 5}.
    expected = [
        [1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 2, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 2],
    ]

    np.testing.assert_array_equal(tree_covariance(5), expected)


def test_a_new_tree_adds_to_the_last_sum_of_the_one_before():
    # Trees of 2: {1}; {1-2}; {1-2, 3}; {1-2, 3-4}; {1-2, 3-4, 5}.
    expected = [
        [1, 0, 0, 0, 0],
        [0, 1, 1, 1, 1],
        [0, 1, 2, 1, 1],
        [0, 1, 1, 2, 2],
        [0, 1, 1, 2, 3],
    ]

    np.testing.assert_array_equal(tree_covariance(5, restart=2), expected)


def test_a_tree_s_sums_carry_one_node_for_each_binary_digit_1():
    variances = np.diag(tree_covariance(200))

    assert variances.tolist() == [bin(last).count("1") for last in range(1, 201)]
