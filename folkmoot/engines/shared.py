"""Trees in memory that forked processes share, and short messages between them.

Memory is an anonymous mapping: nothing on disk, nothing to clean up, gone with the last process.
Messages are a JSON header and the bytes of a tree; nothing that can run is sent.
"""

import json
import mmap
from multiprocessing.connection import Connection
from typing import Any

import torch

from folkmoot.core import tree as trees
from folkmoot.core import wire
from folkmoot.core.tree import Tree

_LINE_BYTES = 64
_LENGTH_BYTES = 8


def shared_like(tree: Tree) -> Tree:
    """Return zeros of a tree's shapes and dtypes, in memory shared with processes forked later."""
    leaves = trees.leaves(tree)
    ends = [0]
    for leaf in leaves:
        # Each leaf begins on a cache line of its own.
        size = -(-leaf.numel() * leaf.element_size() // _LINE_BYTES) * _LINE_BYTES
        ends.append(ends[-1] + size)
    memory = mmap.mmap(-1, max(ends[-1], _LINE_BYTES))
    views = [
        torch.frombuffer(memory, dtype=leaf.dtype, count=leaf.numel(), offset=offset).view(
            leaf.shape
        )
        if leaf.numel()
        else torch.empty_like(leaf)
        for leaf, offset in zip(leaves, ends, strict=False)
    ]
    return trees.like(tree, views)


def send(connection: Connection, header: dict[str, Any], tree: Tree) -> None:
    """Send a header of plain JSON and a tree, as one message."""
    said = json.dumps(header).encode()
    kept = {name: part for name, part in tree.items() if part}
    data = wire.to_bytes(kept) if kept else b""
    connection.send_bytes(len(said).to_bytes(_LENGTH_BYTES, "little") + said + data)


def receive(connection: Connection) -> tuple[dict[str, Any], Tree]:
    """Wait for the next message; empty parts of its tree have been left out.

    Raises:
        EOFError: If the other side is gone.
    """
    message = connection.recv_bytes()
    end = _LENGTH_BYTES + int.from_bytes(message[:_LENGTH_BYTES], "little")
    data = message[end:]
    return json.loads(message[_LENGTH_BYTES:end]), wire.from_bytes(data)[0] if data else {}
