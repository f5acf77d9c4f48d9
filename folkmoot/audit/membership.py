"""Membership inference: which examples a model was trained on, by models trained on other halves.

Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022, arXiv:2112.03570
(LiRA, online): each shadow model is trained on a random half of the examples; for each example, the
confidence of models that saw it and of those that did not are two normal distributions, and the
attacked model's confidence is more likely under one of them. Small: each shadow is attacked in
turn with all others as its shadows, which gives as many attacks as models. What counts is the rate
of true positives where false ones are rare, not the accuracy.

The halves are of each client's examples, so what a federation gives away is asked, example by
example. There is no bound here, only an attack: a low rate says that this one failed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from folkmoot.audit.drowned import drowned
from folkmoot.core import rng
from folkmoot.core import tree as trees
from folkmoot.core.algorithm import Algorithm
from folkmoot.core.engine import ClientId, Opener
from folkmoot.core.errors import SettingsError
from folkmoot.core.tree import Tree
from folkmoot.data import as_clients
from folkmoot.privacy.dp import DP
from folkmoot.train.run import run

Numbers = NDArray[np.float64]

_FEWEST_SHADOWS = 4
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, kw_only=True, repr=False)
class Membership:
    """How well examples of training were told from others. Print it."""

    name: str
    scores: Numbers
    """(attacks,), log-likelihood ratios; higher ones speak for membership."""
    members: NDArray[np.bool_]
    """(attacks,), the truth."""
    examples: int
    models: int

    @property
    def auc(self) -> float:
        """The chance that a member scores higher than another example; 0.5 is guessing."""
        order = np.argsort(self.scores, kind="stable")
        ranks = np.empty(len(order))
        values, inverse = np.unique(self.scores, return_inverse=True)
        ranks[order] = np.arange(1, len(order) + 1)
        # Equal scores share the mean of their ranks.
        shared = np.bincount(inverse, weights=ranks) / np.bincount(inverse, minlength=len(values))
        inside = int(self.members.sum())
        outside = len(self.members) - inside
        total = shared[inverse][self.members].sum() - inside * (inside + 1) / 2
        return float(total / (inside * outside))

    def true_positives_at(self, false_positives: float) -> float:
        """Return the rate of true positives at a rate of false ones, such as 0.01."""
        outside = np.sort(self.scores[~self.members])[::-1]
        allowed = int(false_positives * len(outside))
        threshold = outside[allowed] if allowed < len(outside) else -np.inf
        return float((self.scores[self.members] > threshold).mean())

    def __str__(self) -> str:
        rows = [
            ("area under the curve", f"{self.auc:.3f} (guessing: 0.5)"),
            *(
                (f"true positives at {rate:.1%} false", f"{self.true_positives_at(rate):.1%}")
                for rate in (0.001, 0.01, 0.1)
            ),
            ("attacks", f"{len(self.scores):,}: {self.examples:,} examples, {self.models} models"),
            ("method", "likelihood ratios of shadow models (Carlini et al. 2022)"),
        ]
        width = max(len(what) for what, _ in rows)
        lines = [f"Membership inference on {self.name}", ""]
        return "\n".join(lines + [f"  {what:<{width}}  {said}" for what, said in rows])

    __repr__ = __str__


def membership(
    algorithm: Algorithm,
    clients: Any,
    *,
    rounds: int,
    cohort: int | float | None = None,
    privacy: DP | None = None,
    models: int = 16,
    seed: int = 0,
    engine: Opener | None = None,
) -> Membership:
    """Train models on halves of all examples, and attack each with the others.

    Args:
        algorithm, clients, rounds, cohort, privacy, engine: As for `fm.run`. The algorithm's model
            must be a classifier of "x" into more than one class, "y".
        models: Models to train, at least 4; the paper takes up to 256.
        seed: Of the halves, and of the first run; each model has another one.

    Returns:
        The report: print it.

    Raises:
        SettingsError: If there are too few models, or a client has fewer than two examples.
    """
    if isinstance(models, bool) or not isinstance(models, int) or models < _FEWEST_SHADOWS:
        raise SettingsError(
            f"models must be a whole number of at least {_FEWEST_SHADOWS}, so that each is "
            f"attacked with some that saw an example and some that did not, but is {models!r}."
        )
    federation = as_clients(clients)
    held = {client: federation[client].train for client in federation}
    kept = _halves({client: _rows(data) for client, data in held.items()}, models, seed)
    confidences = []
    for model in range(models):
        chosen = {client: _chosen(data, kept[client][model]) for client, data in held.items()}
        with drowned():
            result = run(
                algorithm,
                chosen,
                rounds=rounds,
                cohort=cohort,
                privacy=privacy,
                seed=seed + model,
                engine=engine,
                evaluate_every=rounds,
                client_tests=False,
                progress=False,
            )
        told = [confidence(result.model, data) for data in held.values()]
        confidences.append(np.concatenate(told))
    seen = np.concatenate([kept[client] for client in held], axis=1)  # (models, examples)
    scores = likelihood_ratios(np.array(confidences), seen)
    return Membership(
        name=algorithm.name,
        scores=scores.reshape(-1),
        members=seen.reshape(-1),
        examples=seen.shape[1],
        models=models,
    )


def confidence(model: torch.nn.Module, data: Tree) -> Numbers:
    """Return how sure a model is of each example's label, log(p / (1 - p)), (examples,)."""
    with torch.no_grad():
        logits = model(data["x"]).double()
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise SettingsError(
            "Membership inference needs a classifier's logits, (examples, classes), but the model "
            f"gives {tuple(logits.shape)}."
        )
    own = data["y"].reshape(-1, 1)
    others = logits.scatter(1, own, -torch.inf)
    found: Numbers = (logits.gather(1, own)[:, 0] - others.logsumexp(dim=1)).numpy()
    return found


def likelihood_ratios(confidences: Numbers, seen: NDArray[np.bool_]) -> Numbers:
    """Attack each model with all others as its shadows, (models, examples).

    Args:
        confidences: (models, examples), each model's confidence in each example.
        seen: (models, examples), whether it was trained on it; about half of each column.
    """
    scores = np.empty_like(confidences)
    for model in range(len(confidences)):
        others = np.arange(len(confidences)) != model
        inside = _normal(confidences[others], seen[others])
        outside = _normal(confidences[others], ~seen[others])
        scores[model] = _log_density(confidences[model], inside) - _log_density(
            confidences[model], outside
        )
    return scores


class _Normal(NamedTuple):
    """What a model's confidence would be in each example, by those of others."""

    mean: Numbers
    variance: float
    """Pooled over all examples, as the paper advises for few shadows."""
    shadows: Numbers
    """How many the mean was taken of."""


def _normal(values: Numbers, chosen: NDArray[np.bool_]) -> _Normal:
    """Fit each column's chosen rows."""
    count = chosen.sum(axis=0)
    mean = np.where(chosen, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    apart = np.where(chosen, values - mean, 0.0)
    freedom = np.maximum(count - 1, 0).sum()
    variance = float((apart**2).sum() / max(freedom, 1)) + _LEAST_VARIANCE
    return _Normal(mean, variance, np.maximum(count, 1).astype(np.float64))


def _log_density(values: Numbers, normal: _Normal) -> Numbers:
    # The mean of a few shadows has a variance of its own: without it the smaller group, to which
    # the attacked model itself does not count, would look the less likely in every attack.
    spread = normal.variance * (1 + 1 / normal.shadows)
    found: Numbers = -((values - normal.mean) ** 2) / (2 * spread) - math.log(normal.variance) / 2
    return found


def _halves(
    sizes: Mapping[ClientId, int], models: int, seed: int
) -> dict[ClientId, NDArray[np.bool_]]:
    """Return, for each client, which examples each model sees: (models, examples).

    Each example is seen by exactly half of the models.
    """
    found = {}
    for client, size in sizes.items():
        if size < 2:
            raise SettingsError(
                f"Client {client!r} has {size} examples, which cannot be halved. Leave it out."
            )
        draw = rng.generator(rng.derive(seed, client=client, purpose="halves"))
        places = np.argsort(draw.random((models, size)), axis=0)
        seen = places < models // 2
        for model in range(models):
            # Nobody is left without an example.
            if not seen[model].any():
                seen[model, int(draw.integers(size))] = True
        found[client] = seen
    return found


def _rows(data: Tree) -> int:
    return len(trees.leaves(data)[0])


def _chosen(data: Tree, rows: NDArray[np.bool_]) -> Tree:
    places = torch.from_numpy(np.flatnonzero(rows))
    return trees.map(lambda leaf: leaf[places], data)
