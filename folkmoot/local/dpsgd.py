"""DP-SGD at each client: an example hides among the client's others, whoever sees the updates.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, arXiv:1607.00133. Each gradient
of a step is the sum of clipped per-example gradients of a batch drawn by Poisson sampling, plus
Gaussian noise, over the expected size of a batch: the size that came would tell who was there. What
an optimizer, momentum, weight decay, a proximal term or a control variate makes of it is
post-processing.

The unit is one example of one client, added or removed; the numbers of examples are public. The
guarantee is each client's own and grows with the rounds in which it takes part; nothing is gained
from others not knowing when that was. Arithmetic of the model itself is taken as it comes: that
float32 products of one row may round otherwise when another row leaves its batch, some 1e-7 of a
gradient, is not accounted for, here as elsewhere.
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from folkmoot.codecs import entropy
from folkmoot.codecs.discrete_gaussian import discrete_gaussian
from folkmoot.codecs.noise import sigma_of
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Batch, LocalWork
from folkmoot.core.errors import SettingsError, not_negative, positive
from folkmoot.core.tree import Tree
from folkmoot.local.composed import refuse_no_work
from folkmoot.local.memory import EVERY, REMEMBERS, remembers
from folkmoot.local.per_example import clipped_sum, grouped_sum
from folkmoot.local.sealed import Sealed
from folkmoot.local.sgd import checked
from folkmoot.local.ways import Rows
from folkmoot.privacy.events import PoissonGaussian


def dpsgd(
    work: LocalWork,
    *,
    clip: float,
    noise_multiplier: float,
    microbatch: int = 1,
    gradients: int = 1,
    simulation: bool = False,
) -> LocalWork:
    """Make every gradient of a work private, for each example of each client.

    With `local.descent(objective, optimizers.adam(0.001))` this is DP-Adam. Its batches are sealed:
    a work that wants anything of the examples but gradients is refused.

    Args:
        work: Such as `local.sgd(...)`; its batch size is the expected one, its epochs are steps.
        clip: Largest L2 norm of one example's gradient, over all parameters; above 0.
        noise_multiplier: Standard deviation of the noise in a sum, over `clip`; at least 0.
        microbatch: Examples whose mean gradient is clipped as one. Above 1 the mean changes by up
            to 2 `clip` when an example leaves it, which `charges` takes into account.
        gradients: Most gradients that a step takes of one batch; each has noise of its own.
        simulation: Whether batches and noise follow from the run's seed, so that a run can be
            repeated; it then protects nobody.

    Raises:
        SettingsError: If a number is out of range, or the model cannot be private: its layers use
            batch statistics, or write into buffers or weights.
    """
    refuse_no_work("dpsgd", work)
    positive(clip=clip)
    not_negative(noise_multiplier=noise_multiplier)
    if not simulation:
        # Said now if it cannot be had, not in the first step.
        entropy.system()
    for name, value in (("microbatch", microbatch), ("gradients", gradients)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SettingsError(f"{name} must be a whole number of at least 1, but is {value!r}.")
    if not work.train:
        raise SettingsError(f"The work {work.name!r} takes no gradients that could be private.")
    if work.plan.poisson:
        raise SettingsError(f"The gradients of work {work.name!r} are private already.")
    _refuse_model(getattr(work.objective, "model", None))
    threads = threading.local()

    def private(work: LocalWork) -> LocalWork:
        objective = PrivateObjective(
            work.objective, clip, noise_multiplier, microbatch, gradients, threads
        )
        plan = checked(work.plan._replace(poisson="seeded" if simulation else "secret"))
        # Whoever takes the transforms off, to train a client alone, must not take this one off.
        plain = private(work.plain) if work.plain else None
        return work.changed(objective=objective, plan=plan)._replace(plain=plain)

    return private(work)


def charges(work: LocalWork, examples: int, rounds: int = 1) -> list[tuple[PoissonGaussian, int]]:
    """Return what taking part in some rounds costs each example of a client.

    Several gradients of one batch are one release with less noise: what they tell adds up, and
    they share one chance to be in the batch.

    Args:
        work: From `dpsgd`, with whatever an algorithm has put on it.
        examples: Of the client.
        rounds: In which it takes part, at most.

    Returns:
        (event, times), for an accountant.

    Raises:
        SettingsError: If the work may look at examples otherwise.
    """
    objective = work.objective
    if not isinstance(objective, PrivateObjective) or not work.plan.poisson:
        raise SettingsError(
            f"The work {work.name!r} may look at examples otherwise than by private gradients, so "
            "its cost is not known. Build it with fm.local.dpsgd(work, clip=..., "
            "noise_multiplier=...), and use an algorithm whose steps take gradients only."
        )
    plan = work.plan
    size = min(plan.batch_size or examples, examples)
    steps = plan.steps if plan.steps is not None else (plan.epochs or 0) * -(-examples // size)
    # A group's mean goes from one vector of that norm to another when an example leaves it.
    most = (1 if objective.microbatch == 1 else 2) * math.sqrt(objective.gradients)
    event = PoissonGaussian(objective.noise_multiplier / most, size / examples)
    return [(event, steps * rounds)]


class PrivateObjective(NamedTuple):
    """An objective whose gradients are private; all else it does as the plain one."""

    plain: Any
    clip: float
    noise_multiplier: float
    microbatch: int
    gradients: int
    threads: threading.local
    """What each thread has learnt of how the model's gradients are taken."""

    def with_precision(self, precision: str) -> "PrivateObjective":
        """Return this objective with gradients in "float32" or "bf16"."""
        return self._replace(plain=self.plain.with_precision(precision))

    def grad(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> tuple[Tree, Tensor]:
        """Return a private gradient of a sealed batch. The loss is not told: it is NaN."""
        if not isinstance(batch.data, Sealed):
            raise SettingsError(
                "A private gradient needs a batch of rows drawn by Poisson sampling, but the plan "
                "of this work has none. Build the work with fm.local.dpsgd(work, ...), and leave "
                "its plan's poisson as it is."
            )
        rows, expected, look = batch.data.open(self.gradients)
        found = Rows(params, buffers, counts, rows, batch.key, batch.epoch)
        size = sum(leaf.numel() for leaf in params.values())
        step = grid(self.clip, self.noise_multiplier, size)
        total = self._sum(found, self.clip - step * math.sqrt(size), expected)
        # The expected number of what was added: the one that came is nobody's business.
        divisor = -(-expected // self.microbatch)
        if step:
            words = entropy.system() if batch.data.secret else _seeded(batch.key, look)
            # By the one rule of noise on a grid: a clip of so many steps is the longest vector.
            sigma = sigma_of(self.noise_multiplier, {"reach": self.clip / step})
            noise = discrete_gaussian(size, sigma, words)
            steps = total.mul_(1 / step).round_().numpy()
            np.add(steps, noise, out=steps)
        total.mul_((step or 1.0) / divisor)
        parts = torch.split(total, [leaf.numel() for leaf in params.values()])
        gradient = {
            name: part.to(leaf.dtype).view(leaf.shape)
            for (name, leaf), part in zip(params.items(), parts, strict=True)
        }
        return gradient, torch.full((), math.nan)

    def _sum(self, rows: Rows, clip: float, expected: int) -> Tensor:
        """Return the clipped sum over a batch, or over its groups, without noise."""
        size = sum(leaf.numel() for leaf in rows.params.values())
        if not rows.number:
            return torch.zeros(size, dtype=torch.float64)
        with self._unwritten(rows):
            remembered = self._asked(rows)
        if remembered:
            raise SettingsError(REMEMBERS)
        with self._unwritten(rows):
            return self._added(rows, clip, expected)

    def _added(self, rows: Rows, clip: float, expected: int) -> Tensor:
        if self.microbatch == 1:
            ways = self.threads.__dict__.setdefault("ways", {})
            return clipped_sum(self.plain, rows, clip, ways)[0]
        return grouped_sum(self.plain, rows, clip, -(-expected // self.microbatch))

    def _asked(self, rows: Rows) -> bool:
        """Ask now and then whether the model remembers rows."""
        known = self.threads.__dict__.setdefault("memory", {"batches": 0})
        told = None if known["batches"] % EVERY else remembers(self.plain, rows)
        # The count stays where it is while nothing is told, so that the next batch is asked.
        known["batches"] += told is not None or known["batches"] % EVERY > 0
        return bool(told)

    @contextlib.contextmanager
    def _unwritten(self, rows: Rows) -> Iterator[None]:
        """Refuse what passes of this block write into weights or buffers."""
        written = [rows.params, rows.buffers, rows.counts]
        before = [leaf._version for tree in written for leaf in trees.leaves(tree)]
        yield
        if [leaf._version for tree in written for leaf in trees.leaves(tree)] != before:
            raise SettingsError(_WRITES)
        if getattr(self.plain, "keeps", False) and self.plain.replica().renew():
            raise SettingsError(_WRITES)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


def _seeded(key: Tensor, look: int) -> entropy.Words:
    """Return the noise's words in a simulation: a step's, and one of its gradients'."""
    return entropy.seeded(rng.derive(int(key), round=look, purpose="private noise"))


_WRITES = (
    "A forward pass of the model writes into its weights or buffers, as running statistics do, and "
    "what it writes tells of examples without noise. Use a layer that keeps none: GroupNorm for "
    "batch or instance statistics; an embedding without max_norm."
)


def grid(clip: float, noise_multiplier: float, size: int) -> float:
    """Return the step of the grid on which a sum of `size` numbers is rounded; 0 without noise.

    Floating-point noise would tell of a sum by its low bits (Mironov, CCS 2012); whole numbers of
    steps have none. Rounding moves two sums apart by at most a step times sqrt(size), 2^-8 of the
    clip norm or less, which is taken off it: nothing beyond `clip` is left to account for. A step
    is at most 2^-10 of the noise.
    """
    if not noise_multiplier:
        return 0.0
    return min(2.0**-8 / math.sqrt(size), 2.0**-10 * noise_multiplier) * clip


_INSTANCES = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d


def _refuse_model(model: nn.Module | None) -> None:
    """Refuse a model in which an example leaves a trace beside the gradient."""
    for name, layer in model.named_modules() if model is not None else ():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise SettingsError(
                f"Layer {name!r} normalises by the statistics of a batch, so an example changes "
                "the gradients of all others, and no clip bounds what one does. Use "
                "torch.nn.GroupNorm in its place; to keep the statistics with each client does "
                "not help."
            )
        running = isinstance(layer, _INSTANCES) and layer.track_running_stats
        table = isinstance(layer, nn.Embedding | nn.EmbeddingBag)
        if running or (table and layer.max_norm is not None):
            raise SettingsError(f"Layer {name!r} cannot be private. {_WRITES}")
        if table and layer.sparse:
            raise SettingsError(
                f"The gradients of layer {name!r} are sparse, and noise is not: they would show "
                "which entries a batch has. Build it with sparse=False."
            )
