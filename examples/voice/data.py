"""Spoken digits, cut to the word and stretched to one length.

Who speaks slowly, or is silent before a word, is like nobody else on a picture of fixed time. All
that is done to a recording is done by itself: nothing is learnt from others.
"""

import torch

import folkmoot as fm

MEAN, DEVIATION = 0.3041, 0.3197
"""With which the set comes standardised; before, 0 is 80 dB below a recording's loudest bin."""
FRAMES = 24
LOUD = 0.6
"""A word begins and ends 32 dB below its loudest bin."""
FLOOR = 0.3
"""What is 56 dB below it, or more, is silence."""


def speakers(every=1):
    """Return six speakers, 450 train and 50 test recordings each; "x" is (n, 1, FRAMES, 32).

    Args:
        every: Keep each so manieth recording only.
    """
    clients, _ = fm.data.load("fsdd")
    parts = [part for name in clients for part in (clients[name].train, clients[name].test)]
    parts = [{leaf: part[leaf][::every] for leaf in ("x", "y")} for part in parts]
    rows = {leaf: torch.cat([part[leaf] for part in parts]) for leaf in ("x", "y")}
    owner = [list(clients)[place // 2] for place, part in enumerate(parts) for _ in part["y"]]
    split = [place % 2 for place, part in enumerate(parts) for _ in part["y"]]
    return fm.data.from_arrays({"x": words(rows["x"]), "y": rows["y"]}, owner, split=split)


def words(x):
    """Return the word in each recording, stretched: (n, 1, 48, 32) -> (n, 1, FRAMES, 32)."""
    level = x[:, 0] * DEVIATION + MEAN
    frames = level.shape[1]
    loud = (level.amax(2) > LOUD).float()
    first, last = loud.argmax(1), frames - loud.flip(1).argmax(1)
    steps = (torch.arange(FRAMES) + 0.5) / FRAMES
    place = first[:, None] + (last - first)[:, None] * steps - 0.5
    place = place.clamp(0, frames - 1)
    before = place.long()
    after = (before + 1).clamp(max=frames - 1)
    share, rows = (place - before)[:, :, None], torch.arange(len(x))[:, None]
    word = (1 - share) * level[rows, before] + share * level[rows, after]
    word = word.clamp(min=FLOOR)
    centred = word - word.mean((1, 2), keepdim=True)
    return (centred / centred.std((1, 2), keepdim=True))[:, None]


def together(parts):
    """Return the rows of several parts as one."""
    parts = list(parts)
    return {leaf: torch.cat([part[leaf] for part in parts]) for leaf in parts[0]}


def accuracy(model, rows):
    """Return the share of recordings that a model hears right."""
    with torch.no_grad():
        return float((model(rows["x"]).argmax(1) == rows["y"]).float().mean())
