"""The model within a tree: a state, a broadcast, a carry or what a client keeps."""

from folkmoot.core.tree import Tree

PARTS = ("params", "buffers", "counts")
"""What of a tree is a model: parameters, and floating and other buffers."""


def model_in(tree: Tree) -> Tree:
    """Return the part of a tree that is a model."""
    return {part: tree[part] for part in PARTS}


def but(tree: Tree, name: str) -> Tree:
    """Return a tree without one of its parts."""
    return {key: value for key, value in tree.items() if key != name}


def apart(tree: Tree, name: str) -> tuple[Tree, Tree]:
    """Split what a transform has put into a tree under its name from what others know of it."""
    return but(tree, name), tree[name]
