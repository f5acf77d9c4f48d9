"""FSDD: spoken digits of six speakers, as log-mel pictures.

Z. Jackson et al., "Free Spoken Digit Dataset", commit 26eb9aa of 2 May 2024, all 3,000 recordings.
Licence: CC BY-SA 4.0. The pictures were made from the recordings at 8 kHz: Hann window of 256
samples, hop of 128, 32 triangular mel filters from 20 to 4000 Hz.
"""

from pathlib import Path

import numpy as np

from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData
from folkmoot.data.pooled import from_pool
from folkmoot.data.sets.files import find, floats, integers

MEAN, DEVIATION = 0.3041, 0.3197
"""Of the train pictures, where 0 is 80 dB below a recording's loudest bin and 1 is that bin."""


def fsdd(folder: str | Path | None = None) -> tuple[ClientData, Tree]:
    """Load FSDD with one client a speaker: 10-class audio.

    A model that knows the speakers reaches 0.987; on a speaker it never heard it falls to between
    0.38 and 0.87, so leave one speaker out with `clients.subset`.

    Args:
        folder: Where `fsdd_logmel.npz` lies; by default the usual places of `load`.

    Returns:
        Clients "george", "jackson", "lucas", "nicolas", "theo" and "yweweler", 450 train recordings
        and 50 test recordings each (numbers 0 to 4 of each digit, the rule of the data set), and
        the pooled test set (300). x: (n, 1, 48, 32), float32, 48 frames of 16 ms by 32 mel bands,
        standardised; short recordings are padded with silence, 61 longer ones are cut at 0.78 s; y:
        (n,), int64, 0-9.

    Raises:
        DataError: If the file is not found.
    """
    path = find("fsdd", "fsdd_logmel.npz", folder)
    with np.load(path, allow_pickle=False) as arrays:
        x, y, speaker = arrays["x"], arrays["y"], arrays["client"].astype(int)
        held_out, names = arrays["split"].astype(bool), arrays["client_names"].tolist()
    order = np.lexsort((held_out, speaker))
    speaker, held_out = speaker[order], held_out[order]
    pictures = (x[order][:, None].astype(np.float32) / 255 - MEAN) / DEVIATION
    examples = {"x": floats(pictures), "y": integers(y[order])}
    clients = from_pool(
        examples,
        names,
        np.bincount(speaker[~held_out]),
        np.bincount(speaker[held_out]),
        name="fsdd",
        num_classes=10,
    )
    return clients, {name: leaf[held_out] for name, leaf in examples.items()}
