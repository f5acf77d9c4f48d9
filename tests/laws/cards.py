"""What each algorithm says of itself: its arguments, and the laws that do not hold for it, and why.

A law that is excused must fail (`xfail(strict=True)`), so that no excuse outlives its reason. A new
algorithm has one line here.
"""

import inspect
from typing import Any, NamedTuple

import pytest

from folkmoot import algorithms


class Card(NamedTuple):
    """One algorithm."""

    options: dict[str, Any] = {}  # noqa: RUF012  (a NamedTuple's default; nobody writes into it)
    """Arguments beside the work."""
    excused: dict[str, str] = {}  # noqa: RUF012
    """Law -> why it does not hold here."""


CARDS = {
    "agnostic": Card({"lambda_lr": 0.5}),
    "fedavg": Card(),
    "fedprox": Card({"mu": 0.3}),
    "qfedavg": Card(
        {"q": 1.0},
        {"centralised": "a step is divided by F^q + q F^(q - 1) L ||delta||^2, not by F^q alone"},
    ),
    "scaffold": Card(),
}
LAWS = {
    "centralised": "one client with one full-batch step is centralised descent",
    "alike": "clients who are alike are like one",
    "idle": "without local work no bit of the model changes",
    "order": "the order in which clients are named changes no bit",
    "learns": "six rounds on five clients bring the loss of the global model down by a fifth",
    "untouched": "the private state of a client that was not asked stays as it was",
    "whole": "every leaf of the module is broadcast",
    "vectorized": "the vectorized engine agrees with the sequential one",
}


def build(name, work, **more):
    """Build an algorithm by name, with the arguments of its card."""
    return getattr(algorithms, name)(work, **{**CARDS[name].options, **more})


def under(law, having=None):
    """Parametrise a test by the algorithms for which a law holds, and by those it must fail for."""
    assert law in LAWS

    def marked(name):
        reason = CARDS[name].excused.get(law)
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        return pytest.param(name, marks=marks)

    names = [name for name in CARDS if having is None or takes(name, having)]
    return pytest.mark.parametrize("name", [marked(name) for name in names])


def takes(name, option):
    """Tell whether an algorithm has an argument."""
    return option in inspect.signature(getattr(algorithms, name)).parameters
