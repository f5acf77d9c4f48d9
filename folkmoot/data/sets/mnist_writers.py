"""MNIST digits by writer: 539 people who wrote the train digits, 297 others who wrote the test's.

Images: MNIST, Y. LeCun, C. Cortes, C. Burges. Writers: the extended labels of QMNIST, Yadav and
Bottou, "Cold Case: The Lost MNIST Digits", NeurIPS 2019. Licence: CC BY-SA 3.0 (images), BSD
3-clause (QMNIST's labels).
"""

from pathlib import Path

import numpy as np
import torch

from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData
from folkmoot.data.pooled import from_pool
from folkmoot.data.sets.files import announce, find, integers

MEAN, DEVIATION = 0.1307, 0.3081
"""Of the train pixels, on the scale from 0 to 1; the numbers that everybody uses."""

TRAIN_WRITERS = 539


def mnist_writers(folder: str | Path | None = None) -> tuple[ClientData, Tree]:
    """Load MNIST with one client a writer: 10-class images, shifted in style and quantity.

    Digits are nearly balanced inside a writer. For label skew partition `y` by Dirichlet or shards.

    Args:
        folder: Where `mnist_writers.npz` lies; by default the usual places of `load`.

    Returns:
        Clients and the pooled test set. Ids are NIST's numbers of writers (0-610 and 2100-2599, not
        all of them). A client's train examples are its digits that are not held out (48,214 over
        all clients, 16 to 105 a client), its test examples every fifth digit (11,786). The pooled
        test set is MNIST's own 10,000, by writers who are no clients. x: (n, 1, 28, 28), float32,
        standardised; y: (n,), int64, 0-9.

    Raises:
        DataError: If the file is not found.
    """
    path = find("mnist_writers", "mnist_writers.npz", folder)
    with np.load(path, allow_pickle=False) as arrays:
        x, y, writer = arrays["x"], arrays["y"], arrays["writer"]
        held_out, unseen = arrays["held_out"].astype(bool), arrays["split"].astype(bool)
    known = np.flatnonzero(~unseen)
    order = known[np.lexsort((held_out[known], writer[known]))]
    ids, place = np.unique(writer[known], return_inverse=True)
    held = np.bincount(place, weights=held_out[known], minlength=len(ids)).astype(int)
    clients = from_pool(
        {"x": _images(x, order), "y": integers(y[order])},
        ids.tolist(),
        np.bincount(place, minlength=len(ids)) - held,
        held,
        name="mnist_writers",
        num_classes=10,
    )
    test_rows = np.flatnonzero(unseen)
    test = {"x": _images(x, test_rows), "y": integers(y[test_rows])}
    announce("mnist_writers", path, f"{len(ids)} clients of {TRAIN_WRITERS}")
    return clients, test


def _images(x: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    # Two passes over the floats, which are four times the bytes: the pixels are gathered before.
    pixels = torch.from_numpy(x)[torch.from_numpy(rows)].unsqueeze(1)
    return torch.sub(pixels, 255 * MEAN).mul_(1 / (255 * DEVIATION))
