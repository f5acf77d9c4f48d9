"""HAPT: what 30 people were doing, from the accelerometer and gyroscope of a phone at the waist.

Reyes-Ortiz, Oneto, Samà, Parra, Anguita, "Smartphone-Based Recognition of Human Activities and
Postural Transitions", UCI Machine Learning Repository, 2015: the raw signals of UCI HAR (Anguita et
al., 2013). Licence: CC BY 4.0. Windows do not overlap, other than UCI HAR's.
"""

from pathlib import Path

import numpy as np

from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData
from folkmoot.data.pooled import from_pool
from folkmoot.data.sets.files import find, floats, integers

ACTIVITIES = ("walking", "walking_upstairs", "walking_downstairs", "sitting", "standing", "laying")
"""Names of the classes 0 to 5."""


def hapt(folder: str | Path | None = None) -> tuple[ClientData, Tree]:
    """Load HAPT with one client a person: a time series of six activities.

    Args:
        folder: Where `hapt.npz` lies; by default the usual places of `load`.

    Returns:
        Clients 0 to 29 (4,402 train windows, about 147 each, 1,007 test) and the pooled test set. A
        person's test windows are the last fifth, in time, of each activity. x: (n, 6, 128),
        float32: 128 samples at 50 Hz of acceleration x y z, gravity included, in g, and of angular
        velocity x y z in rad/s; y: (n,), int64, an index into `ACTIVITIES`.

    Raises:
        DataError: If the file is not found.
    """
    path = find("hapt", "hapt.npz", folder)
    with np.load(path, allow_pickle=False) as arrays:
        x = (arrays["x"] * arrays["scale"]).transpose(0, 2, 1)
        y, person = arrays["y"], arrays["client"].astype(int)
        held_out = arrays["split"].astype(bool)
    order = np.lexsort((held_out, person))
    person, held_out = person[order], held_out[order]
    examples = {"x": floats(x[order]), "y": integers(y[order])}
    clients = from_pool(
        examples,
        range(30),
        np.bincount(person[~held_out]),
        np.bincount(person[held_out]),
        name="hapt",
        num_classes=len(ACTIVITIES),
    )
    return clients, {name: leaf[held_out] for name, leaf in examples.items()}
