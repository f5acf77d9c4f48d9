"""TCGA-BRCA: survival of breast cancer patients from six regions.

The Cancer Genome Atlas, clinical table of breast invasive carcinoma; Liu et al., "An Integrated
TCGA Pan-Cancer Clinical Data Resource", Cell 2018. Features, regions and split are those of FLamby
(`fed_tcga_brca`, MIT; after Andreux et al., 2020). TCGA open-access clinical data: nobody may try
to identify anyone.
"""

from pathlib import Path

import numpy as np

from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData
from folkmoot.data.pooled import from_pool
from folkmoot.data.sets.files import announce, find, floats, numbers, read_csv, standardise

REGIONS = ("Northeast", "South", "West", "Midwest", "Europe", "Canada")
"""Ids of the clients, in the order of the file's client numbers."""


def tcga_brca(
    folder: str | Path | None = None, *, scale: str | None = "pooled"
) -> tuple[ClientData, Tree]:
    """Load TCGA-BRCA with one client a region: survival times under censoring, 39 inputs.

    Few deaths are seen (59, 39, 22, 19, 9 and 3 a region), so a region's own concordance is noisy.
    A ridge Cox model on the pooled train data reaches a c-index of 0.846 on the pooled test set.

    Args:
        folder: Where `tcga_brca.csv` lies; by default the usual places of `load`.
        scale: "pooled": the age is standardised by the pooled train data. None: it is in years. The
            other 38 inputs are 0 or 1.

    Returns:
        Clients "Northeast" (248 train, 63 test), "South" (156, 40), "West" (164, 42), "Midwest"
        (129, 33), "Europe" (129, 33) and "Canada" (40, 11), and the pooled test set (222). x: (n,
        39), float32; y: (n, 2), float32, columns time in days and event (1 = death seen, 0 =
        censored).

    Raises:
        SettingsError: If `scale` is something else.
        DataError: If the file is not found.
    """
    if scale not in ("pooled", None):
        raise SettingsError(f'scale must be "pooled" or None, but is {scale!r}.')
    path = find("tcga_brca", "tcga_brca.csv", folder)
    columns = {name: numbers(values) for name, values in read_csv(path).items()}
    region, held_out = columns.pop("client").astype(int), columns.pop("split") == 1
    y = np.stack([columns.pop("time_days"), columns.pop("event")], axis=1)
    x = np.stack(list(columns.values()), axis=1)
    if scale == "pooled":
        x[:, :1] = standardise(x[:, :1], x[~held_out, :1])
    order = np.lexsort((held_out, region))
    region, held_out = region[order], held_out[order]
    examples = {"x": floats(x[order]), "y": floats(y[order])}
    clients = from_pool(
        examples,
        REGIONS,
        np.bincount(region[~held_out]),
        np.bincount(region[held_out]),
        name="tcga_brca",
    )
    announce("tcga_brca", path, "all 6 clients")
    return clients, {name: leaf[held_out] for name, leaf in examples.items()}
