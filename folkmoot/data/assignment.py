"""`Partition`: which rows of a pooled set belong to which client, and how far from iid that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from folkmoot.core.errors import DataError, SettingsError
from folkmoot.data.client_data import ClientData, Id, plain_ids
from folkmoot.data.examples import as_examples, check_examples, select
from folkmoot.data.pooled import from_pool


@dataclass(frozen=True, repr=False)
class Partition:
    """Rows of a pooled set, dealt out so that each belongs to exactly one client."""

    indices: tuple[NDArray[np.int64], ...]
    """Row numbers of each client, ascending; a client may be empty."""
    labels: NDArray[Any] | None
    """The label of every row of the pooled set, or None where rows have no class."""
    name: str
    """How it was made, for tables and pictures."""
    ids: Sequence[Id] = ()
    """Client ids, in the order of `indices`; 0, 1, ... if empty."""

    def __post_init__(self) -> None:
        rows = np.concatenate(self.indices) if self.indices else np.zeros(0, dtype=np.int64)
        times = np.bincount(rows, minlength=self._expected(rows))
        wrong = np.flatnonzero(times != 1)
        if len(wrong):
            raise DataError(
                f"{self.name}: row {wrong[0]} belongs to {times[wrong[0]]} clients. A partition "
                "gives every row of the pooled set to exactly one client."
            )
        object.__setattr__(self, "ids", plain_ids(self.ids or range(len(self.indices))))
        if len(self.ids) != len(self.indices):
            raise DataError(
                f"{self.name}: {len(self.ids)} ids for {len(self.indices)} clients; give each one "
                "id."
            )

    def _expected(self, rows: NDArray[np.int64]) -> int:
        return len(rows) if self.labels is None else len(self.labels)

    def __repr__(self) -> str:
        rows = int(self.sizes().sum())
        return f"Partition({self.name!r}, {len(self.indices):,} clients, {rows:,} rows)"

    def sizes(self) -> NDArray[np.int64]:
        """Return the number of rows of each client, (clients,)."""
        return np.array([len(rows) for rows in self.indices], dtype=np.int64)

    def counts(self) -> NDArray[np.int64]:
        """Return how many rows of each class each client has, (clients, classes).

        Classes are the distinct labels in ascending order.

        Raises:
            SettingsError: If the rows have no labels.
        """
        if self.labels is None:
            raise SettingsError(f"{self.name}: rows have no class, so classes cannot be counted.")
        classes, codes = np.unique(self.labels, return_inverse=True)
        return np.stack([np.bincount(codes[rows], minlength=len(classes)) for rows in self.indices])

    def distances(self) -> NDArray[np.float64]:
        """Return each non-empty client's total variation distance to the law of all labels.

        Half the sum over classes of the absolute difference of shares: 0 for a client whose labels
        are mixed as in the pooled set, towards 1 for a client that knows one rare class only.
        """
        counts = self.counts()
        everyone = counts.sum(axis=0) / counts.sum()
        held = counts[counts.sum(axis=1) > 0]
        shares = held / held.sum(axis=1, keepdims=True)
        return 0.5 * np.abs(shares - everyone).sum(axis=1)

    def non_iid_score(self) -> float:
        """Return the mean of `distances`, every client counting once.

        Small clients are far from the pooled law even if dealt by chance, so compare scores only
        between partitions with similar sizes.
        """
        return float(self.distances().mean())

    def summary(self) -> str:
        """Return a small table: sizes, empty clients, label entropy, and the non-iid score."""
        sizes = self.sizes()
        lines = [
            f"{self.name}: {len(sizes):,} clients, {int(sizes.sum()):,} examples",
            f"  {'':24}{'min':>10}{'median':>10}{'max':>10}",
            _line("examples a client", sizes, "{:,.0f}"),
        ]
        if self.labels is not None:
            counts = self.counts()[sizes > 0]
            shares = counts / counts.sum(axis=1, keepdims=True)
            entropy = -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=1)
            lines += [
                _line("classes a client", (counts > 0).sum(axis=1), "{:,.0f}"),
                _line("label entropy, bits", np.abs(entropy), "{:.2f}"),
                f"  {'non-iid score':24}{self.non_iid_score():>10.3f}   0 is iid; mean total "
                "variation distance to the pooled labels",
            ]
        empty = np.flatnonzero(sizes == 0)
        named = f"   ids {_first(self.ids, empty)}" if len(empty) else ""
        return "\n".join([*lines, f"  {'empty clients':24}{len(empty):>10,}{named}"])

    def clients(
        self, examples: Any, test_fraction: float = 0.0, *, drop_empty: bool = False
    ) -> ClientData:
        """Hand the rows of a pooled set to their clients.

        Args:
            examples: The pooled set that was partitioned: a Tree, an (x, y) pair or a Dataset.
            test_fraction: Share of each client's rows that becomes its own test set, in [0, 1):
                evenly spaced rows of the client's rows in order of label, so that both parts have
                about the same label law. A client's test part has floor(fraction * rows) rows.
            drop_empty: Leave out clients that have no row; the others keep their ids.

        Returns:
            Clients by id, whose rows are in the order of `indices`.

        Raises:
            SettingsError: If a client is empty and `drop_empty` is not set, or the fraction is not
                in range.
            DataError: If the examples have another number of rows, or cannot be used.
        """
        if not 0 <= test_fraction < 1:
            raise SettingsError(f"test_fraction must be in [0, 1), but is {test_fraction!r}.")
        tree = as_examples(examples, owner=self.name)
        rows = check_examples(tree, None, "pooled")
        sizes = self.sizes()
        if rows != sizes.sum():
            raise DataError(
                f"{self.name}: the examples have {rows:,} rows, but {int(sizes.sum()):,} were "
                "partitioned. Pass the same pooled set to both."
            )
        empty = np.flatnonzero(sizes == 0)
        if len(empty) and not drop_empty:
            raise SettingsError(
                f"{self.name}: {len(empty)} client(s) have no row (ids {_first(self.ids, empty)}). "
                "Partition with min_per_client=1 or fewer clients, or pass drop_empty=True."
            )
        kept = [place for place in range(len(sizes)) if sizes[place]]
        parts = [self._train_and_test(self.indices[place], test_fraction) for place in kept]
        order = np.concatenate([part for pair in parts for part in pair])
        return from_pool(
            select(tree, torch.from_numpy(order)),
            [self.ids[place] for place in kept],
            [len(train) for train, _ in parts],
            [len(test) for _, test in parts],
            name=self.name,
        )

    def _train_and_test(
        self, rows: NDArray[np.int64], fraction: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        number = np.arange(len(rows))
        # The small term lets 15 * 0.2 count as 3 although it is 2.9999999999999996 in other sums.
        picked = np.floor((number + 1) * fraction + 1e-9) > np.floor(number * fraction + 1e-9)
        by_label = number if self.labels is None else np.argsort(self.labels[rows], kind="stable")
        held_out = np.zeros(len(rows), dtype=bool)
        held_out[by_label[picked]] = True
        return rows[~held_out], rows[held_out]

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw sizes and label shares of all clients; return the Matplotlib figure.

        Up to 60 clients stand in the order of `ids`; more are sorted by their most frequent class.

        Args:
            path: Where to write the picture; its ending chooses the format. None: nothing is
                written.
        """
        from folkmoot.data.picture import draw

        sizes, labelled = self.sizes(), self.labels is not None
        empty = int((sizes == 0).sum())
        title = f"{self.name}: {len(sizes):,} clients"
        title += f", {empty:,} empty" if empty else ""
        title += f", non-iid score {self.non_iid_score():.2f}" if labelled else ""
        classes = np.unique(np.asarray(self.labels)) if labelled else None
        figure = draw(self.ids, sizes, self.counts() if labelled else None, classes, title)
        if path is not None:
            figure.savefig(path)
        return figure


def _line(what: str, values: NDArray[Any], form: str) -> str:
    numbers = (values.min(), np.median(values), values.max())
    return f"  {what:24}" + "".join(f"{form.format(number):>10}" for number in numbers)


def _first(ids: Sequence[Id], places: NDArray[np.int64]) -> str:
    more = ", ..." if len(places) > 5 else ""
    return ", ".join(repr(ids[place]) for place in places[:5]) + more
