"""FLamby's data sets, read through its own Dataset classes.

Ogier du Terrail et al., "FLamby: Datasets and Benchmarks for Cross-Silo Federated Learning in
Realistic Healthcare Settings", NeurIPS 2022, arXiv:2210.04620. FLamby must be installed and its
data downloaded by its own scripts, under the licences it shows. Its classes know where the files
are; this reader knows only how the classes are called, so it serves all of FLamby's sets.
"""

from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset

from folkmoot.core.errors import DataError
from folkmoot.core.tree import Tree
from folkmoot.data.arrays import describe, owner_of
from folkmoot.data.client_data import ClientData, Id
from folkmoot.data.examples import as_examples, check_examples, read_dataset


def from_flamby(
    dataset_class: Callable[..., Any],
    num_centers: int,
    *,
    convert: Callable[[Tree], Any] | None = None,
    name: str | None = None,
) -> ClientData:
    """Build clients from a FLamby Dataset class; a centre is read when asked for.

        from flamby.datasets.fed_heart_disease import NUM_CLIENTS, FedHeartDisease

        clients = fm.data.from_flamby(FedHeartDisease, NUM_CLIENTS)
        test = fm.data.as_examples(FedHeartDisease(train=False, pooled=True))

    Args:
        dataset_class: Called as `dataset_class(center=k, train=True)` and with `train=False`.
        num_centers: FLamby's NUM_CLIENTS of that set; centres are 0, 1, ...
        convert: From a centre's examples as FLamby has them, {"x": ..., "y": ...}, to those wanted.
            Its binary labels are float32 of shape (n, 1); for a classifier pass `lambda e: {"x":
            e["x"], "y": e["y"][:, 0].long()}`.
        name: What the set is called in tables and errors; by default the class's name.

    Returns:
        Clients 0 to num_centers - 1, each with tests.

    Raises:
        DataError: If what is passed is no class, it gives no Dataset, or a centre's examples cannot
            be used.
    """
    name = getattr(dataset_class, "__name__", "flamby") if name is None else name
    if not callable(dataset_class):
        raise DataError(
            f"{name}: dataset_class is {describe(dataset_class)}. Pass FLamby's class itself, such "
            "as FedHeartDisease, not one centre's Dataset."
        )

    def read(client: Id, part: str) -> Tree:
        owner = owner_of(client, part)
        dataset = dataset_class(center=client, train=part == "train")
        if not isinstance(dataset, Dataset):
            raise DataError(f"{owner}: {name} gave {describe(dataset)}, not a torch Dataset.")
        tree = read_dataset(dataset, owner=owner)
        if convert is not None:
            tree = as_examples(convert(tree), owner=owner)
        check_examples(tree, client, part)
        return tree

    return ClientData(
        range(num_centers),
        lambda client: read(client, "train"),
        test=lambda client: read(client, "test"),
        name=name,
    )
