"""Regression trees as arrays, and the sum of what they say: no code, no names, nothing to parse.

A tree of depth d has a place for each of the 2^(d + 1) - 1 nodes that it may have, and the children
of place i are 2i + 1 and 2i + 2. So no array says where to go next, and whatever a stranger sends,
a row comes to an end after d steps. Places that a tree has no node for hold a leaf of 0.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_BLOCK = 256
"""Trees that all rows go through at once."""


class Forest(NamedTuple):
    """Trees that are added up; all leaves (trees, places)."""

    feature: Tensor
    """int32: the input that a node splits by; -1 at a leaf."""
    number: Tensor
    """float32: what a leaf says; at a split, the threshold below which a row goes to the left."""
    missing_left: Tensor
    """bool: whether a row that lacks the input goes to the left."""

    @property
    def depth(self) -> int:
        """Splits on the longest way that there is room for."""
        return (self.number.shape[1] + 1).bit_length() - 2

    def scaled(self, factor: float) -> "Forest":
        """Return trees whose leaves say `factor` times as much."""
        leaf = self.feature < 0
        return self._replace(number=torch.where(leaf, factor * self.number, self.number))

    def resized(self, number: int) -> "Forest":
        """Return the first trees, or these and blank ones behind them."""
        if number <= len(self.number):
            return Forest(*(part[:number] for part in self))
        return joined([self, empty(number - len(self.number), self.depth)])

    def is_sound(self, inputs: int) -> bool:
        """Tell whether every split is by an input that there is, and the last places are leaves."""
        last = self.feature[:, (1 << self.depth) - 1 :]
        within = (self.feature >= -1) & (self.feature < inputs)
        return bool(within.all()) and bool((last < 0).all())


def empty(trees: int, depth: int) -> Forest:
    """Return trees of one leaf, which say 0."""
    shape = (trees, (1 << (depth + 1)) - 1)
    return Forest(
        torch.full(shape, -1, dtype=torch.int32),
        torch.zeros(shape),
        torch.zeros(shape, dtype=torch.bool),
    )


def joined(forests: Sequence[Forest]) -> Forest:
    """Return all trees, in order."""
    return Forest(*(torch.cat(parts) for parts in zip(*forests, strict=True)))


def margins(forest: Forest, x: Tensor, outputs: int = 1) -> Tensor:
    """Add up what trees say of rows.

    Args:
        forest: Tree t speaks of output t mod `outputs`.
        x: (rows, inputs), float32; NaN where an input is missing.
        outputs: Numbers a row.

    Returns:
        (rows, outputs), float64.
    """
    found = torch.zeros(len(x), outputs, dtype=torch.float64)
    for begin in range(0, len(forest.number), _BLOCK):
        block = Forest(*(part[begin : begin + _BLOCK] for part in forest))
        said = _said(block, x).double()
        speaks_of = torch.arange(begin, begin + said.shape[1]) % outputs
        found.index_add_(1, speaks_of, said)
    return found


def _said(forest: Forest, x: Tensor) -> Tensor:
    """Return what each tree says of each row, (rows, trees)."""
    trees, places = forest.number.shape
    feature, number, missing_left = (part.reshape(-1) for part in forest)
    root = torch.arange(trees) * places
    at = torch.zeros(len(x), trees, dtype=torch.int64)
    for _ in range(forest.depth):
        split = feature[root + at].long()
        value = x.gather(1, split.clamp(min=0))
        left = torch.where(value.isnan(), missing_left[root + at], value < number[root + at])
        at = torch.where(split < 0, at, 2 * at + 2 - left.long())
    return number[root + at]


def read(model: bytes | bytearray, depth: int) -> Forest:
    """Read the trees of a model that this process has trained, in XGBoost's own JSON.

    Args:
        model: `booster.save_raw("json")`.
        depth: The largest that any tree has.
    """
    said = json.loads(model)["learner"]["gradient_booster"]["model"]["trees"]
    forest = empty(len(said), depth)
    for row, tree in enumerate(said):
        ways = [(0, 0)]
        while ways:
            node, place = ways.pop()
            forest.number[row, place] = tree["split_conditions"][node]
            children = tree["left_children"][node], tree["right_children"][node]
            if children[0] < 0:
                continue
            forest.feature[row, place] = tree["split_indices"][node]
            forest.missing_left[row, place] = bool(tree["default_left"][node])
            ways += [(children[0], 2 * place + 1), (children[1], 2 * place + 2)]
    return forest


def written(forest: Forest, model: bytes | bytearray, outputs: int, inputs: int) -> bytes:
    """Return a model in XGBoost's JSON that has these trees.

    Args:
        forest: Of which tree t speaks of output t mod `outputs`.
        model: Any model of the same objective; its trees are replaced.
        outputs, inputs: Of the model.
    """
    said = json.loads(model)
    booster = said["learner"]["gradient_booster"]["model"]
    number = len(forest.number)
    booster["trees"] = [_as_json(forest, row, inputs) for row in range(number)]
    booster["tree_info"] = [row % outputs for row in range(number)]
    booster["iteration_indptr"] = list(range(0, number + 1, outputs))
    booster["gbtree_model_param"]["num_trees"] = f"{number}"
    return json.dumps(said).encode()


def _as_json(forest: Forest, row: int, inputs: int) -> dict[str, Any]:
    """Return one tree with the nodes that it has, in the order of their places."""
    feature, number = forest.feature[row].tolist(), forest.number[row].tolist()
    left = forest.missing_left[row].tolist()
    places, parents = [0], [2**31 - 1]
    for node, place in enumerate(places):
        if feature[place] >= 0:
            places += [2 * place + 1, 2 * place + 2]
            parents += [node, node]
    index = {place: node for node, place in enumerate(places)}
    nodes = len(places)
    return {
        "id": row,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": f"{inputs}",
            "num_nodes": f"{nodes}",
            "size_leaf_vector": "1",
        },
        "parents": parents,
        "left_children": [index.get(2 * p + 1, -1) if feature[p] >= 0 else -1 for p in places],
        "right_children": [index.get(2 * p + 2, -1) if feature[p] >= 0 else -1 for p in places],
        "split_indices": [max(feature[place], 0) for place in places],
        "split_conditions": [number[place] for place in places],
        "split_type": [0] * nodes,
        "default_left": [int(left[place]) for place in places],
        "base_weights": [number[p] if feature[p] < 0 else 0.0 for p in places],
        "loss_changes": [0.0] * nodes,
        "sum_hessian": [0.0] * nodes,
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
    }
