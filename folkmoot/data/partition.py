"""Deal the rows of one pooled set out to clients, from iid to one class a client.

Every function returns a `Partition` in which each row belongs to exactly one client: they all
choose an owner for every row, and shares become counts by largest remainders, so rounding loses
none. Equal seeds give equal partitions. What cannot be done is refused at once, and no loop is
without a bound.
"""

from typing import Any

import numpy as np

from folkmoot.core import tree as trees
from folkmoot.core.errors import SettingsError, positive
from folkmoot.core.rng import derive, generator
from folkmoot.data.arrays import is_array
from folkmoot.data.assignment import Partition
from folkmoot.data.dealing import (
    apportion,
    check_count,
    check_request,
    deal,
    dirichlet_shares,
    needed_labels,
    rows_and_labels,
)
from folkmoot.data.examples import as_examples
from folkmoot.data.pooled import column as as_column

__all__ = [
    "Partition",
    "by_column",
    "classes_per_client",
    "dirichlet",
    "iid",
    "quantity_skew",
    "shards",
]

_MOST_DRAWS = 1000
_MOST_SHARES = 20_000_000  # over all draws: keeps the search for a split below a few seconds


def iid(examples: Any, num_clients: int, *, seed: int = 0) -> Partition:
    """Deal shuffled rows; the sizes of two clients differ by at most one.

    Args:
        examples: The pooled set (a Tree, an (x, y) pair, a Dataset) or its labels, (n,).
        num_clients: At most n.
        seed: Of the shuffle.
    """
    rows, labels = rows_and_labels(examples)
    check_request(rows, num_clients, 1)
    rng = generator(derive(seed, purpose="partition iid"))
    owner = np.empty(rows, dtype=np.int64)
    owner[rng.permutation(rows)] = np.arange(rows) % num_clients
    return deal(owner, num_clients, labels, "iid")


def dirichlet(
    examples: Any, num_clients: int, *, alpha: float, min_per_client: int = 1, seed: int = 0
) -> Partition:
    """Share out each class by its own Dirichlet draw: label skew, and with it skew of sizes.

    For every class the clients' shares are drawn from Dirichlet(alpha, ..., alpha). Small alpha
    gives clients with one or two classes, large alpha tends to iid. The whole draw is repeated, at
    most 1,000 times, until every client has `min_per_client` rows; nothing else is changed to get
    there.

    Args:
        examples: The pooled set with a class as leaf "y", or its labels, (n,).
        num_clients: Clients to share the rows.
        alpha: Concentration, greater than 0.
        min_per_client: Fewest rows of a client. 0 allows empty clients, which `summary` reports.
        seed: Of the draws.

    Raises:
        SettingsError: If there are fewer rows than the minimum needs, or no draw reached it.

    Source: Yurochkin et al., ICML 2019, arXiv:1905.12022; Li et al., ICDE 2022, arXiv:2102.02079.
    """
    labels = needed_labels(examples, "dirichlet")
    rows = len(labels)
    positive(alpha=alpha)
    check_request(rows, num_clients, min_per_client)
    rng = generator(derive(seed, purpose="partition dirichlet"))
    _, codes = np.unique(labels, return_inverse=True)
    class_sizes = np.bincount(codes)
    draws = int(np.clip(_MOST_SHARES // (num_clients * len(class_sizes)), 10, _MOST_DRAWS))
    best = 0
    for _ in range(draws):
        counts = apportion(class_sizes, dirichlet_shares(rng, alpha, len(class_sizes), num_clients))
        smallest = int(counts.sum(axis=0).min())
        if smallest >= min_per_client:
            break
        best = max(best, smallest)
    else:
        raise SettingsError(
            f"dirichlet(alpha={alpha:g}): none of {draws:,} draws gave each of {num_clients} "
            f"clients at least {min_per_client} rows (the best left one with {best}). Raise alpha, "
            "lower min_per_client (0 allows empty clients), or use fewer clients."
        )
    owner = np.empty(rows, dtype=np.int64)
    for code, class_counts in enumerate(counts):
        members = rng.permutation(np.flatnonzero(codes == code))
        owner[members] = np.repeat(np.arange(num_clients), class_counts)
    return deal(owner, num_clients, labels, f"dirichlet(alpha={alpha:g})")


def shards(
    examples: Any, num_clients: int, *, shards_per_client: int = 2, seed: int = 0
) -> Partition:
    """Sort the rows by label, cut them into equal shards, and deal each client some at random.

    With 2 shards most clients know two classes: the "pathological" split of the FedAvg paper. Where
    rows do not divide evenly, the sizes of two shards differ by at most one.

    Args:
        examples: The pooled set with a class as leaf "y", or its labels, (n,).
        num_clients: Clients to share the rows.
        shards_per_client: Shards of each client; num_clients * shards_per_client is at most n.
        seed: Of the shuffle inside a class, and of the deal.

    Source: McMahan et al., AISTATS 2017, arXiv:1602.05629, section 3.
    """
    labels = needed_labels(examples, "shards")
    rows = len(labels)
    check_count("shards_per_client", shards_per_client)
    check_request(rows, num_clients, shards_per_client)
    rng = generator(derive(seed, purpose="partition shards"))
    num_shards = num_clients * shards_per_client
    shuffled = rng.permutation(rows)
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    client_of_shard = rng.permutation(np.arange(num_shards) % num_clients)
    owner = np.empty(rows, dtype=np.int64)
    for shard, members in enumerate(np.array_split(by_label, num_shards)):
        owner[members] = client_of_shard[shard]
    return deal(owner, num_clients, labels, f"shards({shards_per_client} a client)")


def classes_per_client(
    examples: Any, num_clients: int, *, classes: int, seed: int = 0
) -> Partition:
    """Give each client exactly so many classes; the holders of a class share its rows evenly.

    Classes are chosen at random among those with the fewest holders so far, so the numbers of
    holders of two classes differ by at most one.

    Args:
        examples: The pooled set with a class as leaf "y", or its labels, (n,).
        num_clients: Clients to share the rows.
        classes: Classes of each client, from 1 to the number of classes.
        seed: Of the choice of classes and rows.

    Raises:
        SettingsError: If some class would have no holder, or fewer rows than holders.
    """
    labels = needed_labels(examples, "classes_per_client")
    rows = len(labels)
    check_count("classes", classes)
    check_request(rows, num_clients, classes)
    names, codes = np.unique(labels, return_inverse=True)
    if classes > len(names):
        raise SettingsError(f"classes={classes} a client, but there are only {len(names)} classes.")
    if num_clients * classes < len(names):
        raise SettingsError(
            f"{num_clients} clients with {classes} of {len(names)} classes each leave "
            f"{len(names) - num_clients * classes} class(es) to nobody. Use more clients or "
            "classes."
        )
    rng = generator(derive(seed, purpose="partition classes"))
    holders: list[list[int]] = [[] for _ in names]
    for client in range(num_clients):
        fewest_first = np.lexsort((rng.random(len(names)), np.array(list(map(len, holders)))))
        for code in fewest_first[:classes]:
            holders[code].append(client)
    owner = np.empty(rows, dtype=np.int64)
    for code, clients in enumerate(holders):
        members = rng.permutation(np.flatnonzero(codes == code))
        if len(members) < len(clients):
            raise SettingsError(
                f"class {names[code].item()!r} has {len(members)} row(s), but {len(clients)} "
                "clients are to hold it. Use fewer clients or fewer classes a client."
            )
        owner[members] = np.resize(clients, len(members))
    return deal(owner, num_clients, labels, f"classes_per_client({classes})")


def by_column(examples: Any, column: Any) -> Partition:
    """Make a client of every distinct value of a column: a natural partition.

    Args:
        examples: The pooled set, or its labels, (n,).
        column: Integers or strings, (n,); or the path of a leaf of the examples that holds them.

    Returns:
        A partition whose ids are the values, ascending.
    """
    name = "by_column"
    if isinstance(column, str):
        name = f"by_column({column!r})"
        tree = {} if is_array(examples) else as_examples(examples, owner=name)
        columns = {trees.name(path): leaf for path, leaf in trees.items(tree)}
        if column not in columns:
            raise SettingsError(f"{name}: the examples have no such leaf, only {list(columns)}.")
        column = columns[column]
    rows, labels = rows_and_labels(examples)
    values = as_column(column, "client", name)
    if values.shape != (rows,):
        raise SettingsError(f"{name}: the column's shape must be ({rows},), but is {values.shape}.")
    ids, owner = np.unique(values, return_inverse=True)
    return deal(owner, len(ids), labels, name, ids.tolist())


def quantity_skew(
    examples: Any, num_clients: int, *, alpha: float, min_per_client: int = 1, seed: int = 0
) -> Partition:
    """Draw sizes from a Dirichlet and fill them with shuffled rows: skew of sizes, not of labels.

    Every client gets `min_per_client` rows; the rest is shared by one draw of Dirichlet(alpha).

    Args:
        examples: The pooled set or its labels, (n,).
        num_clients: Clients to share the rows.
        alpha: Concentration, greater than 0; small values give one client almost everything.
        min_per_client: Fewest rows of a client.
        seed: Of the draw and the shuffle.

    Source: Li et al., ICDE 2022, arXiv:2102.02079, section 4.3.
    """
    rows, labels = rows_and_labels(examples)
    positive(alpha=alpha)
    check_request(rows, num_clients, min_per_client)
    rng = generator(derive(seed, purpose="partition quantity"))
    rest = np.array([rows - num_clients * min_per_client])
    sizes = min_per_client + apportion(rest, dirichlet_shares(rng, alpha, 1, num_clients))[0]
    owner = np.empty(rows, dtype=np.int64)
    owner[rng.permutation(rows)] = np.repeat(np.arange(num_clients), sizes)
    return deal(owner, num_clients, labels, f"quantity_skew(alpha={alpha:g})")
