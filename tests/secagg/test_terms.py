"""Terms: defaults by the papers' formulas, a digest of everything, refusals that say what to do."""

import dataclasses

import pytest

from folkmoot.core.errors import SettingsError
from folkmoot.secagg.terms import Demands, Terms, terms, weakness

ONE = [(10, 32)]


@pytest.mark.parametrize(
    ("n", "threat", "degree", "threshold", "quorum"),
    [
        (3, "honest", 2, 2, 3),  # floor(3 / 3) = 1 may drop out of unmasking, and no sum is of 2
        (4, "honest", 3, 3, 3),
        (5, "active", 4, 4, 4),
        (100, "honest", 99, 67, 67),  # 100 - floor(100 / 3)
        (100, "active", 99, 67, 67),
        (128, "honest", 127, 86, 86),
        (1000, "honest", 30, 17, 950),
        (1000, "active", 52, 37, 950),
        (10_000, "honest", 34, 20, 9500),
        (10_000, "active", 62, 44, 9500),
    ],
)
def test_what_is_left_out_is_computed(n, threat, degree, threshold, quorum):
    found = terms(n, ONE, threat=threat)

    assert (found.degree, found.threshold, found.quorum) == (degree, threshold, quorum)
    assert found.complete == (degree == n - 1)
    assert weakness(found) is None


def test_the_threshold_counts_neighbours_and_the_quorum_survivors():
    found = terms(1000, ONE)

    assert found.threshold < found.degree < found.quorum


@pytest.mark.parametrize(
    "change",
    [
        {"run": b"other"},
        {"round": 1},
        {"exchange": 1},
        {"clients": (0, 1, 2, 3, "4")},
        {"vectors": ((10, 16),)},
        {"vectors": ((1, 32), (9, 32))},
        {"threat": "active"},
        {"corrupt": 0.06},
        {"dropped": 0.3},
        {"degree": 2, "threshold": 2},
        {"threshold": 3},
        {"quorum": 5},
        {"model": b"other"},
        {"seed": b"\1" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_is_of_every_field(change):
    agreed = terms(5, ONE, seed=bytes(32))

    assert {field.name for field in dataclasses.fields(Terms)} >= change.keys()
    assert dataclasses.replace(agreed, **change).digest != agreed.digest
    assert dataclasses.replace(agreed).digest == agreed.digest


def test_seeds_of_graphs_are_fresh():
    assert len({terms(5, ONE).seed for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("clients", "options", "said"),
    [
        (2, {}, "clients must be 3 or more"),
        (["a", "b", "a"], {}, "each of them once"),
        ([1.5, 2, 3], {}, "whole numbers or strings"),
        (5, {"threat": "friendly"}, '"honest" or "active"'),
        (5, {"corrupt": 1.0}, "corrupt must be at least 0 and below 1"),
        (5, {"dropped": -0.1}, "dropped must be at least 0 and below 1"),
        (8, {"degree": 5}, "degree must be 7, or even"),
        (5, {"threshold": 6}, "threshold must be 1 to 5"),
        (5, {"quorum": 6}, "quorum must be 1 to 5"),
        (5, {"seed": b"short"}, "seed must be 32 bytes"),
        # A third may drop out of ten, so that at most seven shares come; six corrupt need seven.
        (10, {"corrupt": 0.7}, "has to be at least 8"),
        (10, {"threat": "active", "dropped": 0.5}, "has to be at least 6. Assume fewer dropped"),
        (10, {"threshold": 9}, "threshold may be at most 7"),
        (10, {"threshold": 1}, "has to be at least 2"),
        (10, {"quorum": 2, "threshold": 2}, "has to be of at least 3"),
        (10, {"corrupt": 0.4, "threshold": 5, "quorum": 5}, "has to be of at least 6"),
        (1000, {"degree": 10}, "do not keep the honest ones connected"),
        (1000, {"degree": 30, "threshold": 16}, "has to be at least 17"),
        (1000, {"degree": 30, "threshold": 19}, "threshold may be at most 18"),
        (1000, {"quorum": 949}, "has to be of at least 950"),
    ],
)
def test_terms_that_are_unsafe_or_cannot_be_opened_are_refused(clients, options, said):
    with pytest.raises(SettingsError, match=said):
        terms(clients, ONE, **options)


@pytest.mark.parametrize(
    ("clients", "options", "cure"),
    [
        # Four of five corrupt: one honest client is in no sum with another one.
        (5, {"corrupt": 0.9, "dropped": 0}, r"more than there are. Assume fewer .*, or ask more"),
        (20, {"corrupt": 0.9, "dropped": 0}, None),  # 18 are, and two are not.
        # Six of ten corrupt, seven left of ten: the quorum that was computed is one too small.
        (10, {"corrupt": 0.6}, "at least 8. Assume fewer corrupt or dropped, or set the quorum to"),
        (10, {"corrupt": 0.6, "quorum": 8}, None),
        (10, {"corrupt": 0.6, "dropped": 0.2}, None),
        # Where no threshold is both safe and had, none is advised.
        (10, {"corrupt": 0.7}, "at least 8. Assume fewer dropped or corrupt.$"),
        (10, {"corrupt": 0.7, "threshold": 8}, "at most 7. Assume fewer dropped or corrupt.$"),
        (10, {"threshold": 1}, "at least 2. Set it to 2 at least and 7 at most, or leave it out"),
        (10, {"threshold": 9}, "at most 7. Set it to 2 at least and 7 at most, or leave it out"),
        (1000, {"degree": 30, "threshold": 16}, "Set it to 17 at least and 18 at most"),
        # Of 28 neighbours 17 have to answer, and 16 are sure to; 30 are what is computed.
        (1000, {"degree": 28}, "at most 16. Assume fewer dropped or corrupt, or take a larger deg"),
    ],
)
def test_the_cure_is_none_that_was_tried(clients, options, cure):
    if cure is None:
        assert weakness(terms(clients, ONE, **options)) is None
        return
    with pytest.raises(SettingsError, match=cure):
        terms(clients, ONE, **options)


def test_a_client_that_demands_more_than_the_cohort_is_told_so():
    found = str(weakness(terms(5, ONE), Demands(quorum=6)))

    assert found.endswith("at least 6, more than there are. Ask more clients.")


@pytest.mark.parametrize("vectors", [[(10, 24)], [(-1, 32)]])
def test_vectors_have_a_width_that_wraps_in_hardware(vectors):
    with pytest.raises(SettingsError, match="16, 32 or 64 bits"):
        terms(5, vectors)


@pytest.mark.parametrize(
    ("demands", "said"),
    [
        (Demands(quorum=5), "has to be of at least 5"),
        (Demands(corrupt=0.1), "but 0.1 and honest were demanded"),
        (Demands(threat="active"), "but 0 and active were demanded"),
    ],
)
def test_a_client_may_demand_more_than_is_safe(demands, said):
    agreed = terms(5, ONE)

    assert weakness(agreed) is None
    assert said in str(weakness(agreed, demands))


def test_a_third_corrupt_and_a_third_dropped_is_as_far_as_an_active_server_can_be_withstood():
    # Twice the threshold, 2 (n - n/3), has to be above n + n/3: it is equal, so that it fails.
    with pytest.raises(SettingsError, match="has to be at least 21"):
        terms(30, ONE, corrupt=1 / 3, dropped=1 / 3, threat="active")
    assert terms(30, ONE, corrupt=0.3, dropped=1 / 3, threat="active").threshold == 20
