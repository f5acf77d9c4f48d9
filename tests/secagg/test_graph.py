"""Degrees and thresholds equal the published ones; rings are regular, simple and symmetric."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.secagg import graph

TABLE = json.loads((Path(__file__).parents[1] / "vectors/secagg_graph.json").read_text("utf-8"))
THREATS = {"semi_honest": "honest", "semi_malicious": "active"}
ROWS = [row | row["computed"] for row in TABLE["published"] + TABLE["more"]]


def name_of(row):
    return "-".join(str(row[key]) for key in ("n", "adversarial_rate", "dropout_rate", "adversary"))


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_degree_and_threshold_equal_the_published_and_the_computed_ones(row):
    found = graph.degree_and_threshold(
        row["n"], row["adversarial_rate"], row["dropout_rate"], THREATS[row["adversary"]]
    )

    assert found == (row["degree"], row["threshold"])


def test_a_published_threshold_is_never_exceeded():
    assert all(row["threshold"] <= row.get("published_threshold_at_most", 10**9) for row in ROWS)


def test_the_formula_takes_less_than_50_ms_for_ten_thousand_clients():
    graph.thresholds.cache_clear()
    graph._log_factorials.cache_clear()
    start = time.process_time()

    found = graph.degree_and_threshold(10_000, 0.05, 0.05, "honest")

    assert found == (34, 20)
    assert time.process_time() - start < 0.05


def test_a_handful_that_no_ring_protects_is_told_so():
    with pytest.raises(SettingsError, match="No regular graph of 5 clients"):
        graph.degree_and_threshold(5, 0.4, 0.4, "active")


@pytest.mark.parametrize(
    ("n", "corrupt", "threat", "least"),
    [
        (100, 0.05, "honest", 6),  # 5 corrupt, and one more
        (100, 0.05, "active", 53),  # 2 * 53 > 100 + 5, and 2 * 52 is not
        (5, 0.0, "honest", 2),  # a single share would be the secret
        (5, 0.2, "active", 4),  # 2 * 4 > 5 + 1, and 2 * 3 is not
    ],
)
def test_the_complete_graph_needs_more_shares_than_colluders_have(n, corrupt, threat, least):
    assert graph.complete_threshold(n, corrupt, threat) == least


@pytest.mark.parametrize(
    ("n", "share", "expected"), [(99, 1 / 3, 33), (100, 1 / 3, 33), (100, 0.29, 29), (3, 1 / 3, 1)]
)
def test_a_share_is_read_as_the_fraction_that_was_meant(n, share, expected):
    assert graph.part(n, share) == expected


@pytest.mark.parametrize(("n", "degree"), [(3, 2), (4, 3), (7, 4), (129, 14)])
def test_one_client_s_neighbours_are_its_row_of_everybody_s(n, degree):
    rows = graph.neighbours(n, degree, bytes(31) + b"\7")

    found = [graph.neighbours_of(at, n, degree, bytes(31) + b"\7") for at in range(n)]

    assert found == rows.tolist()


@pytest.mark.parametrize(("n", "degree"), [(3, 2), (4, 3), (7, 4), (129, 14), (1000, 30)])
def test_a_ring_is_regular_simple_and_symmetric(n, degree):
    rows = graph.neighbours(n, degree, bytes(31) + b"\7")
    edges = np.zeros((n, n), dtype=int)
    np.add.at(edges, (np.arange(n)[:, None], rows), 1)

    assert rows.shape == (n, degree)
    assert edges.max() == 1
    assert not edges.diagonal().any()
    assert (edges == edges.T).all()
    assert (np.diff(rows, axis=1) > 0).all()


def test_a_ring_follows_from_all_bits_of_its_seed():
    rings = {graph.neighbours(50, 4, seed).tobytes() for seed in flips(bytes(32))}

    assert len(rings) == 257
    assert (
        graph.neighbours(50, 4, bytes(32)).tobytes() == graph.neighbours(50, 4, bytes(32)).tobytes()
    )


def flips(seed):
    """The seed itself, and with each of its 256 bits turned."""
    whole = int.from_bytes(seed, "little")
    yield seed
    yield from ((whole ^ 1 << bit).to_bytes(32, "little") for bit in range(256))


def test_every_pair_is_as_often_connected():
    met = np.zeros((8, 8))
    for number in range(4000):
        rows = graph.neighbours(8, 2, number.to_bytes(32, "little"))
        met[np.arange(8)[:, None], rows] += 1
    seen, expected = met[np.triu_indices(8, 1)], 4000 * 2 / 7

    # Each pair is a binomial count; 28 of them, within five standard deviations.
    assert np.abs(seen - expected).max() < 5 * (expected * 5 / 7) ** 0.5


@pytest.mark.parametrize("degree", [0, 3, 10, 12])
def test_an_impossible_ring_is_refused(degree):
    with pytest.raises(SettingsError, match="even degree below 10"):
        graph.neighbours(10, degree, bytes(32))
