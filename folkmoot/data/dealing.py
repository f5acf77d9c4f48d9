"""What all partitioners share: labels, what can be asked, whole numbers from shares, and owners.

A partitioner chooses an owner for every row, so no row can be lost or given twice.
"""

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from folkmoot.core.errors import SettingsError
from folkmoot.data.arrays import is_array
from folkmoot.data.assignment import Partition
from folkmoot.data.client_data import Id
from folkmoot.data.examples import as_examples, check_examples


def apportion(totals: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Turn shares into whole numbers that sum to the totals exactly, by largest remainders.

    Args:
        totals: What is to be shared, (groups,).
        shares: (groups, parts), each row summing to 1.

    Returns:
        (groups, parts), each less than 1 away from total * share; ties go to the earlier part.
    """
    exact = shares * totals[:, None]
    counts = np.floor(exact).astype(np.int64)
    left = totals - counts.sum(axis=1)
    rank = np.argsort(np.argsort(counts - exact, axis=1, kind="stable"), axis=1)
    return counts + (rank < left[:, None])


def dirichlet_shares(
    rng: np.random.Generator, alpha: float, groups: int, parts: int
) -> NDArray[np.float64]:
    """Draw one symmetric Dirichlet a group, (groups, parts)."""
    shares = rng.dirichlet(np.full(parts, alpha), size=groups)
    # Below about 1e-300 a draw may be all NaN; its limit gives everything to one client.
    for group in np.flatnonzero(~np.isfinite(shares).all(axis=1)):
        shares[group] = np.eye(parts)[rng.integers(parts)]
    return shares


def rows_and_labels(examples: Any) -> tuple[int, NDArray[Any] | None]:
    """Return the number of rows, and their classes if leaf "y" or the vector passed holds them.

    Floats and labels of more than one dimension are no classes.
    """
    if is_array(examples):
        labels = np.asarray(examples.cpu() if isinstance(examples, Tensor) else examples)
        rows = len(labels)
    else:
        tree = as_examples(examples, owner="The pooled set")
        rows = check_examples(tree, None, "pooled")
        if not isinstance(tree.get("y"), Tensor):
            return rows, None
        labels = tree["y"].cpu().numpy()
    return rows, labels if labels.ndim == 1 and labels.dtype.kind not in "fc" else None


def needed_labels(examples: Any, who: str) -> NDArray[Any]:
    """Return the classes of the rows, or refuse."""
    _, labels = rows_and_labels(examples)
    if labels is None:
        raise SettingsError(
            f"{who} deals by class, so it needs one integer or string a row as leaf 'y', (n,), and "
            "there is none. Pass a vector of classes, for instance bins of the target: "
            f"partition.{who}(bins, ...).clients(examples)."
        )
    return labels


def check_request(rows: int, num_clients: int, least: int) -> None:
    """Refuse a number of clients that the rows cannot serve."""
    check_count("num_clients", num_clients)
    if least < 0:
        raise SettingsError(f"A client cannot have at least {least} rows. Use 0 or more.")
    if num_clients * least > rows:
        raise SettingsError(
            f"{num_clients} clients with at least {least} row(s) each need {num_clients} * {least} "
            f"= {num_clients * least} rows, but there are {rows}. Use fewer clients or a lower "
            "minimum."
        )


def check_count(what: str, value: int) -> None:
    """Refuse what is not an integer of at least 1."""
    try:
        operator.index(value)
    except TypeError:
        raise SettingsError(f"{what} must be an integer, but is {value!r}.") from None
    if value < 1:
        raise SettingsError(f"{what} must be at least 1, but is {value}.")


def deal(
    owner: NDArray[np.int64],
    num_clients: int,
    labels: NDArray[Any] | None,
    name: str,
    ids: list[Id] | tuple[()] = (),
) -> Partition:
    """Build the partition in which row i belongs to client owner[i]."""
    stops = np.cumsum(np.bincount(owner, minlength=num_clients))
    indices = tuple(np.split(np.argsort(owner, kind="stable"), stops[:-1]))
    return Partition(indices, labels, name, ids)
