"""Shakespeare: the speeches of 978 roles, for a model of the next character.

Text: Project Gutenberg, in the edition of Open Shakespeare (package `shakespeare` 0.6, Open
Knowledge Foundation). The texts are in the public domain, the edition's files under CC BY 2.5. The
task is that of McMahan et al., AISTATS 2017, arXiv:1602.05629, and of LEAF, Caldas et al.,
arXiv:1812.01097.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from folkmoot.core.tree import Tree
from folkmoot.data.client_data import ClientData
from folkmoot.data.pooled import from_pool
from folkmoot.data.sets.files import find, read_csv

VOCABULARY = "\n !\"&'(),-./0123456789:;?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz{"
"""The 82 characters of the texts; a character's code is its place in this string."""

LENGTH = 80
"""Characters of one example."""


def shakespeare(folder: str | Path | None = None) -> tuple[ClientData, Tree]:
    """Load Shakespeare with one client a speaking role: next-character prediction.

    The speeches of a role are joined by line feeds, in the order of the play, and cut into windows
    of 81 characters, 80 apart; the last window is moved back so that it is full, and a text shorter
    than 81 characters has line feeds before it. Nothing is ever padded behind, so no position needs
    a mask. Unlike LEAF, which predicts only the character after 80, every position has a target, as
    in TFF.

    Args:
        folder: Where `speeches.csv.gz` lies; by default the usual places of `load`.

    Returns:
        Clients 0 to 977, the rows of the set's `clients.csv` (play and role), each with tests (the
        last fifth of its speeches), and the pooled test set. x: (n, 80), int64, codes of
        `VOCABULARY`; y: (n, 80), int64, the same text one character on: y[:, i] follows x[:, i].

    Raises:
        DataError: If the file is not found.
    """
    table = read_csv(find("shakespeare", "speeches.csv.gz", folder))
    speeches: dict[tuple[int, int], list[str]] = {}
    for role, split, text in zip(table["client"], table["split"], table["text"], strict=True):
        speeches.setdefault((int(role), int(split)), []).append(text)
    roles = sorted({role for role, _ in speeches})
    parts = [(_windows(speeches[role, 0]), _windows(speeches[role, 1])) for role in roles]
    examples = _shifted(np.concatenate([windows for pair in parts for windows in pair]))
    clients = from_pool(
        examples,
        roles,
        [len(train) for train, _ in parts],
        [len(test) for _, test in parts],
        name="shakespeare",
        num_classes=len(VOCABULARY),
    )
    return clients, _shifted(np.concatenate([test for _, test in parts]))


def encode(text: str) -> NDArray[np.int64]:
    """Return the codes of a text's characters, (len(text),); they must be in `VOCABULARY`."""
    return _CODE[np.frombuffer(text.encode("ascii"), dtype=np.uint8)]


_CODE = np.full(128, -1, dtype=np.int64)
_CODE[[ord(character) for character in VOCABULARY]] = np.arange(len(VOCABULARY))


def _windows(speeches: list[str]) -> NDArray[np.int64]:
    codes = encode("\n".join(speeches).rjust(LENGTH + 1, "\n"))
    starts = np.arange(0, len(codes) - 1, LENGTH)
    starts[-1] = len(codes) - LENGTH - 1
    return codes[starts[:, None] + np.arange(LENGTH + 1)]


def _shifted(windows: NDArray[np.int64]) -> Tree:
    both = torch.from_numpy(windows)
    return {"x": both[:, :-1].contiguous(), "y": both[:, 1:].contiguous()}
