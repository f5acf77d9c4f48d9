"""Trees: nested dicts of tensors, and their arithmetic.

Models, updates, states and all that travels are trees. A leaf's path is the tuple of its keys,
printed with slashes: `params/fc1.weight`. Functions whose names end in an underscore write into
their first argument; all others return new leaves.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

Tree = dict[str, Any]
Path = tuple[str, ...]

# Asked for each leaf and step, so without the way through torch's modules.
_is_compiling = torch.compiler.is_dynamo_compiling
_is_mapped = torch._C._functorch.is_functorch_wrapped_tensor


def leaves(tree: Tree) -> list[Tensor]:
    """Return the tensors of a tree, in order."""
    found: list[Tensor] = []
    for value in tree.values():
        if type(value) is not dict:
            found.append(value)
        elif value:
            found += leaves(value)
    return found


def items(tree: Tree, above: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yield (path, tensor) for each leaf, in order."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from items(value, (*above, key))
        else:
            yield (*above, key), value


def name(path: Path) -> str:
    """Return a path as it is printed: keys joined by slashes."""
    return "/".join(path)


def aligned(tree: Tree, other: Tree) -> list[Tensor]:
    """Return the leaves of `other` in the order of `tree`: keys may stand in another order."""
    if len(tree) != len(other):
        raise KeyError(f"Trees of other keys: {', '.join(tree)}; {', '.join(other)}.")
    found: list[Tensor] = []
    for key, value in tree.items():
        if type(value) is not dict:
            found.append(other[key])
        elif value or other[key]:
            found += aligned(value, other[key])
    return found


def like(tree: Tree, tensors: Iterable[Tensor]) -> Tree:
    """Return a tree of the structure of `tree` that holds `tensors` in order."""
    source = iter(tensors)
    return map(lambda leaf: next(source), tree)


def map(function: Callable[..., Tensor], *trees: Tree) -> Tree:
    """Return the tree of `function(leaf, leaf, ...)` over trees of one structure."""
    first, *rest = trees
    return {
        key: map(function, value, *(other[key] for other in rest))
        if isinstance(value, dict)
        else function(value, *(other[key] for other in rest))
        for key, value in first.items()
    }


def empties(tree: Tree, above: Path = ()) -> list[Path]:
    """Return the paths of empty dicts, which have no leaves to tell of them."""
    found: list[Path] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += empties(value, (*above, key)) if value else [(*above, key)]
    return found


def build(pairs: Iterable[tuple[Path, Tensor]], empty: Iterable[Path] = ()) -> Tree:
    """Return the tree that `items` and `empties` have taken apart."""
    tree: Tree = {}
    for path, part in [*pairs, *((path, {}) for path in empty)]:
        inner = tree
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner.setdefault(path[-1], part)
    return tree


def is_ordinary(tensor: Tensor) -> bool:
    """Tell whether a tensor is neither mapped by `torch.func` nor being traced by the compiler."""
    return not (_is_compiling() or _is_mapped(tensor))


def each(method: str, first: list[Tensor], *others: Any, **options: Any) -> list[Tensor]:
    """Call a tensor method on each leaf: fused where torch can, one by one on mapped leaves.

    Args:
        method: Such as "add_"; there is a `torch._foreach_` form of it.
        first: The leaves.
        others: Arguments, each a list with one for each leaf or one for all.
        options: Keyword arguments, the same for all leaves.
    """
    if not first:
        return []
    given = [first[0], *(other[0] if isinstance(other, list) else other for other in others)]
    if all(is_ordinary(one) for one in given if isinstance(one, Tensor)):
        return getattr(torch, f"_foreach_{method}")(first, *others, **options) or first
    lists = [other if isinstance(other, list | tuple) else [other] * len(first) for other in others]
    # torch.compile turns add(alpha=) of a matrix product into addmm and drops alpha (torch 2.13).
    alpha = options.pop("alpha", None)
    if alpha is not None:
        lists[0] = [other * alpha for other in lists[0]]
    pairs = zip(first, *lists, strict=True)
    return [getattr(leaf, method)(*rest, **options) for leaf, *rest in pairs]


def clone(tree: Tree) -> Tree:
    """Return a copy that shares no memory with `tree`."""
    return {key: clone(leaf) if type(leaf) is dict else leaf.clone() for key, leaf in tree.items()}


def zeros_like(tree: Tree) -> Tree:
    """Return a tree of zeros of the same shapes and dtypes."""
    return map(torch.zeros_like, tree)


def add(a: Tree, b: Tree) -> Tree:
    """Return a + b."""
    return like(a, each("add", leaves(a), aligned(a, b)))


def sub(a: Tree, b: Tree) -> Tree:
    """Return a - b."""
    return like(a, each("sub", leaves(a), aligned(a, b)))


def scale(factor: float | Tensor, tree: Tree) -> Tree:
    """Return factor * tree."""
    return like(tree, each("mul", leaves(tree), factor))


def axpy(factor: float | Tensor, x: Tree, y: Tree) -> Tree:
    """Return factor * x + y."""
    if isinstance(factor, Tensor):
        return add(scale(factor, x), y)
    return like(y, each("add", leaves(y), aligned(y, x), alpha=factor))


def axpy_(y: Tree, factor: float, x: Tree) -> None:
    """Add factor * x to y, in place."""
    each("add_", leaves(y), aligned(y, x), alpha=factor)


def copy_(target: Tree, source: Tree) -> None:
    """Copy the numbers of `source` into `target`, in place."""
    each("copy_", leaves(target), aligned(target, source))


def norm(tree: Tree) -> Tensor:
    """Return the L2 norm over all leaves together, in float64; a 0-d tensor."""
    squares = [leaf.double().square().sum() for leaf in leaves(tree)]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros((), dtype=torch.float64)


def num_bytes(tree: Tree) -> int:
    """Return the bytes of all leaves."""
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves(tree))
