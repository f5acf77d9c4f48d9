"""The client's half: objectives, local training, transforms of works, evaluation."""

from folkmoot.local.dpsgd import dpsgd
from folkmoot.local.evaluate import evaluate
from folkmoot.local.feedback import feedback
from folkmoot.local.kinds import classifier, language_model, regressor
from folkmoot.local.metrics import Metric
from folkmoot.local.objective import objective
from folkmoot.local.personal import personal
from folkmoot.local.proximal import proximal
from folkmoot.local.sgd import descent, sgd

__all__ = [
    "Metric",
    "classifier",
    "descent",
    "dpsgd",
    "evaluate",
    "feedback",
    "language_model",
    "objective",
    "personal",
    "proximal",
    "regressor",
    "sgd",
]
