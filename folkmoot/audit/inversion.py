"""Gradient inversion: what one client's update gives away of its examples.

Two attacks. Where the model begins with a linear layer with a bias, each unit's gradient is a sum
over examples of (error of the unit) x (input), and its bias's the sum of the errors, so for one
example their quotient is the input, exactly (Phong et al., "Privacy-Preserving Deep Learning via
Additively Homomorphic Encryption", IEEE TIFS 2018, section 3). Of several examples each unit shows
a mixture, and those of a single one where it alone woke the unit. Everywhere else examples are
searched whose gradient points where the update does: Zhu, Liu, Han, "Deep Leakage from Gradients",
NeurIPS 2019, arXiv:1906.08935, with the cosine, the total variation and the signed steps of
Geiping et al., "Inverting Gradients", NeurIPS 2020, arXiv:2003.14053; labels from the last bias by
Zhao et al., "iDLG", 2020, arXiv:2001.02610.

An update of several local steps is taken for one step along their sum: the attacks blur, they do
not end.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from folkmoot.core.aggregator import Update
from folkmoot.core.algorithm import Algorithm
from folkmoot.core.engine import ClientId, Cohort, Setting
from folkmoot.core.errors import SettingsError
from folkmoot.core.fold import ascending
from folkmoot.core.tree import Tree
from folkmoot.data import as_clients
from folkmoot.engines import sequential
from folkmoot.train.loop import begun, check_task, first_snapshot

_ASLEEP = 1e-6
"""A unit whose bias's gradient is smaller than this share of the largest one tells nothing."""


def updates(
    algorithm: Algorithm, clients: Any, asked: Iterable[ClientId] | None = None, seed: int = 0
) -> dict[ClientId, Update]:
    """Return what clients would send in the first exchange of the first round, before any codec.

    Args:
        algorithm: Any.
        clients: As for `fm.run`.
        asked: Ids; None is everyone.
        seed: As for `fm.run`.

    Raises:
        SettingsError: If a client has nothing to send.
    """
    federation = as_clients(clients)
    task = check_task(algorithm, next(begun(algorithm, first_snapshot(algorithm).state)))
    chosen = ascending(federation if asked is None else asked)
    cohort = Cohort(1, chosen, len(federation), len(chosen))
    engine, found = sequential()(Setting(federation, seed)), {}
    for client, update in engine.stream(task, cohort, {}):
        if not isinstance(update, Update):
            raise SettingsError(f"Client {client!r} sends nothing: {update.reason}.")
        found[client] = update
    return found


def first_layer(params: Tree, layer: str) -> Tensor:
    """Read inputs off the update of a linear layer with a bias.

    Args:
        params: The update's parameters, by name; any multiple of a gradient.
        layer: Name of the first layer, such as "1".

    Returns:
        (units, inputs), those first whose bias moved most. For a client of one example every row is
        that example; else rows are mixtures. Units that no example woke are left out.

    Raises:
        SettingsError: If there is no such layer.
    """
    weight, bias = params.get(f"{layer}.weight"), params.get(f"{layer}.bias")
    if weight is None or bias is None or weight.dim() != 2:
        raise SettingsError(
            f"The update has no linear layer {layer!r} with a bias. Its leaves are "
            f"{', '.join(params)}."
        )
    awake = bias.abs() > _ASLEEP * bias.abs().max()
    order = bias[awake].abs().argsort(descending=True)
    found: Tensor = (weight[awake] / bias[awake, None])[order]
    return found


def labels_of(params: Tree, bias: str, examples: int) -> Tensor:
    """Read labels off the update of the last layer's bias, (examples,), ascending.

    An example pulls the logit of its own class up and all others down, so the classes whose bias
    moved up most were there. Each is taken to be there once: for few examples of many classes.

    Args:
        params: The update's parameters (local minus broadcast, so a step against the gradient).
        bias: Name of the last bias, such as "3.bias".
        examples: How many labels.
    """
    if bias not in params or params[bias].dim() != 1 or not 0 < examples <= len(params[bias]):
        raise SettingsError(
            f"Labels need a bias of at least {examples} classes, but {bias!r} is none of "
            f"{', '.join(params)}. Pass labels=."
        )
    return params[bias].topk(examples).indices.sort().values


def invert(
    objective: Any,
    params: Tree,
    labels: Tensor,
    shape: tuple[int, ...],
    *,
    steps: int = 300,
    lr: float = 0.1,
    smooth: float = 1e-3,
    seed: int = 0,
) -> Tensor:
    """Search examples whose gradient points where an update does.

    Args:
        objective: Model and loss, such as `fm.classifier(model)`, at the broadcast parameters.
        params: The update's parameters, by name: local minus broadcast.
        labels: The examples' labels, (examples,).
        shape: Of one example.
        steps: Of Adam on the sign of the gradient.
        lr: Its first rate, which falls to a hundredth.
        smooth: Weight of the total variation over the last two axes; 0 for what is no image.
        seed: Of the first guess.

    Returns:
        (examples, *shape).
    """
    model: nn.Module = objective.model
    leaves = {name: leaf for name, leaf in model.named_parameters() if name in params}
    wanted = torch.cat([-params[name].flatten() for name in leaves])
    draw = torch.Generator().manual_seed(seed)
    guess = torch.randn(len(labels), *shape, generator=draw).requires_grad_()
    optimizer = torch.optim.Adam([guess], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, lr / 100)
    for _ in range(steps):
        loss = objective.loss(model(guess), labels).mean()
        found = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        flat = torch.cat([leaf.flatten() for leaf in found])
        apart = 1 - torch.cosine_similarity(flat, wanted, dim=0)
        if smooth:
            apart = apart + smooth * _variation(guess)
        (guess.grad,) = torch.autograd.grad(apart, [guess])
        guess.grad.sign_()
        optimizer.step()
        schedule.step()
    return guess.detach()


def _variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbours in the last two axes."""
    across, down = images.diff(dim=-1).abs().mean(), images.diff(dim=-2).abs().mean()
    return across + down


def nearest(candidates: Tensor, originals: Tensor) -> Tensor:
    """Return, for each original, the candidate that is most like it: (examples, *shape).

    Likeness is the absolute correlation, which overlooks brightness, contrast and sign, as people
    do. An attacker who does not know the originals would look at all candidates.

    Args:
        candidates: (found, inputs).
        originals: (examples, *shape).
    """
    wanted = _standard(originals.flatten(1))
    found = _standard(candidates.flatten(1).to(wanted.dtype))
    likeness = wanted @ found.T / wanted.shape[1]
    best = likeness.abs().argmax(dim=1)
    signs = likeness.gather(1, best[:, None]).sign()
    return (found[best] * signs).reshape(originals.shape)


def similarity(found: Tensor, originals: Tensor) -> Tensor:
    """Return the correlation of each reconstruction with its original, (examples,); 1 is exact."""
    there, back = _standard(found.flatten(1)), _standard(originals.flatten(1))
    return (there * back).mean(dim=1)


def _standard(rows: Tensor) -> Tensor:
    """Return rows of mean 0 and deviation 1; constant rows become 0."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / spread.clamp(min=1e-12)
