"""What each algorithm says of itself: its arguments, and the laws that do not hold for it, and why.

A law that is excused must fail (`xfail(strict=True)`), so that no excuse outlives its reason. A new
algorithm has one line here.
"""

import inspect
from typing import Any, NamedTuple

import pytest

from folkmoot import algorithms, codecs


class Card(NamedTuple):
    """One algorithm."""

    options: dict[str, Any] = {}  # noqa: RUF012  (a NamedTuple's default; nobody writes into it)
    """Arguments beside the work."""
    excused: dict[str, str] = {}  # noqa: RUF012
    """Law -> why it does not hold here."""


def head(leaf):
    """Tell of the last layer's leaves in the models of the laws."""
    return leaf.startswith(("2.", "out."))


def body(leaf):
    """Tell of a layer before the last."""
    return leaf.startswith(("0.", "norm."))


STAY = {
    "centralised": "leaves that stay with a client are not in the state",
    "whole": "leaves that stay with a client are not broadcast",
}
COUNTED = "batch statistics stay with a client, or count the epochs of the head as well"
CARDS = {
    "agnostic": Card({"lambda_lr": 0.5}),
    "apfl": Card({"alpha_lr": 0.1}),
    "cyclic": Card(),
    "ditto": Card({"lam": 0.3}),
    "ef21": Card(
        {"codec": codecs.top_k(0.5)},
        {
            "centralised": "half of the numbers are sent, and the rest comes later",
            "vectorized": "clients pack one by one",
        },
    ),
    "fedasync": Card({}, {"centralised": "six tenths of the step are taken"}),
    "fedavg": Card(),
    "fedadagrad": Card({"lr": 0.1}, {"centralised": "a divided step is not the mean delta"}),
    "fedadam": Card({"lr": 0.1}, {"centralised": "a divided step is not the mean delta"}),
    "fedavgm": Card({}, {"centralised": "the server's momentum comes on top of the step"}),
    "fedbn": Card({"layers": body}, {**STAY, "everything": COUNTED}),
    "feddyn": Card({"alpha": 0.3}, {"centralised": "the server's memory comes on top of the step"}),
    "fedexp": Card(),
    "fednova": Card(),
    "fedper": Card({"personal": head}, STAY),
    "fedprox": Card({"mu": 0.3}),
    "fedrep": Card({"personal": head, "head": 1}, {**STAY, "everything": COUNTED}),
    "fedsam": Card({}, {"centralised": "the gradient is one at the worst model nearby"}),
    "fedyogi": Card({"lr": 0.1}, {"centralised": "a divided step is not the mean delta"}),
    "ifca": Card(
        {"clusters": 2},
        {
            "centralised": "the first models are the work's with noise",
            "left out": "a client answers with its choice, and keeps it, before it trains",
        },
    ),
    "lg_fedavg": Card({"shared": head}, {**STAY, "everything": COUNTED}),
    "mime": Card(),
    "mimelite": Card(),
    "moon": Card({"features": "1"}),
    "pfedme": Card(
        {"lam": 1.0, "lr": 0.8, "inner_steps": 2},
        {"centralised": "the model goes a share of the way to where two steps have led"},
    ),
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
    "learns": "six rounds on five clients bring down the loss by a fifth, of the global model or, "
    "where clients have some, of their own",
    "everything": "a model with layers of all kinds is trained, and its counts are averaged",
    "untouched": "the private state of a client that was not asked stays as it was",
    "left out": "the private state of a client whose update is not finite stays as it was",
    "whole": "every leaf of the module is broadcast",
    "vectorized": "the vectorized engine agrees with the sequential one",
}


def build(name, work, **more):
    """Build an algorithm by name, with the arguments of its card."""
    return getattr(algorithms, name)(work, **{**CARDS[name].options, **more})


def under(law, having=None):
    """Parametrise a test by the algorithms for which a law holds, and by those it must fail for."""
    names = [name for name in CARDS if having is None or takes(name, having)]
    return pytest.mark.parametrize("name", [pytest.param(n, marks=excuse(law, n)) for n in names])


def under_servers(law, servers, few):
    """Parametrise a test as `under` does, and by servers: FedAvg by all, others by a few."""
    cases = []
    for name in CARDS:
        mine = servers if name == "fedavg" else few if takes(name, "server") else {"its own": None}
        for title, server in mine.items():
            marks = excuse(law, name)
            cases.append(pytest.param(name, server, marks=marks, id=f"{name}-{title}"))
    return pytest.mark.parametrize(("name", "server"), cases)


def excuse(law, name):
    """Mark what must fail, with the reason."""
    assert law in LAWS
    reason = CARDS[name].excused.get(law)
    return [pytest.mark.xfail(reason=reason, strict=True)] if reason else []


def takes(name, option):
    """Tell whether an algorithm has an argument."""
    return option in inspect.signature(getattr(algorithms, name)).parameters
