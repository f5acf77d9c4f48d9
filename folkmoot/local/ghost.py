"""Ghost clipping: norms of per-example gradients from what a layer was given and what came back.

Goodfellow, "Efficient Per-Example Gradient Computations", 2015, arXiv:1510.01799; Li, Tramèr,
Liang, Hashimoto, "Large Language Models Can Be Strong Differentially Private Learners", ICLR 2022,
arXiv:2110.05679, section 4. A dense layer's gradient by its weight is, for one example, the sum
over positions t of b_t a_t^T, with a the layer's input and b the loss's gradient by its output. Its
norm follows from inner products of the a and of the b, and the clipped sum over examples is one
matrix product. So one forward pass and one backward pass through activations do, where the papers
do a second backward pass.

The sum is taken in float64 of just those a and b whose norms were taken, so that the bound holds
for what is added, not only for what was meant.

The pass is made under `torch.func.vmap`, in which the model sees one row at a time though the
arithmetic is of all together. So what is noted for a row follows from that row alone, whatever the
model does: subtracts a mean, attends, shuffles, branches by `torch.where`. That is not tried out on
some rows but a property of the map, and costs some tenths of a millisecond a pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from folkmoot.local.pieces import Looked, Outer, Piece, Whole
from folkmoot.local.replica import Replica

_LARGE = 1 << 20
"""Products of one row from which a convolution's own kernel is faster than unfolding its input."""


# Public only through functions whose calls cost more than a small layer's arithmetic.
_mapped = torch._C._functorch


class UnfitError(Exception):
    """A model whose gradients have no closed form here."""


def _joined(pieces: Sequence[Any]) -> Piece:
    """Return the gradients by a parameter that is used several times: a tied one counts once."""
    first = pieces[0]
    if len({type(piece) for piece in pieces}) > 1:
        raise UnfitError("a parameter is used by layers of several kinds")
    if len(pieces) > 1 and isinstance(first, Whole):
        first = Whole(torch.stack([piece.gradients for piece in pieces]).sum(0))
    elif len(pieces) > 1:
        names = ("a", "b") if isinstance(first, Outer) else ("ids", "b")
        parts = {name: torch.cat([getattr(p, name) for p in pieces], dim=1) for name in names}
        first = first._replace(**parts)
    return _smaller(first) if isinstance(first, Outer) else first


def _smaller(piece: Outer) -> Piece:
    """Return gradients as they are where they are smaller than the products of positions."""
    _, positions, inputs = piece.a.shape
    outputs = piece.b.shape[2]
    if positions == 1 or positions * (inputs + outputs) <= inputs * outputs:
        return piece
    return Whole((piece.b.mT @ piece.a).flatten(1))


Pieces = dict[str, Any]


def _linear(layer: nn.Linear, given: Tensor, back: Tensor) -> Pieces:
    a = given.reshape(len(given), -1, given.shape[-1]).double()
    b = back.reshape(len(back), -1, back.shape[-1]).double()
    # A sum over one position is as slow as over many.
    bias = b[:, 0] if b.shape[1] == 1 else b.sum(1)
    return {"weight": Outer(a, b), "bias": Whole(bias)}


def _embedding(layer: nn.Embedding, given: Tensor, back: Tensor) -> Pieces:
    if layer.scale_grad_by_freq:
        raise UnfitError("an embedding weighs its gradients by a batch's frequencies")
    ids = given.reshape(len(given), -1).long()
    b = back.reshape(*ids.shape, -1).double()
    if layer.padding_idx is not None:
        b = b.masked_fill((ids == layer.padding_idx)[:, :, None], 0)
    return {"weight": Looked(layer.num_embeddings, ids, b)}


def _images(tensor: Tensor) -> Tensor:
    """Return (rows, ...) of what a layer saw, (rows, 1, ...)."""
    if tensor.shape[1] != 1:
        raise UnfitError("a layer is given parts of a row as if they were rows")
    return tensor.squeeze(1)


def _conv(layer: Any, given: Tensor, back: Tensor) -> Pieces:
    """Take each row's gradient as it is: by a filter's patches, or by the library's own kernel."""
    flat = isinstance(layer, nn.Conv1d)
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UnfitError("a convolution pads in a way of its own")
    given, back = _images(given), _images(back)
    if given.dim() != (3 if flat else 4):
        raise UnfitError("a convolution was given no batch")
    sizes = [layer.kernel_size, layer.dilation, layer.padding, layer.stride]
    if flat:
        # A line is an image of height 1.
        given, back = given.unsqueeze(2), back.unsqueeze(2)
        sizes = [(one, *size) for one, size in zip((1, 1, 0, 1), sizes, strict=True)]
    kernel, dilation, padding, stride = sizes
    b = back.reshape(len(back), layer.groups, -1, back[0, 0].numel())
    if layer.weight.numel() * b.shape[-1] > _LARGE:
        shape = (*layer.weight.shape[:2], *kernel)
        rest = (stride, padding, dilation, layer.groups)
        each = [
            conv2d_weight(given[at : at + 1], shape, back[at : at + 1], *rest)
            for at in range(len(given))
        ]
        weight = torch.stack(each).flatten(1)
    else:
        patches = F.unfold(given, kernel, dilation, padding, stride)
        patches = patches.view(len(given), layer.groups, -1, patches.shape[-1])
        weight = (b @ patches.mT).flatten(1)
    return {"weight": Whole(weight), "bias": Whole(b.sum(3).flatten(1))}


def _affine(layer: Any, scaled: Tensor, back: Tensor, over: tuple[int, ...]) -> Pieces:
    weight, bias = back * scaled, back
    if over:
        weight, bias = weight.sum(over), bias.sum(over)
    return {"weight": Whole(weight.flatten(1)), "bias": Whole(bias.flatten(1))}


def _layer_norm(layer: nn.LayerNorm, given: Tensor, back: Tensor) -> Pieces:
    scaled = F.layer_norm(given, layer.normalized_shape, eps=layer.eps)
    return _affine(layer, scaled, back, tuple(range(1, given.dim() - len(layer.normalized_shape))))


def _group_norm(layer: nn.GroupNorm, given: Tensor, back: Tensor) -> Pieces:
    given, back = _images(given), _images(back)
    scaled = F.group_norm(given, layer.num_groups, eps=layer.eps)
    return _affine(layer, scaled, back, tuple(range(2, given.dim())))


_CLOSED: dict[type[nn.Module], Callable[..., Pieces]] = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
}


class Use(NamedTuple):
    """One call of a layer, with all rows' tensors, of which the layer saw one row's at a time."""

    layer: nn.Module
    given: Tensor
    output: Tensor
    places: tuple[int | None, int]
    """In which dimension of each the rows stand; None: all rows share what was given."""
    versions: tuple[int, int]


@contextmanager
def noted(module: nn.Module, key: Tensor, copies: bool) -> Iterator[list[Use]]:
    """Note what layers give whose parameters ask for gradients, in a pass of a mapped row.

    Args:
        module: Called in this block, once.
        key: Any whole number of the row's, [].
        copies: Whether layers hand on a copy of what they give, for models that write into it.
    """
    uses: list[Use] = []

    def note(layer: nn.Module, given: Any, output: Any) -> Tensor | None:
        if len(given) != 1:
            raise UnfitError("a layer is called by keyword")
        if not _mapped.is_batchedtensor(output):
            # What no row has a part in, such as positions looked up, gets a copy for each.
            output = output + 0 * key
        outer, place = _unmapped(output)
        if not outer.requires_grad or place is None:
            return output
        inner, standing = _unmapped(given[0])
        versions = inner._version, outer._version
        uses.append(Use(layer, inner, outer, (standing, place), versions))
        return output.clone() if copies else output

    layers = [layer for layer in module.modules() if type(layer) in _CLOSED]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield uses
    finally:
        for handle in handles:
            handle.remove()


def _unmapped(tensor: Tensor) -> tuple[Tensor, int | None]:
    """Return all rows' tensor behind a row's, and the dimension of the rows there."""
    if not _mapped.is_batchedtensor(tensor):
        found, place = tensor, None
    else:
        found, place = _mapped.get_unwrapped(tensor), _mapped.maybe_get_bdim(tensor)
    if _mapped.is_functorch_wrapped_tensor(found):
        raise UnfitError("a layer is called inside a transform")
    return found, place


def pieces(replica: Replica, losses: Tensor, uses: list[Use], names: Sequence[str]) -> list[Piece]:
    """Return the gradients of each row's loss by each parameter.

    Args:
        replica: Whose module was called, with its parameters bound.
        losses: One a row, (rows,), of a mapped pass.
        uses: Of that pass.
        names: Of the parameters, in order.

    Raises:
        UnfitError: If they have no closed form.
    """
    if not uses:
        raise UnfitError("no layer has a closed form")
    if any((use.given._version, use.output._version) != use.versions for use in uses):
        raise UnfitError("what a layer was given or gave was written into")
    outputs = [use.output for use in uses]
    backs = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
    owners = replica.owners(names)
    found: dict[str, list[Any]] = {name: [] for name in names}
    for use, back in zip(uses, backs, strict=True):
        if back is None:
            continue
        standing, place = use.places
        shared = use.given.detach()
        given = shared.expand(len(losses), *shared.shape)
        if standing is not None:
            given = shared.movedim(standing, 0)
        made = _CLOSED[type(use.layer)](use.layer, given, back.movedim(place, 0))
        for part, piece in made.items():
            name = owners.get((id(use.layer._parameters), part))
            if name is not None:
                found[name].append(piece)
    if not all(found.values()):
        raise UnfitError("a parameter is no layer's")
    return [_joined(found[name]) for name in names]


def never_held(replica: Replica, params: Any) -> int:
    """Return the numbers of parameters whose per-example gradients are never written down."""
    lean = (nn.Linear, nn.Embedding)
    layers = [layer for layer in replica.module.modules() if type(layer) in lean]
    held = {id(layer._parameters) for layer in layers}
    owners = replica.owners(list(params))
    names = {name for (owner, _), name in owners.items() if owner in held}
    return sum(params[name].numel() for name in names)
