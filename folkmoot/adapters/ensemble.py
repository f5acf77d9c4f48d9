"""Boosted trees as an objective and as a module: both add up arrays, and XGBoost is not asked.

What one could get wrong: logits are sums in float64 here and in float32 in XGBoost, so they agree
to its rounding, not bit for bit.
"""

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from folkmoot.adapters import losses, trees
from folkmoot.adapters.trees import Forest
from folkmoot.core.algorithm import Batch
from folkmoot.core.errors import ClientError, SettingsError
from folkmoot.core.tree import Tree
from folkmoot.local import metrics
from folkmoot.local.metrics import Metric


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trees that are added up, as an objective that has no gradient to show."""

    inputs: int
    classes: int | None
    depth: int
    base: float
    target: str = "y"

    @property
    def outputs(self) -> int:
        """Trees of one boosting step: numbers that the model has for a row."""
        return self.classes if self.classes and self.classes > 2 else 1

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Loss and accuracy, or loss, RMSE and MAE."""
        loss = losses.cross_entropy if self.classes else losses.square_error
        judged = (losses.accuracy(),) if self.classes else (metrics.rmse(), metrics.mae())
        return metrics.mean_of("loss", loss, "lower"), *judged

    def init(self) -> Tree:
        """Return the model of no tree."""
        return model_of(trees.empty(0, self.depth), 0)

    def module(self, state: Tree) -> "Trees":
        """Return a module that adds up a state's trees."""
        return Trees(self, forest_of(state))

    def with_precision(self, precision: str) -> "Ensemble":
        """Return this objective in "float32", in which trees are grown."""
        if precision != "float32":
            raise SettingsError(
                f"precision={precision!r} is for PyTorch's gradients, and trees are grown by "
                "XGBoost. Leave precision= out."
            )
        return self

    def split(self, data: Tree) -> tuple[Any, Any]:
        """Return (inputs, targets) of a batch's data."""
        return data["x"], data.get(self.target)

    def grad(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> NoReturn:
        """Refuse: trees have no gradient.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError(
            "Trees are grown and have no gradient, so fleet=, which counts the operations of one, "
            "cannot time them. Leave it out."
        )

    def measure(self, params: Tree, buffers: Tree, counts: Tree, batch: Batch) -> Tree:
        """Return each metric's sums over a batch, (k,) in float64."""
        forest = forest_of({"params": params, "counts": counts})
        outputs = self.said(forest, batch.data["x"])
        return losses.summed(self.metrics, outputs, batch.data[self.target], batch.weight)

    def said(self, forest: Forest, x: Tensor) -> Tensor:
        """Return the model's outputs, float64: (rows,), or (rows, classes) of more than two."""
        if x.dim() != 2 or x.shape[1] != self.inputs:
            raise ClientError(
                f"Leaf 'x' has shape {tuple(x.shape)}, but trees read (rows, {self.inputs})."
            )
        found = trees.margins(forest, x.float(), self.outputs) + self.base
        return found[:, 0] if self.outputs == 1 else found


class Trees(nn.Module):
    """An ensemble's trees as buffers; called on x, (rows, inputs), it gives logits or numbers."""

    feature: Tensor
    number: Tensor
    missing_left: Tensor

    def __init__(self, ensemble: Ensemble, forest: Forest) -> None:
        super().__init__()
        self._ensemble = ensemble
        for name, leaf in forest._asdict().items():
            self.register_buffer(name, leaf.clone())
        self.eval()

    @property
    def forest(self) -> Forest:
        """The trees."""
        return Forest(self.feature, self.number, self.missing_left)

    def forward(self, x: Tensor) -> Tensor:
        """Return (rows,), or (rows, classes) of more than two classes, float64."""
        return self._ensemble.said(self.forest, x)

    def booster(self) -> Any:
        """Return these trees as an `xgboost.Booster`; a base that is not 0 is one more step.

        Raises:
            SettingsError: If XGBoost is not installed.
        """
        xgb, ensemble, forest = library(), self._ensemble, self.forest
        blank = xgb.DMatrix(np.zeros((1, ensemble.inputs)), label=[0], nthread=1)
        empty = xgb.train(learns(ensemble), blank, num_boost_round=0)
        outputs, inputs = ensemble.outputs, ensemble.inputs
        if ensemble.base:
            # As a tree a class: XGBoost has it as a probability, in which large logits are all 1.
            first = trees.empty(outputs, ensemble.depth)
            first.number[:, 0] = ensemble.base
            forest = trees.joined([first, forest])
        model = trees.written(forest, empty.save_raw("json"), outputs, inputs)
        found = xgb.Booster({"nthread": 1})
        found.load_model(bytearray(model))
        return found


def forest_of(model: Tree) -> Forest:
    """Return the trees of a state or a broadcast, without the room behind them."""
    counts = model["counts"]
    held = Forest(counts["feature"], model["params"]["number"], counts["missing_left"])
    return held.resized(int(counts["trees"]))


def model_of(forest: Forest, room: int) -> Tree:
    """Return trees as {"params", "buffers", "counts"}, with room for `room` of them.

    Room that is doubled changes its shape in few rounds, of which each has workers forked anew.
    """
    held = forest.resized(max(room, len(forest.number)))
    counts = {
        "feature": held.feature,
        "missing_left": held.missing_left,
        "trees": torch.tensor(len(forest.number)),
    }
    return {"params": {"number": held.number}, "buffers": {}, "counts": counts}


def learns(ensemble: Ensemble) -> dict[str, Any]:
    """Return what XGBoost must know of an ensemble, which says 0 where it has no tree."""
    if ensemble.outputs > 1:
        learnt: dict[str, Any] = {"objective": "multi:softprob", "num_class": ensemble.outputs}
    else:
        learnt = {"objective": "binary:logistic" if ensemble.classes else "reg:squarederror"}
    zero = 0.5 if ensemble.classes == 2 else 0.0
    # One thread: more give other bits, and hang in forked workers.
    return {**learnt, "max_depth": ensemble.depth, "base_score": zero, "nthread": 1, "verbosity": 0}


def library() -> Any:
    """Return the module xgboost.

    Raises:
        SettingsError: If it is not installed.
    """
    try:
        import xgboost
    except ImportError as error:
        raise SettingsError(
            "Boosted trees need XGBoost, which is not installed: pip install 'folkmoot[xgboost]'."
        ) from error
    return xgboost
