"""The client's half: objectives, local training, transforms of works, evaluation."""

from folkmoot.local.evaluate import evaluate
from folkmoot.local.metrics import Metric
from folkmoot.local.objective import classifier, language_model, objective, regressor
from folkmoot.local.proximal import proximal
from folkmoot.local.sgd import descent, sgd

__all__ = [
    "Metric",
    "classifier",
    "descent",
    "evaluate",
    "language_model",
    "objective",
    "proximal",
    "regressor",
    "sgd",
]
