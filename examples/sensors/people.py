"""What people do, by the phone at their waist, as clients with numbers that a network learns from.

What is standardised is so by the train rows of the clients together.
"""

import numpy as np
import torch

import folkmoot as fm
from data import FOLDER, joined


def people():
    """Return 21 people with tests of their own as "known", and nine others as "unseen".

    x: (n, 210), of each of six signals the mean, the deviation, the range, and 32 bins of the log
    spectrum. y: (n,), one of six activities.
    """
    everyone, _ = fm.data.load("hapt")
    with np.load(FOLDER / "hapt" / "hapt.npz", allow_pickle=False) as file:
        others = np.unique(file["client"][file["uci_test_subject"] == 1]).tolist()
    parts = [(p, s, part) for p in everyone for s, part in enumerate(both(everyone[p]))]
    rows = joined([part for _, _, part in parts])
    owner = np.concatenate([np.full(len(part["y"]), person) for person, _, part in parts])
    split = np.concatenate([np.full(len(part["y"]), number) for _, number, part in parts])
    signal = rows["x"]
    spectrum = torch.log(torch.fft.rfft(signal).abs()[:, :, 1:33] + 0.1)
    rough = [signal.mean(2), signal.std(2), signal.amax(2) - signal.amin(2)]
    x = torch.cat([*rough, spectrum.flatten(1)], dim=1)
    new = np.isin(owner, others)
    learnt = torch.from_numpy(~new & (split == 0))
    x = (x - x[learnt].mean(0)) / x[learnt].std(0)
    known = {"x": x[~new], "y": rows["y"][~new]}
    clients = fm.data.from_arrays(known, owner[~new], split=split[~new], name="hapt")
    unseen = {"x": x[new], "y": rows["y"][new]}
    return clients, {"known": joined([c.test for c in clients.values()]), "unseen": unseen}


def both(client):
    """Return a client's train and test rows."""
    return client.train, client.test
