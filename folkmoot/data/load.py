"""`load`: the data sets that come with the project, by name."""

from collections.abc import Callable
from pathlib import Path

from folkmoot.core.errors import DataError, did_you_mean
from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData
from folkmoot.data.sets.beijing_air import beijing_air
from folkmoot.data.sets.fsdd import fsdd
from folkmoot.data.sets.hapt import hapt
from folkmoot.data.sets.heart_disease import heart_disease
from folkmoot.data.sets.mnist_writers import mnist_writers
from folkmoot.data.sets.shakespeare import shakespeare
from folkmoot.data.sets.tcga_brca import tcga_brca
from folkmoot.data.sets.turbofan import turbofan

SETS: dict[str, Callable[..., tuple[ClientData, Tree]]] = {
    "beijing_air": beijing_air,
    "fsdd": fsdd,
    "hapt": hapt,
    "heart_disease": heart_disease,
    "mnist_writers": mnist_writers,
    "shakespeare": shakespeare,
    "tcga_brca": tcga_brca,
    "turbofan": turbofan,
}
"""The sets that come with the project, by name."""


def load(name: str, folder: str | Path | None = None) -> tuple[ClientData, Tree]:
    """Load a shipped data set: its clients, and the pooled test set that stays with the researcher.

    The files are looked for in `folder`, else in the folder named by the environment variable
    FOLKMOOT_DATA, in `data/` of the checkout, and at last among the samples in the package, which
    one line on stderr announces. Nothing is ever downloaded. Each set's own function has what else
    can be chosen, for instance `fm.data.heart_disease(scale="client")`.

    Args:
        name: One of "beijing_air", "fsdd", "hapt", "heart_disease", "mnist_writers", "shakespeare",
            "tcga_brca", "turbofan".
        folder: The folder of the set's files, or one that holds `<name>/`.

    Returns:
        (clients, test): `clients[id].train`, `.test`; `test` a Tree such as {"x": ..., "y": ...}.

    Raises:
        DataError: If no such set is known, or its files are not found.
    """
    if name not in SETS:
        hint = did_you_mean(str(name), SETS, listed=False)
        raise DataError(
            f"There is no data set {name!r}.{hint} Those that are shipped: {', '.join(SETS)}. "
            "For your own data use from_arrays, from_frame or from_folder."
        )
    return SETS[name](folder)
