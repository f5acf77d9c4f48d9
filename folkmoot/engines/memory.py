"""Whose memory it is: what may not be written into, and what may not be handed on as it is."""

from folkmoot.core import tree as trees
from folkmoot.core.algorithm import LocalWork
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree


def places(tree: Tree) -> set[int]:
    """Return the pieces of memory in which a tree's leaves lie."""
    return {leaf.untyped_storage().data_ptr() for leaf in trees.leaves(tree)}


def versions(sent: Tree, own: Tree) -> list[int]:
    """Return how often each leaf was written into so far; one of inference mode does not tell."""
    found = [leaf for tree in (sent, own) for leaf in trees.leaves(tree)]
    return [-1 if leaf.is_inference() else leaf._version for leaf in found]


def refuse_written(work: LocalWork, before: list[int], sent: Tree, own: Tree) -> None:
    """Refuse work that has written into what was sent or what its client keeps.

    Neither is copied for each client: others are given the one, and a round that is done again, or
    a checkpoint, begins with the other.

    Raises:
        SettingsError: With the first leaf's name.
    """
    if versions(sent, own) == before:
        return
    now, paths = versions(sent, own), [path for path, _ in trees.items({"sent": sent, "own": own})]
    path = next(path for path, old, new in zip(paths, before, now, strict=True) if old != new)
    whose = "what is broadcast" if path[0] == "sent" else "what its client keeps"
    raise SettingsError(
        f"The work {work.name!r} writes into {trees.name(path)}, which is {whose} and may not "
        "change under it. Let start() put a copy of it into the carry, write into that, and let "
        "finish() return the new state."
    )
