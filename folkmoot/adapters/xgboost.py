"""XGBoost across clients by bagging: each round every client boosts the ensemble that all share.

Each client adds a few trees to the present ensemble with its own rows, and the server takes all of
them, each by its client's share of examples: the mean of their steps, as FedAvg takes the mean of
models. This is the bagging scheme of NVIDIA FLARE's and Flower's XGBoost examples, which count
clients alike, or leave the division to a smaller learning rate; that is `by_examples=False`. Trees
travel as arrays (`adapters/trees.py`).

Trees have no mean, so the server must see each client's: secure sums and client-level privacy
refuse. A tree's thresholds and leaves are numbers of its client's rows: what leaves a site tells
more of single rows than a mean of weights does.

State: the ensemble, which grows by clients x trees a round, in arrays with room for up to twice as
many. What is broadcast grows with it, so that bytes down grow with the square of the rounds.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from folkmoot.adapters import trees
from folkmoot.adapters.ensemble import Ensemble, forest_of, learns, library, model_of
from folkmoot.adapters.stated import column, is_whole, whole
from folkmoot.adapters.trees import Forest
from folkmoot.core.aggregator import EACH, Aggregator, State, Update
from folkmoot.core.algorithm import Algorithm, Batch, LocalWork, Plan, Round, Seen, Task
from folkmoot.core.codec import Bounds, Layout
from folkmoot.core.errors import QuorumError, SettingsError, did_you_mean, positive
from folkmoot.core.tree import Tree, num_bytes

_SETTINGS = (
    "alpha", "colsample_bylevel", "colsample_bynode", "colsample_bytree", "gamma", "grow_policy",
    "lambda", "max_bin", "max_delta_step", "max_leaves", "min_child_weight", "min_split_loss",
    "reg_alpha", "reg_lambda", "scale_pos_weight", "subsample", "tree_method",
)  # fmt: skip
"""Parameters of XGBoost that say how a tree is grown."""


def xgboost(
    *,
    inputs: int,
    classes: int | None = None,
    trees_a_round: int = 1,
    depth: int = 6,
    lr: float = 0.3,
    base: float = 0.0,
    by_examples: bool = True,
    settings: Mapping[str, float | str] | None = None,
) -> Algorithm:
    """Build federated bagging of boosted trees.

    Args:
        inputs: Columns of "x", (rows, inputs).
        classes: Of "y", which counts from 0; a client may lack some. None is for numbers, by
            squared error.
        trees_a_round: Boosting rounds of each client in one round, at least 1; of more than two
            classes each has a tree a class.
        depth: Splits on the longest way through a tree, 1 to 16. Every tree travels with room for
            2^(depth + 1) - 1 nodes, of 9 bytes.
        lr: Step of a tree, above 0: XGBoost's `eta`.
        base: What the empty ensemble says: a logit, or a number.
        by_examples: Whether a client's trees count by its examples; else all clients count alike.
        settings: Further parameters of XGBoost for growing a tree, such as
            {"min_child_weight": 5, "subsample": 0.8}.

    Returns:
        An algorithm of one exchange a round. `result.model` gives logits, or numbers;
        `result.model.booster()` is an `xgboost.Booster`.

    Raises:
        SettingsError: If XGBoost is not installed, a number is out of range, or a setting is not
            about growing a tree, or XGBoost does not take its value.
    """
    library()
    whole(inputs=inputs, trees_a_round=trees_a_round, depth=depth)
    positive(lr=lr)
    if depth > 16:
        raise SettingsError(
            f"depth must be at most 16, for trees travel with room, but is {depth}."
        )
    if classes is not None and not is_whole(classes, 2):
        raise SettingsError(
            "classes must be a whole number of at least 2, or None for numbers, but is "
            f"{classes!r}."
        )
    if isinstance(base, bool) or not isinstance(base, Real) or not math.isfinite(base):
        raise SettingsError(f"base must be a finite number, but is {base!r}.")
    ensemble = Ensemble(inputs, classes, depth, base)
    chosen = {**_known(settings or {}), "eta": lr}
    _try(ensemble, chosen)
    work = _boosting(ensemble, trees_a_round, chosen)
    rule = beside(inputs, by_examples=by_examples)

    def init() -> Tree:
        return {**ensemble.init(), "round": torch.ones((), dtype=torch.int64)}

    def round(state: Tree) -> Round:
        sent = {key: state[key] for key in ("params", "buffers", "counts", "round")}
        grown = yield Task(sent, work, rule)
        forest = trees.joined([forest_of(state), forest_in(grown.value, grown.counts)])
        room = len(state["params"]["number"])
        if room < len(forest.number):
            room = 2 * len(forest.number)
        return {**model_of(forest, room), "round": state["round"] + 1}

    return Algorithm("xgboost", init, round, (work,))


def _known(settings: Any) -> dict[str, float | str]:
    """Return settings, or refuse those that are not about growing a tree."""
    if not isinstance(settings, Mapping):
        raise SettingsError(f"settings must be values by name, but is {settings!r}.")
    for name in settings:
        if name not in _SETTINGS:
            raise SettingsError(
                f"settings has {name!r}, which is no parameter for growing a tree here."
                f"{did_you_mean(name, _SETTINGS)}"
            )
    return dict(settings)


def _try(ensemble: Ensemble, settings: Mapping[str, Any]) -> None:
    """Grow one tree of two rows: XGBoost itself knows which values it takes."""
    xgb = library()
    rows = xgb.DMatrix(np.zeros((2, ensemble.inputs)), label=[0, 1], nthread=1)
    try:
        xgb.train({**settings, **learns(ensemble)}, rows, num_boost_round=1)
    except xgb.core.XGBoostError as error:
        raise SettingsError(f"XGBoost refuses {dict(settings)}: {error}") from error


def _boosting(ensemble: Ensemble, trees_a_round: int, settings: Mapping[str, Any]) -> LocalWork:
    """Return the work of a client: a few trees on top of what is broadcast."""
    number = trees_a_round * ensemble.outputs

    def start(sent: Tree, own: Tree, key: Tensor) -> Tree:
        return {"grown": trees.empty(number, ensemble.depth)._asdict()}

    def step(work: LocalWork, sent: Tree, carry: Tree, batch: Batch) -> Tree:
        y = column(batch.data["x"], batch.data["y"], ensemble.inputs, ensemble.classes)
        x, xgb = batch.data["x"].float(), library()
        rows = xgb.DMatrix(x.numpy(), label=y, nthread=1)
        # The ensemble is where boosting begins: no model of strangers is loaded, only added up.
        rows.set_base_margin(ensemble.said(forest_of(sent), x).float().numpy())
        options = {**settings, **learns(ensemble), "seed": int(batch.key) & 0x7FFFFFFF}
        model = xgb.train(options, rows, num_boost_round=trees_a_round)
        return {"grown": trees.read(model.save_raw("json"), ensemble.depth)._asdict()}

    def finish(sent: Tree, carry: Tree, seen: Seen) -> tuple[Update, Tree]:
        value, counts = _parted(Forest(**carry["grown"]))
        # Said to be packed: a codec would round thresholds of all scales together.
        return Update(value, seen.examples, counts, num_bytes(value)), {}

    plan = Plan(epochs=1, batch_size=None, shuffle=False)
    return LocalWork("boost", ensemble, plan, start, step, finish, correct=None)


def beside(inputs: int, *, by_examples: bool) -> Aggregator:
    """Lay clients' trees beside each other, by id, each by its client's share.

    Trees that split by an input that there is not are left out, with all others of their client.
    """

    def init(example: Update, clients: int) -> State:
        return State({}, Bounds(clients=clients), Layout.of(example.value), example.counts)

    def encode(state: State, update: Update, key: int) -> Update:
        return update

    def decode(state: State, updates: Sequence[Update], key: int) -> tuple[Tree, Tree, State]:
        found = [(forest_in(one.value, one.counts), float(one.weight)) for one in updates]
        sound = [(forest, weight) for forest, weight in found if forest.is_sound(inputs)]
        weights = [weight if by_examples else 1.0 for _, weight in sound]
        if not sum(weights):
            raise QuorumError(
                f"None of {len(found)} clients has sent trees that split by the {inputs} inputs, "
                "with a weight above 0."
            )
        shares = [weight / sum(weights) for weight in weights]
        pairs = zip(sound, shares, strict=True)
        forest = trees.joined([forest.scaled(share) for (forest, _), share in pairs])
        value, counts = _parted(forest)
        return value, counts, state

    return Aggregator("beside", init, encode, decode, EACH)


def _parted(forest: Forest) -> tuple[Tree, Tree]:
    """Return trees as the two parts of an update: floating leaves, and others."""
    return {"number": forest.number}, {
        "feature": forest.feature,
        "missing_left": forest.missing_left,
    }


def forest_in(value: Tree, counts: Tree) -> Forest:
    """Return the trees of an update, or of what has come of several."""
    return Forest(counts["feature"], value["number"], counts["missing_left"])
