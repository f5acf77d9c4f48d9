"""Case R10: a Dirichlet split ends, covers everything, and says when it cannot be made."""

import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from folkmoot.core.errors import SettingsError
from folkmoot.data import Partition
from folkmoot.data.partition import dirichlet

CASE = yaml.safe_load((Path(__file__).parent / "R10.yaml").read_text(encoding="utf-8"))["input"]
TEN_OF_EACH = np.repeat(np.arange(4), 10)


def covers_all_rows_once(partition: Partition) -> bool:
    rows = np.concatenate(partition.indices)
    return int(partition.sizes().sum()) == 40 and sorted(rows.tolist()) == list(range(40))


def test_a_request_for_more_rows_than_there_are_is_refused_at_once():
    case = CASE["a_impossible"]
    labels = np.arange(case["samples"]) % case["classes"]
    start = time.perf_counter()

    with pytest.raises(SettingsError, match=r"5 \* 3 = 15 rows, but there are 10"):
        dirichlet(
            labels,
            case["clients"],
            alpha=case["alpha"],
            min_per_client=case["min_per_client"],
        )

    assert time.perf_counter() - start < 1
    assert issubclass(SettingsError, ValueError)


@pytest.mark.parametrize("seed", CASE["b_unlikely"]["seeds"])
def test_an_unlikely_minimum_is_met_or_refused_with_advice_within_five_seconds(seed):
    case = CASE["b_unlikely"]
    start = time.perf_counter()

    try:
        partition = dirichlet(
            TEN_OF_EACH,
            case["clients"],
            alpha=case["alpha"],
            min_per_client=case["min_per_client"],
            seed=seed,
        )
    except SettingsError as error:
        assert "Raise alpha, lower min_per_client" in str(error)
    else:
        assert partition.sizes().min() >= case["min_per_client"]
        assert covers_all_rows_once(partition)

    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("seed", CASE["c_no_minimum"]["seeds"])
def test_without_a_minimum_clients_may_be_empty_and_are_reported(seed):
    case = CASE["c_no_minimum"]

    partition = dirichlet(
        TEN_OF_EACH,
        case["clients"],
        alpha=case["alpha"],
        min_per_client=case["min_per_client"],
        seed=seed,
    )

    assert covers_all_rows_once(partition)
    # Each class goes nearly whole to one client, so four clients of eight hold almost everything.
    empty = int((partition.sizes() == 0).sum())
    assert empty >= 1
    assert f"empty clients{empty:>21}" in partition.summary()


def test_a_huge_alpha_gives_every_client_two_of_each_class():
    case = CASE["d_even"]

    partition = dirichlet(TEN_OF_EACH, case["clients"], alpha=case["alpha"])

    assert covers_all_rows_once(partition)
    assert np.abs(partition.counts() - 2).max() <= 1


@pytest.mark.parametrize("key", ["c_no_minimum", "d_even"])
def test_equal_seeds_give_the_same_split_and_others_another(key):
    case = CASE[key]
    first, again, other = (
        dirichlet(TEN_OF_EACH, case["clients"], alpha=case["alpha"], min_per_client=0, seed=seed)
        for seed in (3, 3, 4)
    )

    assert [rows.tolist() for rows in first.indices] == [rows.tolist() for rows in again.indices]
    assert [rows.tolist() for rows in first.indices] != [rows.tolist() for rows in other.indices]
